"""
The websocket tap: requests and replies are seen as they pass, whatever connection class stands there.

A request is held back only while its kernel's iopub is not proved to be heard (first cell after start
or restart), and in required mode until it is durable; order within a channel is kept.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Protocol

import orjson
from jupyter_server.services.kernels.connection.base import (
    deserialize_binary_message,
    deserialize_msg_from_ws_v1,
    serialize_msg_to_ws_v1,
)
from jupyter_server.services.kernels.websocket import KernelWebsocketHandler

from exec_events.errors import NotRecorded

from .execution import Channel, Execution, Identity, Request
from .kernel import KernelWatch
from .relay import RelayedTap

V1 = "v1.kernel.websocket.jupyter.org"
# A header comes first in every message the server sends; this much of it holds the msg_type.
PEEK = 4096
LIVE_TIMEOUT_SECONDS = 3.0


class Gate(Protocol):
    """What the taps ask of the recorder."""

    @property
    def required(self) -> bool:
        """Whether what cannot be recorded must not run."""

    def watch(self, kernel_id: str) -> KernelWatch | None:
        """The watch of a kernel; None for a kernel the recorder does not know."""

    def relay(self, kernel_id: str) -> RelayedTap | None:
        """Where iopub messages go that only websockets carry; None for most kernels."""

    def identity(self, user: Any) -> Identity | None:
        """Who the server's current user is; None when it is nobody in particular."""

    def must_wait(self, kernel_id: str) -> bool:
        """Whether a request for this kernel has to be held back."""

    async def until_live(self, kernel_id: str) -> None:
        """Wait, within bounds, until the kernel's iopub is heard."""

    def now_us(self) -> int:
        """The server's clock."""

    async def require(self, watch: KernelWatch | None, execution: Execution | None) -> None:
        """In required mode, return once the execution is on disk; raises NotRecorded when it cannot be."""

    def require_now(self, watch: KernelWatch, execution: Execution | None) -> None:
        """As `require`, for a caller that cannot wait; blocks for one commit."""

    def withdraw(self, watch: KernelWatch | None, execution: Execution | None) -> None:
        """Take back a request that was noted and will not reach its kernel."""

    def trouble(self, where: str) -> None:
        """Report an exception of the recorder's own, which must not reach the kernel's user."""


def request_from(
    header: dict[str, Any],
    metadata: Any,
    content: dict[str, Any],
    channel: Channel,
    identity: Identity | None,
    received_us: int,
) -> Request:
    """An execute_request's parts, as the client sent them, as a `Request`; nothing in them is trusted."""
    silent = bool(content.get("silent", False))
    cell_id = metadata.get("cellId") if isinstance(metadata, dict) else None
    expressions = content.get("user_expressions")
    code = content.get("code", "")
    return Request(
        msg_id=str(header.get("msg_id", "")),
        client="websocket",
        channel=channel,
        received_us=received_us,
        code=code if isinstance(code, str) else None,
        silent=silent,
        store_history=bool(content.get("store_history", not silent)) and not silent,
        user_expressions=expressions if isinstance(expressions, dict) else {},
        cell_id=cell_id if isinstance(cell_id, str) and cell_id else None,
        subshell=bool(header.get("subshell_id")),
        identity=identity,
    )


def _channel(name: Any) -> Channel:
    return "control" if name == "control" else "shell"


def incoming_execute_request(
    message: str | bytes, v1: bool
) -> tuple[Channel, dict[str, Any], Any, dict[str, Any]] | None:
    """
    (channel, header, metadata, content) when a websocket message is an execute_request, else None.

    Raises ValueError, KeyError or IndexError for what is no message at all.
    """
    if isinstance(message, bytes) and v1:
        channel, parts = deserialize_msg_from_ws_v1(message)
        if b"execute_request" not in parts[0]:
            return None
        header = orjson.loads(parts[0])
        if header.get("msg_type") != "execute_request":
            return None
        return _channel(channel), header, orjson.loads(parts[2]), orjson.loads(parts[3])
    if isinstance(message, bytes):
        whole = deserialize_binary_message(message)
    elif '"execute_request"' in message:
        whole = orjson.loads(message)
    else:
        return None
    if whole["header"].get("msg_type") != "execute_request":
        return None
    return _channel(whole.get("channel")), whole["header"], whole.get("metadata"), whole["content"]


def outgoing_reply(message: str | bytes) -> tuple[dict[str, Any], str, dict[str, Any]] | None:
    """(header, parent msg_id, content) when a message to the client is an execute_reply or input_request."""
    if isinstance(message, str):
        head = message[:PEEK]
        if '"execute_reply"' not in head and '"input_request"' not in head:
            return None
        whole = orjson.loads(message)
        header, parent, content = whole["header"], whole["parent_header"], whole["content"]
    else:
        head_bytes = message[:PEEK]
        if b'"execute_reply"' not in head_bytes and b'"input_request"' not in head_bytes:
            return None
        _, parts = deserialize_msg_from_ws_v1(message)
        header = orjson.loads(parts[0])
        parent, content = orjson.loads(parts[1]), orjson.loads(parts[3])
    if header["msg_type"] not in ("execute_reply", "input_request"):
        return None
    return header, str(parent.get("msg_id", "")), content


