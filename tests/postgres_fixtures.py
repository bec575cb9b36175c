"""PostgreSQL for the tests that ask for it: started once, at the first of them; a database of its own for each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tools.postgres import Postgres


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One server for the whole run."""
    # Who pulls the plug on a test does not want its rows.
    with Postgres({"fsync": "off", "synchronous_commit": "off"}) as server:
        yield server


@pytest.fixture
def postgres_url(postgres: Postgres) -> str:
    """SQLAlchemy's URL of an empty database."""
    return postgres.database()
