"""docs/subscribe.md: each of its snippets runs, against a real broker, and says what it says."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from published import make_topics, publish, recorded

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "subscribe.md").read_text(encoding="utf-8")
SECONDS = 60


def snippet(language: str, holds: str, kafka: Any, prefix: str) -> str:
    """The one block of the page in this language that holds this, for this broker and prefix."""
    (found,) = [
        code
        for of, code in re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
        if of == language and holds in code
    ]
    return found.replace("127.0.0.1:9092", kafka.servers).replace("exec-events.events", f"{prefix}.events")


@pytest.fixture
def prefix(kafka: Any, kafka_prefix: str) -> str:
    """A topic with a record on it."""
    make_topics(kafka, kafka_prefix)
    publish(kafka, kafka_prefix, recorded())
    return kafka_prefix


def test_kafka_python(kafka: Any, prefix: str, tmp_path: Path) -> None:
    """The subscriber prints a line for each execution, of those before it came and of those after."""
    code = snippet("python", "KafkaConsumer", kafka, prefix)
    assert len(code.strip().splitlines()) <= 12
    script = tmp_path / "subscribe.py"
    script.write_text(code)
    output = tmp_path / "output"
    with output.open("wb") as file:
        process = subprocess.Popen([sys.executable, str(script)], stdout=file, stderr=subprocess.PIPE)
        try:
            deadline = time.monotonic() + SECONDS
            while len(output.read_text().splitlines()) < 12 and time.monotonic() < deadline:
                assert process.poll() is None, process.stderr.read() if process.stderr else ""
                time.sleep(0.1)
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=10)
    printed = output.read_text().splitlines()
    assert len(printed) == 12
    assert all(re.fullmatch(r"2026-01-01T\S+Z subject-[01] notebook-[01] ok", line) for line in printed)


def test_duckdb_on_parquet(kafka: Any, prefix: str, tmp_path: Path) -> None:
    """The record becomes a Parquet file that DuckDB asks."""
    command = snippet("bash", "records.jsonl", kafka, prefix).replace(kafka.servers, f"{kafka.servers}/{prefix}")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(command, shell=True, cwd=tmp_path, env=environment, check=True, timeout=SECONDS)
    code = snippet("python", "duckdb", kafka, prefix)
    assert len(code.strip().splitlines()) <= 12
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "error_name" in done.stdout
    import duckdb

    counted = duckdb.sql(f"SELECT count(*), count(duration_us) FROM '{tmp_path}/events.parquet'").fetchall()
    assert counted == [(len(recorded()), 12)]


def test_kcat(kafka: Any, prefix: str) -> None:
    """kcat prints the key, the headers and the record of every message."""
    command = snippet("bash", "kcat", kafka, prefix)
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    records = [line for line in done.stdout.splitlines() if line.startswith('{"event":')]
    assert len(records) == len(recorded())
    assert (
        len(re.findall(r"^subject-[01] ce_specversion=1\.0,.*,hash=sha256:[0-9a-f]{64}$", done.stdout, re.MULTILINE))
        == 12
    )