def refusal(header: dict[str, Any], reason: str) -> list[tuple[str, str, dict[str, Any]]]:
    """What a client is told when its request may not run: (channel, msg_type, content), in order."""
    error = {
        "ename": "NotRecorded",
        "evalue": reason,
        "traceback": [f"NotRecorded: {reason}"],
    }
    return [
        ("iopub", "status", {"execution_state": "busy"}),
        ("iopub", "error", error),
        (
            "shell",
            "execute_reply",
            {"status": "error", "execution_count": 0, "user_expressions": {}, "payload": [], **error},
        ),
        ("iopub", "status", {"execution_state": "idle"}),
    ]


def tapped(base: type, gate: Gate) -> type:
    """A subclass of the connection class ``base`` whose requests and replies the recorder sees."""

    class RecordedConnection(base):  # type: ignore[misc]
        """A kernel websocket connection with the recorder's tap."""

        exec_events_tap = True

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._exec_events_held: dict[str, deque[Any]] = {}
            self._exec_events_sent: list[Execution] = []
            self._exec_events_closed = False
            self._exec_events_relay = gate.relay(self.kernel_id)
            handler: KernelWebsocketHandler = self.websocket_handler
            write_message = handler.write_message

            def write_and_look(message: Any, binary: bool = False) -> Any:
                written = write_message(message, binary=binary)
                self._exec_events_outgoing(message)
                return written

            handler.write_message = write_and_look  # type: ignore[method-assign]

        def handle_incoming_message(self, incoming_msg: Any) -> None:
            found = None
            try:
                v1 = getattr(self.websocket_handler, "selected_subprotocol", None) == V1
                found = incoming_execute_request(incoming_msg, v1)
            except Exception:
                gate.trouble("a websocket message")
            channel = found[0] if found else "shell"
            queue = self._exec_events_held.get(channel)
            if queue is not None:
                queue.append((incoming_msg, found))
            elif found is None:
                super().handle_incoming_message(incoming_msg)
            elif gate.must_wait(self.kernel_id):
                self._exec_events_held[channel] = deque([(incoming_msg, found)])
                task = asyncio.get_running_loop().create_task(self._exec_events_release(channel))
                _tasks.add(task)
                task.add_done_callback(_tasks.discard)
            else:
                super().handle_incoming_message(incoming_msg)
                self._exec_events_requested(found)

        def disconnect(self) -> Any:
            self._exec_events_closed = True
            result = super().disconnect()
            watch = gate.watch(self.kernel_id)
            if watch is not None:
                watch.connection_closed([e for e in self._exec_events_sent if not e.over])
            return result

        def _exec_events_requested(self, found: Any) -> Execution | None:
            try:
                watch = gate.watch(self.kernel_id)
                if watch is None:
                    return None
                channel, header, metadata, content = found
                identity = gate.identity(self.websocket_handler.current_user)
                execution = watch.requested(request_from(header, metadata, content, channel, identity, gate.now_us()))
            except Exception:
                gate.trouble("an execute_request")
                return None
            self._exec_events_sent = [e for e in self._exec_events_sent if not e.over]
            self._exec_events_sent.append(execution)
            return execution

        async def _exec_events_release(self, channel: str) -> None:
            """Send what is held on one channel, in order, each as soon as it may go."""
            queue = self._exec_events_held[channel]
            try:
                while queue:
                    message, found = queue[0]
                    if found is None:
                        super().handle_incoming_message(message)
                    else:
                        await self._exec_events_pass(message, found)
                    queue.popleft()
            except Exception:
                gate.trouble("held requests")
            finally:
                del self._exec_events_held[channel]

        async def _exec_events_pass(self, message: Any, found: Any) -> None:
            await gate.until_live(self.kernel_id)
            if self._exec_events_closed:
                return  # never noted, and never sent
            watch = gate.watch(self.kernel_id)
            execution = self._exec_events_requested(found)
            try:
                await gate.require(watch, execution)
            except NotRecorded as error:
                self._exec_events_refuse(found[1], str(error))
                return
            if self._exec_events_closed:  # while it was made durable
                gate.withdraw(watch, execution)
                return
            super().handle_incoming_message(message)

        def _exec_events_refuse(self, header: dict[str, Any], reason: str) -> None:
            v1 = getattr(self.websocket_handler, "selected_subprotocol", None) == V1
            for channel, kind, content in refusal(header, reason):
                reply = self.session.msg(kind, content=content, parent={"header": header})
                if v1:
                    data = serialize_msg_to_ws_v1(reply, channel, self.session.pack)
                    self.websocket_handler.write_message(data, binary=True)
                else:
                    reply["channel"] = channel
                    self.websocket_handler.write_message(self.session.pack(reply).decode())

        def _exec_events_outgoing(self, message: Any) -> None:
            try:
                found = outgoing_reply(message)
                if found is None:
                    if self._exec_events_relay is not None:
                        self._exec_events_relay.relayed(message)
                    return
                watch = gate.watch(self.kernel_id)
                if watch is None:
                    return
                header, msg_id, content = found
                if header["msg_type"] == "execute_reply":
                    watch.replied(msg_id, content)
                else:
                    watch.asked_for_input(str(header.get("msg_id", "")))
            except Exception:
                gate.trouble("an execute_reply")

    RecordedConnection.__name__ = f"Recorded{base.__name__}"
    return RecordedConnection


_tasks: set[asyncio.Task[None]] = set()
