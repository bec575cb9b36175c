"""
A stand-in for a Learning Observer server: its websockets, as they were observed to behave, and none of its code.

    with LearningObserver([Reducer("progress", SOURCE, "student", reduce_student)]) as server:
        ...  # server.url is what `exec-events forward --to` takes
        server.state("progress", "tc-testcase-alice")

    with StandInProcess("some.module:REDUCERS", folder=tmp_path, kvs="file") as process:
        process.kill()
        process.start()  # on the same port, with the state that was in the file

What it is told (methods of authentication, blocklist, mode) a real server has in its configuration file.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import importlib
import json
import logging
import os
import secrets
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol
from urllib.parse import quote_plus

from aiohttp import WSMsgType, web

Frame = dict[str, Any]
State = dict[str, Any]

RENAMED = ("event-type", "user-tag", "unique-id", "local-storage")
MAX_FRAME_BYTES = 4 * 1024 * 1024
EXECUTION_DAG = "exec_events"

_QUIET = logging.getLogger("learning_observer_stand_in")
_QUIET.addHandler(logging.NullHandler())
_QUIET.propagate = False  # a connection that dies is what tests ask for, not news


class Reducer(NamedTuple):
    """A function from a state and a frame to the next state, and of which frames; None writes nothing."""

    name: str
    source: str
    scope: Literal["student", "student+notebook_id"]
    function: Callable[[State | None, Frame], State | None]


class Identity(NamedTuple):
    """Who sends, as the client is told and as state is kept under."""

    user_id: str
    safe_user_id: str
    sec: str
    providence: str


class Death(Exception):
    """What ends a connection without a word: raised in a handler, it makes aiohttp drop the connection."""


# -- where state is ----------------------------------------------------------------------------------------------------


class Store(Protocol):
    """Values by key; ``shared`` where a read and the write after it are two round trips, between which others write."""

    shared: bool

    def get(self, key: str) -> Any: ...
    def put(self, key: str, value: Any) -> None: ...
    def names(self) -> list[str]: ...
    def close(self) -> None: ...


class MemoryStore:
    """Gone with the process, checkpoints and states together."""

    shared = False

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}

    def get(self, key: str) -> Any:
        return self._values.get(key)

    def put(self, key: str, value: Any) -> None:
        self._values[key] = value

    def names(self) -> list[str]:
        return list(self._values)

    def close(self) -> None:
        return None


class FileStore:
    """Survives kill -9, not a power cut; each value is written by itself, as in Redis, so that two may not agree."""

    shared = True

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.execute("CREATE TABLE IF NOT EXISTS kvs (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID")

    def get(self, key: str) -> Any:
        row = self._database.execute("SELECT value FROM kvs WHERE key = ?", (key,)).fetchone()
        return None if row is None else json.loads(row[0])

    def put(self, key: str, value: Any) -> None:
        self._database.execute("INSERT OR REPLACE INTO kvs VALUES (?, ?)", (key, json.dumps(value)))

    def names(self) -> list[str]:
        return [key for (key,) in self._database.execute("SELECT key FROM kvs")]

    def close(self) -> None:
        self._database.close()


# -- who sends ---------------------------------------------------------------------------------------------------------


def identified(user_id: str, providence: str, sec: str = "unauthenticated") -> Identity:
    """The identity that a method found, and the name its state is kept under."""
    return Identity(user_id, f"{providence}-{quote_plus(user_id, safe='@')}", sec, providence)


class Settings(NamedTuple):
    """What a real server's configuration file says."""

    auth: tuple[str, ...] = ("testcase_auth",)
    tokens: frozenset[str] = frozenset()  # of local_storage: the lines of its user file are these with "ls-" before
    allow_guest: bool = False
    blocklist: Mapping[str, str] = {}  # the user id that the client is told -> MAINTAIN | DROP
    run_mode: Literal["dev", "deploy"] = "deploy"


def who(method: str, settings: Settings, headers: Mapping[str, str], frame: Frame) -> Identity | None:
    """Who a frame says its sender is, by one method; None where it does not say, an HTTP error where it is refused."""
    match method:
        case "testcase_auth":
            return identified("testcase-" + frame["user_id"], "tc") if "user_id" in frame else None
        case "local_storage":
            return _by_token(settings, frame)
        case "hash_identify":
            return identified(f"hi-{frame['hash']}", "mch") if "hash" in frame else None
        case "http_basic":
            kind, _, secret = headers.get("Authorization", "").partition(" ")
            if kind.lower() != "basic":
                return identified("guest", "error", "unauthorized")
            return identified(base64.b64decode(secret).decode().partition(":")[0], "nginx", "authenticated")
        case "guest":
            return identified(secrets.token_hex(16), "guest", "none")
        case _:
            raise ValueError(f"the stand-in knows no method of authentication named {method!r}")


