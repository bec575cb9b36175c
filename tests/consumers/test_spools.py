"""The spools of several accounts, read as one by whom their owners do not know."""

from __future__ import annotations

import os
import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from logs import random_log, sqlite_url, time_at
from test_aggregate import check
from test_loop import stored, taken

from exec_events_consumers import spools_feed
from exec_events_consumers.open_feed import open_feed
from spool_files import FIRST, SECOND, write_spool_file


def test_every_accounts_files_are_read(tmp_path: Path) -> None:
    """The files in the folders of two accounts are taken, each once, and a file that comes later too."""
    log = random_log(random.Random(1), 60, recorders=(FIRST, SECOND))
    url, folder = sqlite_url(tmp_path), tmp_path / "records"
    (folder / "ada").mkdir(parents=True)
    write_spool_file(folder / "ada", FIRST, stored(log, FIRST), time_at(0))
    source = f"spools://{folder}"
    first = taken(url, open_feed(source, "aggregate")).events
    assert 0 < first < len(log.records)
    (folder / "ben").mkdir()
    write_spool_file(folder / "ben", SECOND, stored(log, SECOND), time_at(0))
    assert taken(url, open_feed(source, "aggregate")).events == len(log.records) - first
    check(url, log)


def test_what_is_no_plain_file_is_passed_over(tmp_path: Path) -> None:
    """A link to somebody else's file, a pipe and a folder of that name are not opened, and hold nobody up."""
    log = random_log(random.Random(1), 20)
    url, folder = sqlite_url(tmp_path), tmp_path / "records"
    for account in ("ada", "ben"):
        (folder / account).mkdir(parents=True)
    written = write_spool_file(folder / "ada", FIRST, stored(log, FIRST), time_at(0))
    (folder / "ben" / f"{SECOND}.db").symlink_to(written)
    (folder / "cleo").symlink_to(folder / "ada")
    os.mkfifo(folder / "ben" / "pipe.db")
    (folder / "ben" / "folder.db").mkdir()
    progress = taken(url, open_feed(f"spools://{folder}", "aggregate"))
    assert progress.records == len(log.records)
    check(url, log)


def test_a_file_without_an_end_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file whose table is a sum that never ends is left alone after a while, and the others are read."""
    monkeypatch.setattr(spools_feed, "_MOST_SECONDS", 0.2)
    log = random_log(random.Random(1), 20)
    url, folder = sqlite_url(tmp_path), tmp_path / "records"
    for account in ("ada", "ben"):
        (folder / account).mkdir(parents=True)
    endless = folder / "ada" / f"{SECOND}.db"
    with closing(sqlite3.connect(endless)) as connection:
        connection.execute(
            "CREATE VIEW records AS WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n) "
            "SELECT id, x'00' AS record, x'00' AS hash FROM n WHERE id < 0"
        )
    write_spool_file(folder / "ben", FIRST, stored(log, FIRST), time_at(0))
    feed = open_feed(f"spools://{folder}", "aggregate")
    assert taken(url, feed).records == len(log.records)
    check(url, log)
    assert isinstance(feed, spools_feed.SpoolsFeed)
    assert "too long" in feed.broken[f"ada/{endless.name}"]
