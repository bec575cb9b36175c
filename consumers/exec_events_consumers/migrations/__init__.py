"""
A store of any age in, one with the tables of this version out.

A change of tables is a new file in ``versions``, never a change of one that was released.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, text

# Any number, so long as it is the same: two consumers that start at once upgrade one after the other.
_LOCK = 7_035_001


def upgrade(engine: Engine) -> None:
    """Bring the tables of a store up to date, in one transaction; does nothing where they are."""
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
        command.upgrade(configuration(connection), "head")


def configuration(connection: Connection) -> Config:
    """Alembic's configuration for the store of ``connection``."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
