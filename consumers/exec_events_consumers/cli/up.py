"""``exec-events up``: aggregate and dashboard for one user on one machine, in one process."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .dashboard import place, place_options
from .options import clean_end, store_option, sum_up

if TYPE_CHECKING:
    from exec_events_consumers.dashboard.serve import Server
    from exec_events_consumers.feed import Feed
    from exec_events_consumers.loop import Progress
    from exec_events_consumers.store import Store

_POLL_SECONDS = 0.2


@click.command()
@click.option("--from", "source", metavar="SPOOL", help="spool://FOLDER or a folder; by default this user's spool.")
@store_option
@place_options
def up(
    source: str | None, store: str | None, host: str, port: int, token_file: Path | None, hosts: tuple[str, ...]
) -> None:
    """
    Keep this user's tables up to date and serve the pages of them, until Ctrl-C.

    \b
    exec-events up
    exec-events up --port 0
    """
    from exec_events_consumers import aggregate as aggregating
    from exec_events_consumers.dashboard.outside import Outside
    from exec_events_consumers.dashboard.serve import reading_engine, serve, waiting_in_spool
    from exec_events_consumers.open_feed import default_spool, default_store, open_feed
    from exec_events_consumers.store import Store
    from exec_events_schemas.errors import SourceError
    from exec_events_schemas.sources import open_source
    from exec_events_schemas.sources.spool import SpoolSource

    with clean_end():
        if source is None and not default_spool().is_dir():
            raise SourceError(f"there is no spool in {str(default_spool())!r}: nothing was recorded there yet")
        opened = open_source(default_spool() if source is None else source, settings={})
        if not isinstance(opened, SpoolSource):
            raise SourceError(f"{opened.name} is no spool: run `exec-events aggregate` and `exec-events dashboard`")
        url = store or default_store()
        with closing(Store(url, aggregating.NAME)) as tables, closing(open_feed(source, aggregating.NAME)) as feed:
            engine = reading_engine(url)
            aggregation = Aggregation(feed, tables)
            try:
                outside = Outside(waiting_in_spool(engine, opened.folder))
                serve(engine, place(host, port, token_file, hosts), outside, _say, aggregation.start)
            finally:
                progress = aggregation.end()
                engine.dispose()
        if progress is not None:
            click.echo(sum_up("aggregate", progress))


class Aggregation:
    """The aggregate's loop in a thread of its own; where it fails, the server it was started with ends too."""

    def __init__(self, feed: Feed, store: Store) -> None:
        self._feed = feed
        self._store = store
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._progress: Progress | None = None
        self._failure: Exception | None = None

    def start(self, server: Server) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._run, args=(server,), name="aggregate")
        self._thread.start()

    def end(self) -> Progress | None:
        """Wait until it has ended, and raise what it failed with."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._failure is not None:
            raise self._failure
        return self._progress

    def _run(self, server: Server) -> None:
        from exec_events_consumers import aggregate as aggregating
        from exec_events_consumers.loop import run

        try:
            self._progress = run(
                self._feed,
                self._store,
                aggregating.aggregate,
                stop=self._stop,
                known_hashes=aggregating.known_hashes,
                poll_seconds=_POLL_SECONDS,
            )
        except Exception as error:
            self._failure = error
            server.should_exit = True


def _say(url: str) -> None:
    click.echo(f"\nThe dashboard is at\n\n    {url}\n\nCtrl-C ends it.")
