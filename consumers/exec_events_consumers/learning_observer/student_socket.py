"""
One student's connection to a Learning Observer server: who it is for, what the server had, frames, barriers.

The server answers to no frame. It takes one after the other, though, so that its answer to a question says that
everything before the question has been taken: that is a barrier. The question is for a checkpoint, which the server
keeps for us. Who logs in is told so before anything is known to work: only the first barrier says that it does.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version
from typing import Any, NamedTuple

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.frames import CloseCode
from websockets.protocol import State

from .authentication import Login
from .frames import SOURCE

ACTIVITY = "exec_events_forward"
CONNECT_SECONDS = 20.0
CLOSE_SECONDS = 2.0
# A checkpoint names the partitions it was last moved in, so many at most; what it does not name is sent again.
PARTITIONS = 32
# No answer to a ping, which stands behind all frames, for so long: the other side is gone without a word.
PONG_SECONDS = 300.0
_LOOK_SECONDS = 0.2
_FETCH = {"event": "fetch_blob", "activity": ACTIVITY}


class Outgoing(NamedTuple):
    """A frame as text, the place of its record in the source, and in its chain."""

    partition: str
    position: int
    text: str
    chain: str
    seq: int


class Away(Exception):
    """The server cannot be reached, or does not answer: try again later."""


class Dropped(Exception):
    """The server dropped a connection that had worked: something that it was sent may be why, or it went away."""


class Unusable(Exception):
    """The server lets nobody in whom we bring: it says nothing to a login, or ends the connection behind it."""


class LoginRefused(Exception):
    """The server does not let this person in."""


class Unanswered(Exception):
    """The server has not answered for this person, several times, while it did for others."""


class Blocked(Exception):
    """The server wants nothing of this person: for a time (MAINTAIN), or at all (DROP)."""

    def __init__(self, action: str, time_limit: str | float, message: str) -> None:
        super().__init__(f"the server blocks them ({action}, {time_limit}): {message}")
        self.action = action
        self.time_limit = time_limit


class Checkpoint(NamedTuple):
    """How far the server has come with one store's records, by partition."""

    stream: str
    positions: Mapping[str, int]

    @classmethod
    def read(cls, blob: Any, stream: str) -> Checkpoint:
        """What the server kept; of another store, or of no form we know, it says nothing."""
        positions = blob.get("positions") if isinstance(blob, dict) and blob.get("stream") == stream else None
        if not isinstance(positions, dict):
            return cls(stream, {})
        return cls(stream, {str(name): at for name, at in positions.items() if isinstance(at, int)})

    def is_behind(self, other: Checkpoint) -> bool:
        """Whether the server knows less than it once did."""
        return any(self.positions.get(name, -1) < at for name, at in other.positions.items())

    def has(self, frame: Outgoing) -> bool:
        """Whether the server has processed this frame."""
        return frame.position <= self.positions.get(frame.partition, -1)

    def after(self, frames: Sequence[Outgoing]) -> Checkpoint:
        """With these processed, too."""
        moved = dict(self.positions)
        for frame in frames:
            moved.pop(frame.partition, None)  # so that the one moved last stands last
            moved[frame.partition] = frame.position
        return Checkpoint(self.stream, dict(list(moved.items())[-PARTITIONS:]))