def _by_token(settings: Settings, frame: Frame) -> Identity | None:
    if "user_tag" not in frame:
        return None
    if frame["user_tag"] in settings.tokens:
        return identified(f"ls-{frame['user_tag']}", "ls", "authenticated")
    if settings.allow_guest:
        return identified(f"ls-{frame['user_tag']}", "ls")
    raise web.HTTPUnauthorized  # after the handshake: its bytes are written into the websocket


# -- one connection ----------------------------------------------------------------------------------------------------


def adapted(frame: Frame) -> Frame:
    """A frame with the keys and the source that are written in another way inside."""
    renamed = {key.replace("-", "_") if key in RENAMED else key: value for key, value in frame.items()}
    if isinstance(renamed.get("source"), str):
        renamed["source"] = renamed["source"].replace("-", "_")
    return renamed


class Connection:
    """One student's frames of one source, one at a time."""

    def __init__(self, server: LearningObserver, request: web.Request, socket: web.WebSocketResponse) -> None:
        self._server = server
        self._headers = request.headers
        self._socket = socket
        self._raw = server.log(f"{request.remote}.log")
        self._study: Callable[[str], None] | None = None
        self._fields: Frame = {}
        self._identity: Identity | None = None
        self._reducers: list[Reducer] = []
        self._backlog: list[Frame] = []

    async def run(self) -> None:
        """Until the client leaves, or something that it sends is the end of it."""
        async for message in self._socket:
            if message.type != WSMsgType.TEXT:
                raise Death(message.type)
            self._raw(message.data)
            frame = json.loads(message.data)  # NaN and lone surrogates pass
            if await self._take(frame):
                return

    async def _take(self, sent: Any) -> bool:
        if not isinstance(sent, dict) or not isinstance(sent.get("event"), str):
            raise Death(sent)
        if sent["event"] == "lock_fields":
            self._fields.update(sent["fields"])
            return False
        frame = adapted(sent | self._fields)
        if frame["event"] == "terminate":
            return True  # what waits for a further frame has waited in vain
        if self._identity is None:
            self._backlog.append(frame)
            return await self._authenticate(frame)
        if await self._is_blocked(self._identity):
            return True
        waiting, self._backlog = [*self._backlog, frame], []
        for each in waiting:
            await self._process(each)
        return False

    async def _is_blocked(self, identity: Identity) -> bool:
        """Whether the site blocks who sends; it is told so at the first frame after the identity was answered."""
        action = self._server.settings.blocklist.get(identity.user_id)
        if action is None:
            return False
        limit = "DAYS" if action == "MAINTAIN" else "PERMANENT"
        blocked = {"status": "blocklist", "action": action, "time_limit": limit, "message": "The site blocks you."}
        await self._socket.send_json(blocked)
        return True

    async def _authenticate(self, frame: Frame) -> bool:
        settings = self._server.settings
        found = (who(method, settings, self._headers, frame) for method in settings.auth)
        self._identity = next((identity for identity in found if identity is not None), None)
        if self._identity is None:
            return False  # silence: it is for the client to lose patience
        await self._socket.send_json({"status": "auth", "user_id": self._identity.user_id})
        if "source" in self._fields:
            source = self._fields["source"]
            self._reducers = [reducer for reducer in self._server.reducers if reducer.source == source]
            if not self._reducers:
                raise Death(f"no module declares {source}")
        self._study = self._server.log(f"{self._identity.safe_user_id}.study.log")
        return False

    async def _process(self, frame: Frame) -> None:
        """One frame of somebody known."""
        assert self._identity is not None
        if frame["event"] == "save_blob":
            self._server.store.put(self._blob_key(frame), frame["blob"])
            return
        if frame["event"] == "fetch_blob":
            blob = self._server.store.get(self._blob_key(frame))
            await self._socket.send_json({"status": "fetch_blob", "data": blob})
            return
        if not isinstance(frame.get("client", {}), dict):
            raise Death(frame)
        auth = {
            "user_id": self._identity.user_id,
            "safe_user_id": self._identity.safe_user_id,
            "sec": self._identity.sec,
            "providence": self._identity.providence,
        }
        event = frame | {"auth": auth}
        if self._study is not None:
            self._study(study_line(event, datetime.now(UTC)))
        await self._reduce(event)

    async def _reduce(self, event: Frame) -> None:
        for reducer in self._reducers:
            try:
                await self._apply(reducer, event)
            except Exception:
                if self._server.settings.run_mode == "dev":
                    raise
                self._server.swallowed += 1
                return  # the reducers after it do not see the event

    async def _apply(self, reducer: Reducer, event: Frame) -> None:
        assert self._identity is not None
        student = self._identity.safe_user_id
        notebook = event.get("notebook_id") if reducer.scope == "student+notebook_id" else None
        key = key_of(reducer.name, student, None if notebook is None else str(notebook))
        if reducer.scope == "student+notebook_id" and notebook is None:
            return
        store = self._server.store
        state = store.get(key)
        if store.shared:
            await asyncio.sleep(0)
        after = reducer.function(state, event)
        if after is not None:
            store.put(key, after)

    def _blob_key(self, frame: Frame) -> str:
        assert self._identity is not None
        return f"blob,{frame['source']},{self._identity.safe_user_id},{frame['activity']}"


