"""How fast a record is verified: read from the spool, hashed, linked."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import median

from exec_events.spool_file import Batch, SpoolFile
from exec_events_schemas.chain import Verifier
from exec_events_schemas.record import Head, seal
from exec_events_schemas.sources import open_source

from .figures import Figure
from .fleet import progress
from .sample import CHAIN, RECORDER_ID, SCHEMA_ID, cell_execution

REPEATS = 5


async def measure(quick: bool) -> list[Figure]:
    """Records per second through source and verifier, as ``exec-events verify`` does it."""
    count = 20_000 if quick else 300_000
    rates = []
    with tempfile.TemporaryDirectory(prefix="exec-events-bench-") as folder:
        _write(Path(folder), count)
        for turn in range(REPEATS):
            began = time.perf_counter()
            verifier = Verifier()
            for stored in open_source(folder).read(verifier.damaged):
                verifier.add(stored)
            report = verifier.finish()
            rates.append(count / (time.perf_counter() - began))
            if report.findings or report.records < count:
                raise RuntimeError(f"verify found {report.findings[:1]} in {report.records} records")
            progress(f"verify {turn + 1}/{REPEATS}: {rates[-1]:,.0f} records/s")
    return [Figure("verify", median(rates), "records/s", 150_000, rounds=tuple(rates))]


def _write(folder: Path, count: int) -> None:
    file = SpoolFile(folder, RECORDER_ID)
    file.open("2026-01-01T00:00:00.000000Z")
    try:
        started = {
            "__schema__": "https://exec-events.org/schemas/recorder/v1",
            "__schema_version__": "1",
            **{key: cell_execution(0)[key] for key in ("time", "recorder_id", "trust")},
            "action": "started",
        }
        record, head = seal(started, RECORDER_ID, None)
        file.write(Batch(records=[(1, record, head.hash)], heads={RECORDER_ID: head}))
        last: Head | None = None
        for start in range(0, count - 1, 10_000):
            batch = Batch()
            for number in range(start, min(start + 10_000, count - 1)):
                event = {"__schema__": SCHEMA_ID, "__schema_version__": "1", **cell_execution(number)}
                record, last = seal(event, CHAIN, last)
                batch.records.append((number + 2, record, last.hash))
            file.write(batch)
    finally:
        file.close()
