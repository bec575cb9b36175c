"""A client of Learning Observer's websockets that says what it is told to, right or wrong, and how the connection ended."""

from __future__ import annotations

import asyncio
import json
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType
from learning_observer_stand_in import EXECUTION_DAG

from exec_events_consumers.decode import Decoded, decode
from exec_events_consumers.feed import Fetched
from exec_events_consumers.learning_observer.frames import SOURCE, frame_of
from exec_events_schemas.record import seal
from spool_files import chain_of, execution

PATIENCE_SECONDS = 30
# The module with the reducers of test_learning_observer.py, where somebody has written it for a real server.
PROBE_DAG = os.environ.get("LO_PROBE_DAG", EXECUTION_DAG)
_AT_END = (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.CLOSING, WSMsgType.ERROR)

Frame = dict[str, Any]
State = dict[str, Any]


def executions(count: int, recorder_id: str | None = None) -> list[Frame]:
    """Frames of so many executions of one chain, each as `exec-events forward` makes it of a sealed record."""
    recorder = recorder_id or str(uuid.uuid4())
    chain, head, made = chain_of(recorder, 0), None, []
    for number in range(count):
        record, head = seal(execution(recorder, 0, number), chain, head)
        decoded = decode(Fetched("test", number, record, head.hash))
        assert isinstance(decoded, Decoded), decoded
        made.append(frame_of(decoded))
    return made


def tally(state: State | None, frame: Frame) -> State | None:
    """How many executions a student has, each counted once, and how many frames came again."""
    if frame.get("event") != "exec_events_execution":
        return None
    state = state or {"executions": 0, "duplicates": 0, "last": {}}
    chain, seq = frame["chain_id"], frame["seq"]
    if seq <= state["last"].get(chain, -1):
        state["duplicates"] += 1
    else:
        state["executions"] += 1
        state["last"][chain] = seq
    return state


class Ended(NamedTuple):
    """How a connection ended, and what it said before."""

    code: int | None
    said: list[Frame]


class Client:
    """One websocket."""

    def __init__(self, socket: ClientWebSocketResponse) -> None:
        self._socket = socket

    async def send(self, *frames: Frame) -> None:
        """Send frames, in this order."""
        for frame in frames:
            await self._socket.send_str(json.dumps(frame))

    async def send_raw(self, data: str | bytes) -> None:
        """Send anything; that the other end has left meanwhile is seen by who listens."""
        try:
            await (self._socket.send_bytes(data) if isinstance(data, bytes) else self._socket.send_str(data))
        except ConnectionError:
            return

    async def receive(self) -> Any:
        """The next answer."""
        return await asyncio.wait_for(self._socket.receive_json(), PATIENCE_SECONDS)

    async def ping(self) -> None:
        """Ask whether the other end is there."""
        await self._socket.ping()

    async def ended(self) -> Ended:
        """Wait for the end, and say what came before it."""
        said: list[Frame] = []
        while True:
            message = await asyncio.wait_for(self._socket.receive(), PATIENCE_SECONDS)
            if message.type in _AT_END:
                return Ended(self._socket.close_code, said)
            said.append(json.loads(message.data))

    async def introduce(self, student: str, source: str | None = SOURCE) -> Frame:
        """Say where what follows comes from, and who sends it; the answer."""
        if source is not None:
            await self.send({"event": "lock_fields", "fields": {"source": source}})
        await self.send({"event": "test_framework_fake_identity", "user_id": student})
        answer: Frame = await self.receive()
        return answer

    async def barrier(self) -> None:
        """Return when all that was sent has been processed."""
        await self.send({"event": "fetch_blob", "activity": "barrier"})
        answer = await self.receive()
        assert answer["status"] == "fetch_blob", answer


class Server:
    """A server under test: the stand-in, or a real one at LO_URL."""

    def __init__(self, url: str, query_url: str) -> None:
        self.url, self.query_url = url, query_url

    async def hear_of_somebody(self) -> None:
        """Make it know one student, by an event: of nobody at all it answers no query."""
        async with self.introduced("somebody") as client:
            await client.send(*executions(1))
            await client.barrier()

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Client]:
        """A client with nothing said yet."""
        async with ClientSession() as session, session.ws_connect(self.url, max_msg_size=0) as socket:
            yield Client(socket)

    @asynccontextmanager
    async def introduced(self, student: str, source: str | None = SOURCE) -> AsyncIterator[Client]:
        """A client of a student's."""
        async with self.connected() as client:
            answer = await client.introduce(student, source)
            assert answer == {"status": "auth", "user_id": f"testcase-{student}"}
            yield client

    async def ask(self, *queries: Frame) -> Any:
        """Ask as a teacher's page does, on one websocket; the first answer that comes."""
        async with ClientSession() as session, session.ws_connect(self.query_url, max_msg_size=0) as socket:
            for query in queries:
                await socket.send_str(json.dumps({"q": query}))
            return await asyncio.wait_for(socket.receive_json(), PATIENCE_SECONDS)

    async def made_of(self, student: str, reducer: str | None = None) -> Any:
        """What a reducer made of a student, as a query says; nothing where it knows nobody of that name."""
        dag, export = (PROBE_DAG, f"{reducer}_export") if reducer else (None, None)
        for update in await self.ask(query(export, dag)):
            if update["path"] == f"students.tc-testcase-{student}":
                return update["value"]
        return {}

    async def state(self, student: str) -> State:
        """How many executions of a student's the server has, and how many copies came."""
        made = await self.made_of(student)
        return {name: made.get(name, 0) for name in ("executions", "duplicates")}

    async def count(self, student: str) -> int:
        """How many executions of a student's it has."""
        return int((await self.state(student))["executions"])


def live_server() -> Server:
    """The real server that LO_URL names."""
    url = os.environ["LO_URL"]
    return Server(url, url.replace("/wsapi/in/", "/wsapi/communication_protocol"))


def query(export: str | None = None, dag: str | None = None) -> Frame:
    """A query for what a reducer made of each student; by default that of the module that this project ships."""
    return {
        "execution_dag": dag or os.environ.get("LO_DAG", EXECUTION_DAG),
        "target_exports": [export or os.environ.get("LO_EXPORT", "tally_export")],
        "kwargs": {"course_id": "12345678901", "rerun_dag_delay": -1},
    }