def key_of(reducer: str, student: str, notebook_id: str | None = None) -> str:
    """The key of a reducer's state; nothing in it is escaped."""
    return f"Internal,{reducer},STUDENT:{student}" + ("" if notebook_id is None else f",notebook_id:{notebook_id}")


def study_line(event: Frame, at: datetime) -> str:
    """A line of a study log: an event as the reducers saw it, and when."""
    line = {"client": event, "metadata": {}, "server": {"time": at.timestamp()}}
    return f"{json.dumps(line)}\t{at.isoformat()}"


# -- the server --------------------------------------------------------------------------------------------------------


class LearningObserver:
    """A stand-in for a Learning Observer server, on a thread of its own."""

    def __init__(
        self,
        reducers: Iterable[Reducer] = (),
        *,
        auth: str | Sequence[str] = "testcase_auth",
        tokens: Iterable[str] = (),
        allow_guest: bool = False,
        blocklist: Mapping[str, str] | None = None,
        run_mode: Literal["dev", "deploy"] = "deploy",
        kvs: Literal["memory", "file"] = "memory",
        folder: Path | None = None,
        port: int = 0,
    ) -> None:
        """State in a file and logs are kept in ``folder``; without one there are no logs."""
        self.reducers = tuple(reducers)
        methods = (auth,) if isinstance(auth, str) else tuple(auth)
        self.settings = Settings(methods, frozenset(tokens), allow_guest, dict(blocklist or {}), run_mode)
        self.swallowed = 0
        self.port = port
        self._folder = folder
        self._connections = 0
        self._logs = contextlib.ExitStack()
        if kvs == "file" and folder is None:
            raise ValueError("state in a file needs a folder")
        self.store: Store = MemoryStore() if kvs == "memory" or folder is None else FileStore(folder / "kvs.sqlite")
        self._ready = threading.Event()
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="stand-in", daemon=True)

    def __enter__(self) -> LearningObserver:
        self._thread.start()
        if not self._ready.wait(30) or not self._thread.is_alive():
            raise RuntimeError("the stand-in did not start: is its port taken?")
        return self

    def __exit__(self, *_: object) -> None:
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)
        self._logs.close()
        self.store.close()

    @property
    def url(self) -> str:
        """Where students' events go."""
        return f"ws://127.0.0.1:{self.port}/wsapi/in/"

    @property
    def query_url(self) -> str:
        """Where a teacher's page asks for what the reducers made."""
        return f"ws://127.0.0.1:{self.port}/wsapi/communication_protocol"

    def state(self, reducer: str, student: str, notebook_id: str | None = None) -> Any:
        """What a reducer keeps of a student, by the name in the store (``tc-testcase-alice``)."""
        return deepcopy(self.store.get(key_of(reducer, student, notebook_id)))

    def log(self, name: str) -> Callable[[str], None]:
        """A log of a connection, each line of which is handed to the system when it is written."""
        if self._folder is None:
            return lambda _: None
        started = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
        self._connections += 1
        path = self._folder / f"{started}-{self._connections}-{os.getpid()}-{name}"
        file = self._logs.enter_context(path.open("ab", buffering=0))
        return lambda line: file.write(line.encode("utf-8", "surrogatepass") + b"\n") and None

    def students_of(self, reducer: str) -> dict[str, Any]:
        """The state of each student that a reducer has one of; of a reducer by notebook, ``student,notebook_id:...``."""
        before = key_of(reducer, "")
        keys = [key for key in self.store.names() if key.startswith(before)]
        return {key.removeprefix(before): self.store.get(key) for key in keys}

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application(client_max_size=MAX_FRAME_BYTES)
        app.router.add_get("/wsapi/in/", self._incoming)
        app.router.add_get("/wsapi/communication_protocol", self._queries)
        app.router.add_get("/stand-in/states/{reducer}", self._states)
        runner = web.AppRunner(app, access_log=None, logger=_QUIET, shutdown_timeout=0.1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", self.port)
            await site.start()
            self.port = runner.addresses[0][1]
            self._ready.set()
            await self._stop.wait()
        finally:
            await runner.cleanup()
            self._ready.set()

    async def _incoming(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(max_msg_size=MAX_FRAME_BYTES)
        await socket.prepare(request)
        await Connection(self, request, socket).run()
        await socket.close()
        return socket

    async def _queries(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            for query in json.loads(message.data).values():
                if query["execution_dag"] != EXECUTION_DAG:
                    continue  # of a DAG that it does not know a server says nothing at all
                updates = [update for name in query["target_exports"] for update in self._updates(name)]
                if updates:
                    await socket.send_json(updates)
        return socket

    def _updates(self, export: str) -> Iterator[Frame]:
        """What a reducer made of each student; of one by notebook, of each notebook. All students are there, or none."""
        reducer = next((each for each in self.reducers if f"{each.name}_export" == export), None)
        if reducer is None:
            yield {"op": "update", "path": "", "value": {"error": f"there is no export {export}"}}
            return
        states = self.students_of(reducer.name)
        everybody = {self._student_in(key) for key in self.store.names()} - {None}
        for student in everybody - states.keys() if reducer.scope == "student" else ():
            yield {"op": "update", "path": f"students.{student}", "value": {}}
        for student, state in states.items():
            yield {
                "op": "update",
                "path": "students." + student.replace(",notebook_id:", ".documents."),
                "value": state,
            }

    @staticmethod
    def _student_in(key: str) -> str | None:
        _, found, student = key.partition(",STUDENT:")
        return student.partition(",")[0] if found else None

    async def _states(self, request: web.Request) -> web.Response:
        return web.json_response(self.students_of(request.match_info["reducer"]))


# -- a process of its own, to be killed --------------------------------------------------------------------------------


class StandInProcess:
    """The stand-in as a process of its own; ``kill`` and ``start`` keep its port, and its state where that is in a file."""

    def __init__(
        self,
        reducers: str,
        *,
        folder: Path | None = None,
        kvs: str = "file",
        port: int = 0,
        pythonpath: Sequence[str] = (),
    ) -> None:
        """``reducers`` is where a list of them is found: ``some.module:NAME``."""
        self._reducers, self._kvs, self._folder, self.port = reducers, kvs, folder, port
        self._pythonpath = [*pythonpath, str(Path(__file__).parent), *filter(None, sys.path)]
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> StandInProcess:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def url(self) -> str:
        """Where students' events go."""
        return f"ws://127.0.0.1:{self.port}/wsapi/in/"

    def start(self) -> None:
        """Start it; returns when it listens."""
        command = [sys.executable, __file__, self._reducers, "--kvs", self._kvs]
        command += ["--port", str(self.port)]
        command += ["--folder", str(self._folder)] if self._folder else []
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(self._pythonpath)}
        self._process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        if not said:
            raise RuntimeError(f"the stand-in ended with {self._process.wait(10)}")
        self.port = int(said)

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.communicate(timeout=30)
            self._process = None

    def states(self, reducer: str) -> dict[str, Any]:
        """The state of each student that a reducer has one of, asked of the process."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/stand-in/states/{reducer}", timeout=30) as answer:
            states: dict[str, Any] = json.load(answer)
        return states


def frames_received(folder: Path) -> Counter[tuple[str, int]]:
    """How often each (chain, seq) came in, by the logs of all processes that ran in this folder."""
    received: Counter[tuple[str, int]] = Counter()
    for log in folder.glob("*.log"):
        if log.name.endswith(".study.log"):
            continue
        for line in log.read_bytes().splitlines():
            with contextlib.suppress(ValueError):  # the line that a kill cut
                frame = json.loads(line)
                if isinstance(frame, dict) and "chain_id" in frame:
                    received[frame["chain_id"], frame["seq"]] += 1
    return received


def frames_resent(folder: Path) -> int:
    """How many frames came in that had come in before."""
    return sum(times - 1 for times in frames_received(folder).values())


def main() -> None:
    """The stand-in until it is ended, its port on the first line."""
    parser = argparse.ArgumentParser(description="A stand-in for a Learning Observer server.")
    parser.add_argument("reducers", help="where a list of reducers is found: some.module:NAME")
    parser.add_argument("--kvs", choices=("memory", "file"), default="memory")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--auth", action="append")
    options = parser.parse_args()
    module, _, name = options.reducers.partition(":")
    reducers = getattr(importlib.import_module(module), name)
    auth = options.auth or "testcase_auth"
    with LearningObserver(reducers, auth=auth, kvs=options.kvs, folder=options.folder, port=options.port) as server:
        print(server.port, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(3600)


if __name__ == "__main__":
    main()
