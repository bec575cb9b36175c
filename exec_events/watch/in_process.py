"""
The tap for code inside the server that talks to kernels itself: jupyter_client's clients, and the two
server-side execution extensions, which know user and cell where the kernel message does not.
"""

from __future__ import annotations

import asyncio
import functools
import sys
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.channels import AsyncZMQSocketChannel
from jupyter_client.client import KernelClient
from jupyter_server.base.call_context import CallContext

from exec_events.errors import NotRecorded

from .execution import Identity
from .kernel import KernelWatch
from .websocket import Gate, request_from


@dataclass(frozen=True, slots=True)
class Cell:
    """What a server-side execution knows of the cell it runs, and of who asked."""

    cell_id: str | None
    identity: Identity | None


LOOP_TIMEOUT_SECONDS = 5.0

_cell: ContextVar[Cell | None] = ContextVar("exec_events_cell", default=None)
_taps: list[InProcessTap] = []
_originals: dict[tuple[Any, str], Any] = {}


def current_user() -> Any:
    """The user of the HTTP request that is being answered, or None outside one."""
    try:
        handler = CallContext.get(CallContext.JUPYTER_HANDLER)
        return handler.current_user if handler is not None else None
    except Exception:
        return None


class InProcessTap:
    """Sees the requests that code of this server sends to the kernels of this server."""

    def __init__(self, gate: Gate, find: Callable[[KernelClient], KernelWatch | None]) -> None:
        self._gate = gate
        self._find = find
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._sent: OrderedDict[str, KernelWatch] = OrderedDict()
        self._queued: deque[tuple[str, str, Cell]] = deque(maxlen=10_000)
        self._askers: OrderedDict[str, Cell] = OrderedDict()

    def install(self) -> None:
        """Start to see."""
        for client_class in (KernelClient, AsyncKernelClient, BlockingKernelClient):
            _replace(client_class, "execute", _execute)
        _replace(AsyncZMQSocketChannel, "get_msg", _get_msg)
        _taps.append(self)
        self._tap_nbmodel()
        self._tap_documents()

    def remove(self) -> None:
        """See no more."""
        if self in _taps:
            _taps.remove(self)
        while not _taps and _originals:
            (owner, attribute), original = _originals.popitem()
            setattr(owner, attribute, original)

    def send(
        self, client: KernelClient, watch: KernelWatch, message: dict[str, Any], send: Callable[[Any], None]
    ) -> None:
        """Pass one execute_request of an in-process client on; raises NotRecorded in required mode."""
        if threading.get_ident() != self._thread:
            self._send_from_thread(watch, message, send)
            return
        cell = self._cell_of(watch.kernel_id, message["content"].get("code"))
        if self._gate.required:
            self._gate.require_now(watch, self._requested(watch, message, cell))
            send(message)
        else:
            send(message)
            self._requested(watch, message, cell)

    def _send_from_thread(self, watch: KernelWatch, message: dict[str, Any], send: Callable[[Any], None]) -> None:
        """As `send`, on a thread that is not the event loop's, which alone may touch a watch."""
        if not self._gate.required:
            send(message)
            self._loop.call_soon_threadsafe(self._requested, watch, message, None)
            return

        async def requested() -> Any:
            return self._requested(watch, message, None)

        try:
            execution = asyncio.run_coroutine_threadsafe(requested(), self._loop).result(LOOP_TIMEOUT_SECONDS)
        except FutureTimeoutError:
            raise NotRecorded("this server runs only what it can record, and its event loop does not answer") from None
        self._gate.require_now(watch, execution)
        send(message)

    def replied(self, message: dict[str, Any]) -> None:
        """An in-process client read an execute_reply."""
        msg_id = str(message["parent_header"].get("msg_id", ""))
        watch = self._sent.pop(msg_id, None)
        if watch is not None and threading.get_ident() == self._thread:
            watch.replied(msg_id, message["content"])

    def find(self, client: KernelClient) -> KernelWatch | None:
        """The watch of the kernel ``client`` is connected to."""
        return self._find(client)

    def trouble(self, where: str) -> None:
        """Report what must not reach the caller."""
        self._gate.trouble(where)

    def _requested(self, watch: KernelWatch, message: dict[str, Any], cell: Cell | None) -> Any:
        try:
            metadata = message.get("metadata") or {}
            identity = (cell.identity if cell else None) or self._gate.identity(current_user())
            request = request_from(
                message["header"], metadata, message["content"], "shell", identity, self._gate.now_us()
            )
            request = replace(request, client="in_process", cell_id=request.cell_id or (cell.cell_id if cell else None))
            execution = watch.requested(request)
            self._sent[request.msg_id] = watch
            if len(self._sent) > 10_000:
                self._sent.popitem(last=False)
        except Exception:
            self._gate.trouble("an in-process execute_request")
            return None
        return execution

    def _cell_of(self, kernel_id: str, code: Any) -> Cell | None:
        """Who asked for this run: its own context says, or the oldest queued run of the same code."""
        if (cell := _cell.get()) is not None:
            return cell
        for index, (queued_kernel, queued_code, queued_cell) in enumerate(self._queued):
            if queued_kernel == kernel_id and queued_code == code:
                del self._queued[index]
                return queued_cell
        return None

    def _tap_nbmodel(self) -> None:
        """jupyter_server_nbmodel: ExecutionStack.put knows the cell; its worker task has nobody's context."""
        if (module := sys.modules.get("jupyter_server_nbmodel.execution_stack")) is None:
            return

        def noting(original: Any) -> Any:
            @functools.wraps(original)
            def put(stack: Any, kernel_id: str, snippet: str, metadata: Any = None, *args: Any, **kwargs: Any) -> Any:
                for tap in _taps:
                    tap._noted(kernel_id, snippet, metadata)
                return original(stack, kernel_id, snippet, metadata, *args, **kwargs)

            return put

        _replace(module.ExecutionStack, "put", noting)

    def _noted(self, kernel_id: str, code: str, metadata: Any) -> None:
        try:
            cell_id = metadata.get("cell_id") if isinstance(metadata, dict) else None
            cell = Cell(cell_id if isinstance(cell_id, str) else None, self._gate.identity(current_user()))
            self._queued.append((kernel_id, code, cell))
        except Exception:
            self._gate.trouble("a server-side execution")

    def _tap_documents(self) -> None:
        """jupyter_server_documents: execute_cells knows the user, its worker's _run_item the cell."""
        if (module := sys.modules.get("jupyter_server_documents.rooms.ynotebook_room")) is None:
            return

        def asking(original: Any) -> Any:
            @functools.wraps(original)
            async def execute_cells(room: Any, cells: list[Any], *args: Any, **kwargs: Any) -> Any:
                for tap in _taps:
                    tap._asked(room, cells)
                return await original(room, cells, *args, **kwargs)

            return execute_cells

        def running(original: Any) -> Any:
            @functools.wraps(original)
            async def run_item(room: Any, item: Any) -> Any:
                cell_id = str(item.cell_id)
                asker = next((c for tap in _taps if (c := tap._askers.get(f"{room.room_id}\0{cell_id}"))), None)
                token = _cell.set(Cell(cell_id, asker.identity if asker else None))
                try:
                    return await original(room, item)
                finally:
                    _cell.reset(token)

            return run_item

        _replace(module.YNotebookRoom, "execute_cells", asking)
        _replace(module.YNotebookRoom, "_run_item", running)

    def _asked(self, room: Any, cells: list[Any]) -> None:
        try:
            identity = self._gate.identity(current_user())
            for entry in cells:
                cell_id = str(entry.get("cell_id") if isinstance(entry, dict) else entry)
                self._askers[f"{room.room_id}\0{cell_id}"] = Cell(cell_id, identity)
                if len(self._askers) > 10_000:
                    self._askers.popitem(last=False)
        except Exception:
            self._gate.trouble("a server-side execution")