class StudentSocket:
    """
    An open connection, on which frames of one student go; ``checkpoint`` is what the server has.

    A connection that takes long is waited for, again if need be: what was sent on it is not sent on another while
    the server may be at it, for two at once would overwrite each other's figures.
    """

    def __init__(self, connection: ClientConnection, checkpoint: Checkpoint, patience: float) -> None:
        self.checkpoint = checkpoint
        self._connection = connection
        self._patience = patience
        self._unsent: deque[str] = deque()
        self._reached: Checkpoint | None = None

    @property
    def is_open(self) -> bool:
        """Whether nothing has ended it yet."""
        return self._connection.state is State.OPEN

    async def send(self, frames: Sequence[Outgoing]) -> None:
        """
        Send frames, and return when the server has processed them and keeps a checkpoint that says so.

        Raises Dropped, Blocked, and Away where no answer comes: `settle` is then what comes next.
        """
        self._reached = self.checkpoint.after(frames)
        self._unsent.extend(frame.text for frame in frames)
        self._unsent += [_text(_save(self._reached)), _text(_FETCH)]
        await self.settle()

    async def settle(self) -> None:
        """Wait for the barrier of what was sent before; raises as `send`."""
        if self._reached is None:
            return
        try:
            async with asyncio.timeout(self._patience):
                while self._unsent:
                    await self._connection.send(self._unsent[0])
                    self._unsent.popleft()
                answer = await _answer(self._connection, "fetch_blob")
        except TimeoutError as error:
            raise Away(f"it has not processed a batch for {self._patience:g} s") from error
        except ConnectionClosed as error:
            await _left_behind(self._connection)
            raise Dropped(str(error)) from error
        if Checkpoint.read(answer.get("data"), self._reached.stream) != self._reached:
            raise Dropped("it answers with another checkpoint than the one it was given")
        self.checkpoint, self._reached = self._reached, None

    async def close(self) -> None:
        """Say that nothing more comes; the server closes when it has processed all."""
        with suppress(TimeoutError, ConnectionClosed, OSError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._connection.send(_text({"event": "terminate"}))
                await self._connection.wait_closed()
        self.abort()

    def abort(self) -> None:
        """Hang up."""
        self._connection.transport.abort()


async def open_socket(url: str, login: Login, stream: str, patience: float, login_patience: float) -> StudentSocket:
    """
    Connect, log in, and meet the first barrier, which brings the checkpoint.

    Raises Away, Unusable, LoginRefused and Blocked.
    """
    connection = await _connected(url, login.headers)
    try:
        checkpoint = await _logged_in(connection, login, stream, login_patience)
    except BaseException:
        connection.transport.abort()
        raise
    return StudentSocket(connection, checkpoint, patience)


@asynccontextmanager
async def witness(url: str) -> AsyncIterator[ClientConnection]:
    """A connection on which nothing is sent: while it lasts, whoever dropped another is still there."""
    connection = await _connected(url, {})
    try:
        yield connection
    finally:
        connection.transport.abort()


async def is_alive(connection: ClientConnection, patience: float) -> bool:
    """Whether the other side of a witness answers."""
    try:
        async with asyncio.timeout(patience):
            await (await connection.ping())
    except (ConnectionClosed, TimeoutError):
        return False
    return True


async def _connected(url: str, headers: Mapping[str, str]) -> ClientConnection:
    try:
        return await connect(
            url,
            additional_headers=dict(headers),
            compression=None,
            open_timeout=CONNECT_SECONDS,
            close_timeout=CLOSE_SECONDS,
            ping_timeout=PONG_SECONDS,
        )
    except InvalidStatus as error:
        status = error.response.status_code
        if status in (401, 403):
            raise LoginRefused(f"the handshake was refused ({status}): is the secret right?") from error
        if status == 404:
            raise Unusable(f"{url} is not there ({status}): the URL ends in /wsapi/in/") from error
        raise Away(f"it answers the handshake with {status}") from error
    except InvalidURI as error:
        raise Unusable(f"{url} is no websocket's URL: give ws(s)://HOST/wsapi/in/") from error
    except (InvalidHandshake, OSError, EOFError, TimeoutError) as error:
        raise Away(f"no connection: {str(error) or type(error).__name__}") from error


async def _logged_in(connection: ClientConnection, login: Login, stream: str, patience: float) -> Checkpoint:
    forwarder = f"exec-events/{version('exec-events')}"
    is_known = False
    try:
        async with asyncio.timeout(patience):
            await connection.send(_text({"event": "lock_fields", "fields": {"source": SOURCE, "forwarder": forwarder}}))
            await connection.send(_text(login.frame))
            answer = await _answer(connection, "auth")
            is_known = True
            if login.user_id is not None and answer.get("user_id") != login.user_id:
                raise LoginRefused("the server knows whom we logged in by another id than the one we gave")
            return Checkpoint.read(await _barrier(connection), stream)
    except TimeoutError as error:
        if is_known:
            raise Away(f"it did not answer for {patience:g} s after a login") from error
        raise Unusable(
            f"it has not answered a login for {patience:g} s: does the event_auth of its settings have this method?"
        ) from error
    except ConnectionClosed as error:
        await _left_behind(connection)
        if not is_known and _is_unreadable(error):
            raise LoginRefused("the token was refused: is it in the server's file of users?") from error
        if not is_known:
            raise Away(f"it ended the connection at the login ({error})") from error
        raise Unusable(
            f"it ended the connection right after a login: no module of that server declares the source {SOURCE}, or "
            "it went away; install the exec-events module there"
        ) from error


def _is_unreadable(error: ConnectionClosed) -> bool:
    """Whether what came was no frame: the server writes an HTTP answer, 401, into the websocket."""
    return error.sent is not None and error.sent.code == CloseCode.PROTOCOL_ERROR


async def _barrier(connection: ClientConnection) -> Any:
    await connection.send(_text(_FETCH))
    return (await _answer(connection, "fetch_blob")).get("data")


async def _answer(connection: ClientConnection, status: str) -> dict[str, Any]:
    """The next message of that status; raises Blocked where one says so."""
    while True:
        message = _message(await _received(connection))
        if message.get("status") == "blocklist" and message.get("action") != "TRANSMIT":
            raise Blocked(str(message.get("action")), message.get("time_limit", ""), str(message.get("message", "")))
        if message.get("status") == status:
            return message


async def _received(connection: ClientConnection) -> str | bytes:
    """The next message; where what came was no frame the other side does not hang up, so that we do."""
    while True:
        with suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_SECONDS):
                return await connection.recv()
        if connection.state is State.CLOSING:
            connection.transport.abort()


async def _left_behind(connection: ClientConnection) -> None:
    """Raise Blocked where that is the server's last word on a connection that has ended."""
    with suppress(ConnectionClosed, TimeoutError):
        async with asyncio.timeout(CLOSE_SECONDS):
            await _answer(connection, "nothing more is waited for")


def _message(data: str | bytes) -> dict[str, Any]:
    try:
        message = orjson.loads(data)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}


def _save(checkpoint: Checkpoint) -> dict[str, Any]:
    blob = {"stream": checkpoint.stream, "positions": checkpoint.positions}
    return {"event": "save_blob", "activity": ACTIVITY, "blob": blob}


def _text(frame: Mapping[str, Any]) -> str:
    return orjson.dumps(dict(frame)).decode()
