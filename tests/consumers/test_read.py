"""For notebooks: ``read`` gives typed tables of a spool, JSON lines, a topic or a store, the same of each."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from logs import aggregate, random_log, sqlite_url
from published import make_topics, publish

from exec_events_consumers import read
from exec_events_consumers.errors import ConsumerError, StoreError
from exec_events_consumers.tables import AGGREGATES, metadata
from exec_events_schemas.catalogue import catalogue
from exec_events_schemas.errors import SourceError
from exec_events_schemas.sources import StoredRecord
from spool_files import FIRST, Recording, two_recorders, write_json_lines, write_spool_file

TIME = pa.timestamp("us", tz="UTC")
LOG = random_log(random.Random(5), 400)
ROWS = [StoredRecord(record, raw, "", number) for number, (record, raw) in enumerate(LOG.records)]


@pytest.fixture
def spool(tmp_path: Path) -> str:
    """A spool that holds the log."""
    write_spool_file(tmp_path / "spool", FIRST, ROWS, "2026-01-01T00:00:00.000000Z")
    return f"spool://{tmp_path / 'spool'}"


@pytest.fixture
def store(tmp_path: Path) -> str:
    """A store made of the log."""
    url = sqlite_url(tmp_path)
    aggregate(url, LOG.records)
    return url


def ordered(table: pa.Table) -> pa.Table:
    """The same rows in the order of their chains."""
    return table.sort_by([("chain", "ascending"), ("seq", "ascending")])


def test_a_spool_a_file_and_a_store_give_the_same_table(tmp_path: Path, spool: str, store: str) -> None:
    """Every source of the same record gives the same rows, with the columns and types of the table executions."""
    lines = write_json_lines(tmp_path / "record.jsonl", ROWS)
    tables = [ordered(read(source).executions()) for source in (spool, lines, store)]
    assert tables[0].num_rows == 400
    assert tables[0].equals(tables[1])
    assert tables[0].equals(tables[2])
    assert ordered(read(store).table("executions")).equals(tables[2])
    assert tables[0].column_names == [column.name for column in metadata.tables["executions"].columns]
    types = {name: tables[0].schema.field(name).type for name in ("subject", "duration_us", "silent", "requested_at")}
    assert types == {"subject": pa.string(), "duration_us": pa.int64(), "silent": pa.bool_(), "requested_at": TIME}
    first = tables[0].to_pylist()[0]
    event = next(event for event in LOG.events if event["execution_id"] == first["execution_id"])
    assert first["requested_at"] == datetime.fromisoformat(event["requested_at"])
    assert (first["started_at"], first["status"]) == (datetime.fromisoformat(event["started_at"]), event["status"])


def test_a_topic_gives_it_too_and_each_record_once(kafka: Any, kafka_prefix: str, spool: str) -> None:
    """From Kafka, where records may come twice, the same rows come; since and until as well."""
    make_topics(kafka, kafka_prefix)
    publish(kafka, kafka_prefix, [*ROWS, *ROWS[:50]])
    topic = read(f"kafka://{kafka.servers}/{kafka_prefix}")
    assert ordered(topic.executions()).equals(ordered(read(spool).executions()))
    span = {"since": "2026-01-01T03:00", "until": "2026-01-01T09:00"}
    assert 0 < topic.executions(**span).num_rows < 400
    assert ordered(topic.executions(**span)).equals(ordered(read(spool).executions(**span)))


def test_postgresql_gives_the_same_as_sqlite(store: str, postgres_url: str) -> None:
    """Each table that the aggregate makes is the same from either kind of store."""
    aggregate(postgres_url, LOG.records)
    for table in AGGREGATES:
        sqlite, postgresql = read(store).table(table.name), read(postgres_url).table(table.name)
        order = [(column.name, "ascending") for column in table.primary_key.columns]
        assert sqlite.sort_by(order).equals(postgresql.sort_by(order)), table.name


def test_it_is_narrowed_by_time_and_subject(spool: str, store: str) -> None:
    """since, until (not with) and subject give the executions that were asked for then, of that person; combined too."""
    times = sorted(event["requested_at"] for event in LOG.events)
    since, until = times[100], times[300]
    wanted = {
        event["execution_id"]
        for event in LOG.events
        if since <= event["requested_at"] < until and event["subject"] == "subject-2"
    }
    for source in (spool, store):
        narrowed = read(source).executions(since=since, until=datetime.fromisoformat(until), subject="subject-2")
        assert set(narrowed["execution_id"].to_pylist()) == wanted
        assert read(source).executions(since="2027-01-01").num_rows == 0
    assert read(store).table("cells", subject="subject-2")["subject"].unique().to_pylist() == ["subject-2"]


def test_a_time_without_a_zone_is_utc_and_one_with_is_that_time(spool: str) -> None:
    """An hour in another zone is the same hour."""
    counts = {
        read(spool).executions(since=since).num_rows
        for since in (
            "2026-01-01T08:00",
            "2026-01-01T08:00Z",
            "2026-01-01T10:00+02:00",
            datetime(2026, 1, 1, 8, tzinfo=UTC),
        )
    }
    assert len(counts) == 1


def test_events_have_all_their_members(tmp_path: Path) -> None:
    """events(kind) gives one column for each member of the schema, lists and times typed; without a kind, JSON text."""
    for recording in two_recorders():
        recording.write(tmp_path)
    reading = read(tmp_path)
    recorders = reading.events("recorder")
    assert recorders["action"].to_pylist().count("started") == 2
    assert recorders.schema.field("time").type == TIME
    heads = [row["heads"] for row in recorders.to_pylist() if row["heads"]]
    assert {"chain", "seq", "hash"} == heads[0][0].keys()
    executions = reading.events("cell_execution", subject="subject-1")
    assert executions.num_rows == 6
    assert executions.schema.field("outputs").type.value_type.field("bytes").type == pa.int64()
    everything = reading.events()
    assert everything.num_rows == 12 + recorders.num_rows
    assert {json.loads(text)["__schema__"].split("/")[-2] for text in everything["event"].to_pylist()} == {
        "cell_execution",
        "recorder",
    }
    for name in {name.event for name in catalogue()}:
        assert reading.events(name).num_rows >= 0


def test_events_of_somebody_elses_schema(tmp_path: Path) -> None:
    """Events of other schemas are given by the id of theirs, whatever their members are."""
    made = Recording(FIRST)
    theirs = "https://example.org/events/saved/v1"
    made.seal({"__schema__": theirs, "__timestamp__": "2026-01-01T00:00:00Z", "subject": 7}, FIRST)
    made.execute(1)
    made.write(tmp_path)
    (row,) = read(tmp_path).events(theirs).to_pylist()
    assert (row["kind"], row["subject"], json.loads(row["event"])["subject"]) == (theirs, None, 7)
    assert read(tmp_path).executions().num_rows == 1


def test_every_table_of_a_store_can_be_had(store: str) -> None:
    """Each table that docs/tables.md names comes with its columns, times as times."""
    for name, table in metadata.tables.items():
        assert read(store).table(name).column_names == [column.name for column in table.columns]
    minutes = read(store).table("minutes")
    assert minutes.schema.field("minute").type == TIME
    assert minutes["minute"].null_count == 0


def test_dataframes(spool: str) -> None:
    """pandas and Polars get the same rows with times, and a batch is the most that is in memory of a stream."""
    pandas = read(spool).executions(format="pandas")
    polars = read(spool).executions(format="polars")
    assert len(pandas) == polars.height == 400
    assert str(pandas["requested_at"].dtype) == "datetime64[us, UTC]"
    assert str(polars["requested_at"].dtype) == "Datetime(time_unit='us', time_zone='UTC')"
    assert pandas["duration_us"].sum() == polars["duration_us"].sum()
    (batch,) = read(spool).executions(format="batches")
    assert isinstance(batch, pa.RecordBatch)


def test_what_cannot_be_used_is_left_out_with_a_warning(tmp_path: Path) -> None:
    """Damage, a forged record and a fork are left out, and one warning says how many and why."""
    rows = [*ROWS[:10], StoredRecord(b"junk", b"\0" * 32, "", 11), ROWS[11]._replace(hash=b"\0" * 32)]
    write_spool_file(tmp_path, FIRST, rows, "2026-01-01T00:00:00.000000Z")
    with pytest.warns(UserWarning, match="2 records of .* cannot be used and are left out; the first"):
        assert read(tmp_path).executions().num_rows == 10
    write_spool_file(tmp_path / "whole", FIRST, ROWS[:10], "2026-01-01T00:00:00.000000Z")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(tmp_path / "whole").executions().num_rows == 10


def test_what_cannot_be_had_is_told(tmp_path: Path, spool: str, store: str) -> None:
    """Each error says what there is instead."""
    with pytest.raises(SourceError, match="does not exist"):
        read(tmp_path / "nothing")
    with pytest.raises(StoreError, match="cannot be opened"):
        read(f"sqlite:///{tmp_path}/no/such.db").executions()
    with pytest.raises(ConsumerError, match="no tables yet"):
        read(sqlite_url(tmp_path, "empty.sqlite")).executions()
    with pytest.raises(ConsumerError, match=r"there are .*cell_execution, "):
        read(spool).events("execution")
    with pytest.raises(ConsumerError, match="exec-events aggregate"):
        read(spool).table("cells")
    with pytest.raises(ConsumerError, match="is a store"):
        read(store).events("recorder")
    with pytest.raises(ConsumerError, match="there are cells, chains"):
        read(store).table("cell")
    with pytest.raises(ConsumerError, match="has no column subject"):
        read(store).table("offsets", subject="x")
    with pytest.raises(ConsumerError, match="is no time"):
        read(spool).executions(since="yesterday")
    with pytest.raises(ConsumerError, match="there are arrow, pandas"):
        read(spool).executions(format="excel")  # type: ignore[arg-type]


def test_importing_the_package_stays_light() -> None:
    """Who imports the package pays for neither SQLAlchemy nor pyarrow, and without pyarrow `read` says what to do."""
    light = "import exec_events_consumers, sys; sys.exit(bool({'sqlalchemy', 'pyarrow', 'kafka'} & sys.modules.keys()))"
    subprocess.run([sys.executable, "-c", light], check=True, timeout=60)
    without = "import sys; sys.modules['pyarrow'] = None\nfrom exec_events_consumers import read\nread('.')"
    told = subprocess.run([sys.executable, "-c", without], check=False, timeout=60, capture_output=True, text=True)
    assert "pip install 'exec-events[export]'" in told.stderr


def test_batches_keep_memory_flat(tmp_path: Path) -> None:
    """Reading four times as much in batches takes no more memory, give or take a few megabytes."""
    made = Recording(FIRST)
    for number in range(24_000):
        made.execute(number % 5)
    write_spool_file(tmp_path / "small", FIRST, made.rows[:6000], made.started_at)
    made.write(tmp_path / "large")
    script = (
        "import resource, sys\nfrom exec_events_consumers import read\n"
        "rows = sum(batch.num_rows for batch in read(sys.argv[1]).executions(format='batches'))\n"
        "print(rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    peaks = {}
    for name in ("small", "large"):
        command = [sys.executable, "-c", script, str(tmp_path / name)]
        done = subprocess.run(command, check=True, timeout=120, capture_output=True, text=True)
        rows, kilobytes = map(int, done.stdout.split())
        peaks[rows] = kilobytes / 1024
    assert peaks.keys() == {6000, 24_000}
    assert peaks[24_000] - peaks[6000] < 15, peaks
