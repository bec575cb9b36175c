"""
Frames of many students in, each on its own connection, out when the server has processed them all.

One connection for each student: two would overwrite each other's figures at the server. They live on an event loop
in a thread of its own, side by side, and stay open between batches.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from concurrent.futures import wait
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from .authentication import Authentication, NoSecret
from .student_socket import (
    Away,
    Blocked,
    Checkpoint,
    Dropped,
    LoginRefused,
    Outgoing,
    StudentSocket,
    Unanswered,
    Unusable,
    is_alive,
    open_socket,
    witness,
)

T = TypeVar("T")

PATIENCE_SECONDS = 60.0
LOGIN_SECONDS = 15.0
# Of a batch that is under way when the process is told to end.
GRACE_SECONDS = 5.0
AT_ONCE = 200
# Those that were used longest ago are closed; a process may have some thousand files open.
OPEN_AT_MOST = 500
# A frame that is alone behind a barrier, and after which the connection is dropped by a server that stays, so often.
KILLS = 3
AWAY_TIMES = 3
_LOOK_SECONDS = 0.1


@dataclass(slots=True)
class Delivered:
    """
    What became of one student's frames: how many the server has, and at most one that it does not survive.

    ``rest`` are those that were not sent, because of that one, or of what ``refused`` says.
    """

    sent: int = 0
    dead: tuple[Outgoing, str] | None = None
    refused: LoginRefused | Blocked | NoSecret | Unanswered | None = None
    rest: Sequence[Outgoing] = ()


@dataclass(slots=True)
class _Student:
    """Somebody we send for: the connection, if there is one, and what is known of trouble with it."""

    socket: StudentSocket | None = None
    partition: str = ""
    is_suspect: bool = False
    times_away: int = 0
    checkpoint: Checkpoint | None = None
    kills: dict[tuple[str, int], int] = field(default_factory=dict)


class Sender:
    """The connections to the server at ``url``; ``stream`` is the name of this store's checkpoints there."""

    def __init__(
        self,
        url: str,
        authentication: Authentication,
        stream: str,
        *,
        patience: float = PATIENCE_SECONDS,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._url = url
        self._authentication = authentication
        self._stream = stream
        self._patience = patience
        self._say = say
        self._has_said_lost = False
        # Whether the server has ever let somebody in, and met the barrier behind it.
        self.has_let_in = False
        self._students: dict[str, _Student] = {}
        self._loop = asyncio.new_event_loop()
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._thread = threading.Thread(target=self._loop.run_forever, name="exec-events-forward", daemon=True)
        self._thread.start()

    def deliver(self, work: Mapping[str, Sequence[Outgoing]], stop: threading.Event) -> dict[str, Delivered]:
        """
        Send each student's frames, in their order; returns when every one of them has met its barrier.

        Raises Away when it did not come to that for one of them: what was processed is not sent again then. Raises
        Unusable when the server lets nobody in.
        """
        return self._wait(self._deliver_all(work), stop)

    def keep(self, partitions: Collection[str] | None = None) -> None:
        """Close connections of students of other partitions than these (None: of none), and of the longest unused."""
        leaving = [
            name
            for name, one in self._students.items()
            if one.socket is not None and partitions is not None and one.partition not in partitions
        ]
        is_open = [name for name, one in self._students.items() if one.socket is not None and name not in leaving]
        leaving += is_open[: max(0, len(is_open) - OPEN_AT_MOST)]
        if leaving:
            self._wait(self._close(leaving), threading.Event())

    @property
    def open_connections(self) -> int:
        """How many there are."""
        return sum(one.socket is not None and one.socket.is_open for one in self._students.values())

    def close(self) -> None:
        """End all connections, and the thread."""
        with suppress(Away):
            self._wait(self._close(list(self._students)), threading.Event())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(GRACE_SECONDS)

    def _wait(self, coroutine: Coroutine[Any, Any, T], stop: threading.Event) -> T:
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        grace = GRACE_SECONDS
        while True:
            if wait([future], timeout=_LOOK_SECONDS).done:
                return future.result()
            if stop.is_set():
                grace -= _LOOK_SECONDS
            if grace <= 0:
                future.cancel()
                raise Away("it was told to end before the server had answered")

    async def _deliver_all(self, work: Mapping[str, Sequence[Outgoing]]) -> dict[str, Delivered]:
        tasks = [self._deliver(lo_id, frames) for lo_id, frames in work.items()]
        # Each comes as far as it can, whatever happens to others: the next try begins there.
        ended = dict(zip(work, await asyncio.gather(*tasks, return_exceptions=True), strict=True))
        delivered = {lo_id: one for lo_id, one in ended.items() if isinstance(one, Delivered)}
        failed = {lo_id: one for lo_id, one in ended.items() if isinstance(one, BaseException)}
        for lo_id, failure in failed.items():
            student = self._students[lo_id]
            student.times_away += isinstance(failure, Away)
            if student.times_away >= AWAY_TIMES and any(one.sent for one in delivered.values()):
                # Others are not kept waiting. What this one was sent is asked about before anything else is.
                student.times_away = 0
                refused = Unanswered(f"the server answers for others, and not for them: {failure}")
                delivered[lo_id] = Delivered(rest=work[lo_id], refused=refused)
        left = [failure for lo_id, failure in failed.items() if lo_id not in delivered]
        for failure in sorted(left, key=lambda one: isinstance(one, Away | Unusable)):
            raise failure
        return delivered

    async def _deliver(self, lo_id: str, frames: Sequence[Outgoing]) -> Delivered:
        student = self._students.pop(lo_id, None) or _Student()
        self._students[lo_id] = student  # last, for it is used now
        done = Delivered(rest=frames)
        async with self._at_once:
            try:
                while done.rest and done.dead is None:
                    await self._take(lo_id, student, done)
                student.is_suspect = False
                student.times_away = 0
            except (LoginRefused, Blocked, NoSecret) as refused:
                self._hang_up(student)
                done.refused = refused
            except Away:
                raise  # what it was sent may still be processed: the next try waits for that first
            except BaseException:
                self._hang_up(student)
                raise
        return done

    async def _take(self, lo_id: str, student: _Student, done: Delivered) -> None:
        """Send what is left: all at once, or the next one alone after a connection was dropped."""
        student.partition = done.rest[-1].partition
        socket = await self._opened(lo_id, student)
        try:
            await socket.settle()
        except Dropped:
            self._dropped(student)
            return
        left = [frame for frame in done.rest if not socket.checkpoint.has(frame)]
        done.sent += len(done.rest) - len(left)
        done.rest = left
        if not left:
            return
        if student.is_suspect:
            await self._take_alone(socket, student, done)
            return
        try:
            await socket.send(left)
        except Dropped:
            self._dropped(student)
            return
        student.checkpoint = socket.checkpoint
        done.sent += len(left)
        done.rest = ()

    async def _take_alone(self, socket: StudentSocket, student: _Student, done: Delivered) -> None:
        frame = done.rest[0]
        key = frame.chain, frame.seq
        async with witness(self._url) as other:
            try:
                await socket.send([frame])
            except Dropped as dropped:
                self._hang_up(student)
                if not await is_alive(other, LOGIN_SECONDS):
                    raise Away("it went away") from dropped
                student.kills[key] = student.kills.get(key, 0) + 1
                if student.kills[key] < KILLS:
                    return
                del student.kills[key]
                done.dead = frame, f"the server dropped the connection {KILLS} times when it was sent: {dropped}"
            else:
                student.kills.pop(key, None)
                done.sent += 1
        done.rest = done.rest[1:]

    async def _opened(self, lo_id: str, student: _Student) -> StudentSocket:
        if student.socket is None or not student.socket.is_open:
            login = self._authentication.login(lo_id)
            student.socket = await open_socket(self._url, login, self._stream, self._patience, LOGIN_SECONDS)
            self.has_let_in = True
            self._compare(lo_id, student)
        return student.socket

    def _compare(self, lo_id: str, student: _Student) -> None:
        """Say so where the server knows less than it once said."""
        assert student.socket is not None
        if student.checkpoint is not None and student.socket.checkpoint.is_behind(student.checkpoint):
            student.checkpoint = None
            if not self._has_said_lost:
                self._has_said_lost = True
                self._say(
                    f"the server has forgotten what it had of {lo_id}, and maybe of others: was its store emptied? "
                    "What is gone there is sent again by a forwarder with a new --store"
                )

    def _dropped(self, student: _Student) -> None:
        self._hang_up(student)
        student.is_suspect = True

    def _hang_up(self, student: _Student) -> None:
        if student.socket is not None:
            student.socket.abort()
            student.socket = None

    async def _close(self, names: Sequence[str]) -> None:
        students = [self._students.pop(name) for name in names]
        await asyncio.gather(*[one.socket.close() for one in students if one.socket is not None])
