"""What Alembic runs: the migrations, on the connection it was given."""

from __future__ import annotations

from alembic import context

from exec_events_consumers.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table="exec_events_version",
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
