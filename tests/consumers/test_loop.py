"""The loop and its feeds: what is read when a source grows, is begun again, or is taken over by another."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path

import pytest
from logs import ListFeed, Log, opened, random_log, sqlite_url
from test_aggregate import check, rows

from exec_events_consumers import aggregate as aggregating
from exec_events_consumers.errors import ConsumerError
from exec_events_consumers.feed import Feed
from exec_events_consumers.loop import Progress, run
from exec_events_consumers.open_feed import open_feed
from exec_events_consumers.spool_feed import SpoolFeed, StreamFeed
from exec_events_schemas.errors import SourceError
from exec_events_schemas.sources import StoredRecord
from spool_files import FIRST, SECOND, write_json_lines, write_spool_file


def stored(log: Log, recorder: str = "") -> list[StoredRecord]:
    """A log's records as a source has them: all, or those of one recorder."""
    own = [pair for pair in log.records if f'"chain":"{recorder}'.encode() in pair[0]]
    return [StoredRecord(record, raw, "file", n + 1) for n, (record, raw) in enumerate(own)]


def taken(url: str, feed: Feed, **more: object) -> Progress:
    """What a run of the aggregate to the end of this feed comes to."""
    with opened(url) as store:
        known = aggregating.known_hashes
        return run(feed, store, aggregating.aggregate, once=True, known_hashes=known, **more)  # type: ignore[arg-type]


def test_a_file_of_lines_is_gone_on_with_where_the_store_stands(tmp_path: Path) -> None:
    """A second run on a file that has grown takes what is new, and nothing twice."""
    log = random_log(random.Random(1), 60)
    url, path = sqlite_url(tmp_path), tmp_path / "record.jsonl"
    write_json_lines(path, stored(log)[:25])
    feed = open_feed(str(path), "aggregate")
    assert isinstance(feed, StreamFeed)
    assert taken(url, feed).events == 25
    write_json_lines(path, stored(log))
    progress = taken(url, open_feed(str(path), "aggregate"))
    assert (progress.records, progress.events) == (35, 35)
    check(url, log)


def test_a_file_that_was_exchanged_is_told_of(tmp_path: Path) -> None:
    """A file with fewer records than were read of it is not silently taken for the one it was."""
    log = random_log(random.Random(1), 30)
    url, path = sqlite_url(tmp_path), tmp_path / "record.jsonl"
    write_json_lines(path, stored(log))
    taken(url, open_feed(str(path), "aggregate"))
    write_json_lines(path, stored(log)[:10])
    with pytest.raises(SourceError, match="fewer records than were read"):
        taken(url, open_feed(str(path), "aggregate"))


def test_a_spool_is_gone_on_with_and_new_files_are_found(tmp_path: Path) -> None:
    """A server that starts while a consumer runs has its file read, and what was read is not read again."""
    log = random_log(random.Random(2), 80, recorders=(FIRST, SECOND))
    url, spool = sqlite_url(tmp_path), tmp_path / "spool"
    write_spool_file(spool, FIRST, stored(log, FIRST), "2026-01-01T00:00:00.000000Z")
    feed, stop, seen = SpoolFeed(spool), threading.Event(), Progress()

    def look(progress: Progress) -> None:
        seen.records = progress.records
        if progress.records == len(log.records):
            stop.set()

    def follow() -> None:
        with opened(url) as store:
            run(feed, store, aggregating.aggregate, stop=stop, on_progress=look, poll_seconds=0.1)

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        until = time.monotonic() + 20
        while seen.records < len(stored(log, FIRST)):
            assert time.monotonic() < until
            time.sleep(0.02)
        write_spool_file(spool, SECOND, stored(log, SECOND), "2026-01-02T00:00:00.000000Z")
        assert stop.wait(20)
    finally:
        stop.set()
        thread.join(20)
    check(url, log)
    assert taken(url, SpoolFeed(spool)).records == 0


def test_a_second_reader_of_a_spool_ends_the_first(tmp_path: Path) -> None:
    """Two processes of one name on one spool: the one that lost it writes nothing more, and says why it ends."""
    log = random_log(random.Random(3), 20)
    url, spool = sqlite_url(tmp_path), tmp_path / "spool"
    write_spool_file(spool, FIRST, stored(log), "2026-01-01T00:00:00.000000Z")
    feed = SpoolFeed(spool)
    with opened(url) as first, opened(url) as second:
        feed.seek(first.claim(feed.gained()))
        second.claim([f"{FIRST}.db"])
        with pytest.raises(ConsumerError, match="another process reads"):
            run(feed, first, aggregating.aggregate, once=True)
    assert rows(url, "SELECT * FROM executions") == []


class TakenOnce(ListFeed):
    """A feed whose partition another process takes at the second batch; the group gives it back."""

    def __init__(self, log: Log, take: object) -> None:
        super().__init__(log.records, batch=10)
        self._take = take
        self.dropped = 0

    def poll(self, seconds: float) -> object:  # type: ignore[override]
        """The next batch; before the second one somebody else has claimed it."""
        if self._at == 10 and not self.dropped:
            self._take()  # type: ignore[operator]
        return super().poll(seconds)

    def drop(self, partition: str) -> None:
        """Let it go, and get it again."""
        self.dropped += 1
        self._is_new = True


def test_a_partition_that_is_lost_and_comes_back_is_read_from_where_the_store_stands(tmp_path: Path) -> None:
    """The batch that was lost is read again after the partition came back, and counts once."""
    log = random_log(random.Random(4), 50)
    url = sqlite_url(tmp_path)
    with opened(url) as other:
        feed = TakenOnce(log, lambda: other.claim(["p"]))
        progress = taken(url, feed)
    assert (feed.dropped, progress.lost_batches, progress.events) == (1, 1, 50)
    check(url, log)


def test_a_stop_ends_it_between_two_batches(tmp_path: Path) -> None:
    """Once told to stop it finishes the batch under way and takes no other."""
    log = random_log(random.Random(5), 50)
    stop = threading.Event()
    with opened(sqlite_url(tmp_path)) as store:
        progress = run(
            ListFeed(log.records, 10), store, aggregating.aggregate, stop=stop, on_progress=lambda _: stop.set()
        )
    assert progress.records == 10
