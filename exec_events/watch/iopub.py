"""
One subscription to a kernel's iopub, in the place of the server's own activity watcher, read in batches.

What costs is not a message but a wake-up of the event loop for it, so the socket is not registered
with the loop: a timer drains it. libzmq's own thread takes messages in meanwhile, without a high
water mark, so a blocked loop loses nothing.  The server's own callback, which keeps a kernel's
execution_state and last_activity, is called for what changes them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from hmac import compare_digest
from logging import Logger
from typing import Any

import orjson
import zmq
from jupyter_client.connect import ConnectionFileMixin
from jupyter_client.session import Session

from .execution import ParentKey
from .kernel import KernelWatch

DELIMITER = b"<IDS|MSG>"
RECONNECT_MILLISECONDS = 10
DRAIN_BYTES = 8 * 1024 * 1024
DRAIN_MESSAGES = 2000


class DrainedStream:
    """
    Stands where `MappingKernelManager.start_watching_activity` puts its ZMQStream.

    It has what others use of that one: ``socket``, ``on_recv``, ``stop_on_recv``, ``closed``, ``close``.
    """

    def __init__(self, socket: zmq.Socket[bytes], on_close: Callable[[], None]) -> None:
        self.socket = socket
        self._reader: zmq.Socket[bytes] = zmq.Socket.shadow(socket.underlying)
        self._on_close = on_close
        self._callback: Callable[[list[bytes]], Any] | None = None

    def on_recv(self, callback: Callable[[list[bytes]], Any] | None, copy: bool = True) -> None:
        """Keep the server's callback; `receive` calls it for every message."""
        self._callback = callback

    def stop_on_recv(self) -> None:
        """Call nobody any more."""
        self._callback = None

    def closed(self) -> bool:
        """Whether it is closed."""
        return bool(self.socket.closed)

    def close(self, linger: int | None = None) -> None:
        """Hand out what is left, then close."""
        if not self.socket.closed:
            self._on_close()
            self.socket.close(linger=0 if linger is None else linger)

    def receive(self) -> list[bytes] | None:
        """The next message that has come, or None."""
        try:
            return self._reader.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None

    def check(self, parts: list[bytes]) -> None:
        """Let the server's own callback take it, which checks the signature and raises when it is bad."""
        if self._callback is not None:
            self._callback(parts)


class IopubTap:
    """
    Feeds a `KernelWatch` from its kernel's iopub.

    ``live`` is True once the kernel has proved that it publishes to us: by the iopub_welcome to a topic
    nobody else knows (JEP 65), or by any message at all.
    """

    def __init__(self, watch: KernelWatch, log: Logger, on_live: Callable[[], None]) -> None:
        self.watch = watch
        self.live = False
        self.bad_messages = 0
        self._log = log
        self._on_live = on_live
        self._topic = b"exec-events-" + os.urandom(12).hex().encode()
        self._stream: DrainedStream | None = None
        self._stale_session = ""
        self._session: Session | None = None
        self._last: list[bytes] | None = None
        self._last_status: list[bytes] | None = None

    def connect(self, kernel: Any) -> DrainedStream:
        """Subscribe to all that ``kernel`` (a KernelManager) publishes; raises zmq.ZMQError."""
        self._session = kernel.session
        options = kernel.context.sockopts
        saved = dict(options)
        kernel.context.setsockopt(zmq.RCVHWM, 0)
        kernel.context.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MILLISECONDS)
        try:
            socket = ConnectionFileMixin.connect_iopub(kernel)
        finally:
            options.clear()
            options.update(saved)
        socket.setsockopt(zmq.SUBSCRIBE, self._topic)
        self.live = False
        self._stream = DrainedStream(socket, self.drain_all)
        return self._stream

    def expect_welcome(self) -> None:
        """The kernel behind the socket changes: what was proved of the old one says nothing of the new."""
        self.live = False
        self._stale_session = self.watch.session

    def drain_all(self) -> None:
        """Look at everything that has come."""
        while self.drain():
            pass

    def drain(self) -> bool:
        """Look at what has come, within the budget of one tick; True when more is waiting."""
        stream = self._stream
        more = stream is not None and not stream.closed() and self._drain(stream)
        self.watch.end_of_batch()
        return more

    def _drain(self, stream: DrainedStream) -> bool:
        taken = 0
        try:
            for _ in range(DRAIN_MESSAGES):
                parts = stream.receive()
                if parts is None:
                    return False
                self._look(stream, parts)
                taken += sum(map(len, parts))
                if taken > DRAIN_BYTES:
                    break
            return True
        finally:
            self._hand_over(stream)

    def _look(self, stream: DrainedStream, parts: list[bytes]) -> None:
        try:
            at = parts.index(DELIMITER)
            parent = self.watch.parent(parts[at + 3])
            header = orjson.loads(parts[at + 2])
            if isinstance(parent, ParentKey) and self.live:
                self._check(parts, at)
                self._last = parts
                if header["msg_type"] == "status":
                    self._last_status = parts
            else:
                self._hand_over(stream)
                stream.check(parts)
            if not self.live:
                self._prove(header, parts[at + 5])
            self.watch.iopub(header, parent, parts[at + 5], sum(map(len, parts[at + 5 :])))
        except Exception as error:
            self.bad_messages += 1
            if self.bad_messages in (1, 10, 100, 1000):
                self._log.warning(
                    "exec-events: message %d from kernel %s that is none: %s: %s",
                    self.bad_messages,
                    self.watch.kernel_id,
                    type(error).__name__,
                    error,
                )

    def _check(self, parts: list[bytes], at: int) -> None:
        """Check the signature of a message that the server's own callback does not see."""
        session = self._session
        if (
            session is not None
            and session.auth is not None
            and not compare_digest(session.sign(parts[at + 2 : at + 6]), parts[at + 1])
        ):
            raise ValueError("bad signature")

    def _hand_over(self, stream: DrainedStream) -> None:
        """
        Let the server's callback see the last messages of executions in a batch.

        It keeps execution_state and last_activity, which nobody can read in the middle of a batch, so
        the last status, and the last message, leave both as every one of them would.
        """
        status, last = self._last_status, self._last
        self._last_status = self._last = None
        for parts in (status, last if last is not status else None):
            if parts is not None:
                try:
                    stream.check(parts)
                except Exception as error:
                    self._log.debug("exec-events: the activity watcher: %s", error)

    def _prove(self, header: dict[str, Any], content: bytes) -> None:
        if header.get("session") == self._stale_session:
            return
        # A welcome to another topic answers somebody else's subscription.
        if header.get("msg_type") == "iopub_welcome" and self._topic not in content:
            return
        self.live = True
        self._on_live()
