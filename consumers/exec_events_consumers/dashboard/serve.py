"""A store and where to listen in; the dashboard is served there until the process is told to end."""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from sqlalchemy import Connection, Engine, event, inspect
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from exec_events_consumers.errors import ConsumerError
from exec_events_consumers.store import open_engine

from . import hub, queries
from .access import TokenAccess, keep_token, kept_token, new_token
from .app import Dashboard, application
from .backlog import records_waiting
from .outside import Outside, Waiting

_QUICKLY_SECONDS = 1


@dataclass(frozen=True, slots=True)
class Place:
    """
    Where the dashboard listens, and who may come.

    ``token_file`` is read where ``is_kept``, and else written with a new token.
    """

    host: str
    port: int
    token_file: Path
    is_kept: bool
    hosts: Collection[str] = ()


def reading_engine(url: str) -> Engine:
    """An engine that cannot write; raises ConsumerError where there are no tables yet."""
    nothing = "there are no tables in the store yet: run `exec-events aggregate` first"
    try:
        named = make_url(url)
        if named.drivername.startswith("sqlite") and not Path(named.database or "").is_file():
            raise ConsumerError(nothing)  # SQLite would make an empty file
    except ArgumentError:
        pass  # open_engine says what is wrong with it
    engine = open_engine(url, read_only=True)
    if engine.dialect.name == "sqlite":

        @event.listens_for(engine, "begin")
        def no_writing(connection: Connection) -> None:
            connection.exec_driver_sql("PRAGMA query_only=ON")
    else:
        engine = engine.execution_options(postgresql_readonly=True)
    if not inspect(engine).has_table("offsets"):
        raise ConsumerError(nothing)
    return engine


def waiting_in_spool(engine: Engine, folder: Path) -> Waiting:
    """How many records of a spool are not in the tables yet."""

    def waiting() -> int | None:
        with engine.connect() as connection:
            read = {row["partition"]: row["position"] for row in queries.positions(connection)}
        return records_waiting(folder, read)

    return waiting


class Server(uvicorn.Server):
    """Says where it is once it answers."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer."""
        await super().startup(sockets)
        if self.started:
            self._on_ready()


def serve(
    engine: Engine,
    place: Place,
    outside: Outside,
    say: Callable[[str], None],
    on_server: Callable[[Server], None] = lambda server: None,
) -> None:
    """
    Answer until SIGINT or SIGTERM, or until the Server that ``on_server`` is given has ``should_exit`` set.

    ``say`` is given the URL. Raises ConsumerError.
    """
    dashboard = Dashboard(engine, outside)
    if hub.is_service():
        host, port, prefix = hub.service_address()
        app = application(dashboard, hub.HubAccess(prefix), None, prefix)
        listener = _listener(host, port)
        url = f"http://{host}:{port}{prefix}"
    else:
        token = kept_token(place.token_file) if place.is_kept else new_token()
        listener = _listener(place.host, place.port)
        port = listener.getsockname()[1]
        if not place.is_kept:
            keep_token(place.token_file, token)
        app = application(dashboard, TokenAccess(token, port), {place.host, *place.hosts})
        url = f"http://{_in_url(place.host)}:{port}/?token={token}"
    # No access log: the first request has the token in its URL.
    config = uvicorn.Config(
        app,
        access_log=False,
        log_level="warning",
        server_header=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=_QUICKLY_SECONDS,
    )
    server = Server(config, lambda: say(url))
    on_server(server)
    with closing(listener):
        server.run(sockets=[listener])


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConsumerError(f"cannot listen on {host}:{port} ({error.strerror}): --port 0 takes a free port") from error
    return listener


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
