"""What people decide and what their browsers say, read by every consumer."""

from __future__ import annotations

from pathlib import Path

import duckdb
from logs import Log, aggregate, opened, sqlite_url
from test_archive import archived

from exec_events_consumers.decode import DeadLetter, decode
from exec_events_consumers.feed import Fetched
from exec_events_schemas.catalogue import examples, find
from spool_files import FIRST, chain_of

KINDS = ("consent", "notebook_action", "query_answered", "budget_debited", "policy_changed", "release_decided")


def log() -> Log:
    """Two executions of one person, and between them every example of the events of people."""
    found = Log()
    found.run(1, 1_000_000)
    for kind in KINDS:
        name = find(kind)
        about = {"__schema__": name.id, "__schema_version__": "1", "recorder_id": FIRST}
        for data in examples(name).values():
            found.add({**data, **about}, chain_of(FIRST, 1))
    found.run(1, 2_000_000)
    return found


def test_no_consumer_makes_dead_letters_of_them(tmp_path: Path) -> None:
    """Decoded, aggregated and archived, consent, notebook_action and the enclave's events are taken as they are, with no gap and no letter."""
    made = log()
    decoded = [decode(Fetched("p", n, record, raw)) for n, (record, raw) in enumerate(made.records)]
    assert not [letter for letter in decoded if isinstance(letter, DeadLetter)]
    url = sqlite_url(tmp_path)
    aggregate(url, made.records)
    with opened(url) as store, store.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM dead_letters").scalar() == 0
        assert connection.exec_driver_sql("SELECT count(*) FROM executions").scalar() == 2
        kinds = dict(connection.exec_driver_sql("SELECT kind, count(*) FROM other_records GROUP BY kind").all())
        chains = connection.exec_driver_sql("SELECT gaps, missing, forks, duplicates FROM chains").all()
    expected = {kind: len(examples(find(kind))) for kind in KINDS}
    assert kinds == expected
    assert chains == [("[]", 0, 0, 0)]
    archived(tmp_path / "archive", made.records)
    with duckdb.connect() as connection:
        rows = connection.sql(f"SELECT kind, count(*) FROM '{tmp_path}/archive/**/*.parquet' GROUP BY kind").fetchall()
    assert dict(rows) == {**expected, "cell_execution": 2}
