"""The SOURCE a person named in, a feed of it out; and where this user's spool and tables are by default."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exec_events_schemas.errors import SourceError
from exec_events_schemas.sources import open_source
from exec_events_schemas.sources.spool import SpoolSource
from exec_events_schemas.spool_layout import FOLDER_NAME
from exec_events_schemas.topics import SCHEME

from .feed import Feed
from .spool_feed import SpoolFeed, StreamFeed
from .spools_feed import SCHEME as SPOOLS
from .spools_feed import SpoolsFeed

if TYPE_CHECKING:
    from .dead_letter_topic import TopicOffice

TABLES_FOLDER_NAME = "exec-events-tables"


def default_spool() -> Path:
    """This user's spool; it may not exist yet."""
    from jupyter_core.paths import jupyter_data_dir

    return Path(jupyter_data_dir()) / FOLDER_NAME


def default_store() -> str:
    """The URL of this user's tables: SQLite in Jupyter's data directory, in a folder of its own."""
    from jupyter_core.paths import jupyter_data_dir

    folder = Path(jupyter_data_dir()) / TABLES_FOLDER_NAME
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return f"sqlite:///{folder / 'aggregate.db'}"


@contextmanager
def open_office(
    source: str | None, consumer: str, settings: Mapping[str, Any] | None = None
) -> Iterator[TopicOffice | None]:
    """Where the dead letters of that consumer go: to a topic beside the events', or (None) to the store's table."""
    if source is None or not source.startswith(f"{SCHEME}://"):
        yield None
        return
    from .dead_letter_topic import TopicOffice

    with closing(TopicOffice(source, consumer, settings)) as office:
        yield office


def open_feed(
    source: str | None, consumer: str, settings: Mapping[str, Any] | None = None, *, batch_records: int | None = None
) -> Feed:
    """
    A feed of ``source`` (None: this user's spool) for the consumer of that name, ``batch_records`` at a time at most.

    Raises SourceError where there is no such source.
    """
    if source is not None and source.startswith(f"{SCHEME}://"):
        try:
            from .kafka_feed import KafkaFeed
        except ImportError as error:
            raise SourceError(f"kafka:// cannot be read here ({error}): pip install 'exec-events[kafka]'") from error
        return KafkaFeed(source, consumer, settings, batch_records=batch_records)
    if source is not None and source.startswith(f"{SPOOLS}://"):
        return SpoolsFeed(Path(source.removeprefix(f"{SPOOLS}://")).expanduser(), batch_records=batch_records)
    opened = open_source(default_spool() if source is None else source, settings=settings or {})
    if isinstance(opened, SpoolSource):
        return SpoolFeed(opened.folder, batch_records=batch_records)
    return StreamFeed(opened, batch_records=batch_records)
