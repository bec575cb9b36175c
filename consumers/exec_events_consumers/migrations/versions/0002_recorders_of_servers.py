"""Recorders say how often they speak, and of which server they are."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the change."""
    heartbeat = "How far apart its signs of life are, by its own word."
    op.add_column("recorders", sa.Column("heartbeat_us", sa.BigInteger(), nullable=True, comment=heartbeat))
    server = "The site's label of the server it is of, by its own word."
    op.add_column("recorders", sa.Column("server", sa.Text(), nullable=True, comment=server))
    op.create_index("recorders_of_server", "recorders", ["server", "last_at"])