def _replace(owner: Any, attribute: str, wrap: Callable[[Any], Any]) -> None:
    """Wrap a method of a class once, however many recorders there are."""
    if (owner, attribute) not in _originals:
        original = _originals[owner, attribute] = getattr(owner, attribute)
        setattr(owner, attribute, wrap(original))


def _execute(original: Any) -> Any:
    @functools.wraps(original)
    def execute(self: KernelClient, *args: Any, **kwargs: Any) -> Any:
        for tap in _taps:
            if (watch := tap.find(self)) is not None:
                channel = self.shell_channel
                send = channel.send
                # execute() makes the message and sends it at once: the instance's send sees it whole.
                channel.send = lambda message: tap.send(self, watch, message, send)  # noqa: B023
                try:
                    return original(self, *args, **kwargs)
                finally:
                    del channel.send
        return original(self, *args, **kwargs)

    return execute


def _get_msg(original: Any) -> Any:
    @functools.wraps(original)
    async def get_msg(self: AsyncZMQSocketChannel, *args: Any, **kwargs: Any) -> Any:
        message = await original(self, *args, **kwargs)
        if message.get("msg_type") == "execute_reply":
            for tap in _taps:
                try:
                    tap.replied(message)
                except Exception:
                    tap.trouble("an in-process execute_reply")
        return message

    return get_msg
