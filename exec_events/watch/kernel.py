"""
One kernel's messages in, its executions out: the state machine, without sockets.

An execution is known by the order of requests, not by msg_id, which a client may use again: each time
the kernel says busy for a msg_id, the oldest request of that msg_id that is not running yet has begun.
Parent headers are parsed once for each spelling of them, which is once or twice a cell.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any, Protocol

import orjson

from exec_events.clock import microseconds
from exec_events.outputs import Outputs

from .counter import Mark, MessageCounter
from .execution import Execution, Identity, ParentKey, Request, Status, display_id_of, parse_object

OUTPUT_TYPES = frozenset({"stream", "display_data", "execute_result", "error", "update_display_data", "clear_output"})
# What shows, or changes, a display with a display_id.
DISPLAY_TYPES = frozenset({"display_data", "execute_result", "update_display_data"})
DISPLAY_ID = b'"display_id"'
# Requests that have no reply; all others account for one message the kernel sent elsewhere than iopub.
WITHOUT_REPLY = frozenset({"comm_open", "comm_msg", "comm_close"})

REPLY_GRACE_SECONDS = 0.1
IDLE_GRACE_SECONDS = 2.0
LATE_SECONDS = 0.5
RECENT_EXECUTIONS = 256
PARENTS_CACHED = 4096
RECENT_BYTES = 16 * 1024 * 1024
RECENT_EACH_BYTES = 1024 * 1024
OUTPUT_LIMIT_BYTES = 64 * 1024 * 1024
# A direct client's stdin goes past the recorder, so a few messages of the kernel's may be nobody's loss.
UNSEEN_STDIN = 16


class Observer(Protocol):
    """Who is told: the recorder."""

    def begun(self, watch: KernelWatch, execution: Execution) -> None:
        """An execution was requested."""

    def finished(self, watch: KernelWatch, execution: Execution, status: Status) -> None:
        """An execution is over."""

    def late(self, watch: KernelWatch, execution: Execution) -> None:
        """Outputs came after their execution was over."""


class KernelWatch:
    """
    What the recorder knows of one kernel.

    ``clock`` gives microseconds since the epoch, ``loop_time`` the event loop's seconds, ``new_id`` a
    fresh execution_id.
    """

    def __init__(
        self,
        kernel_id: str,
        kernel_name: str,
        language: str,
        owner: Identity,
        observer: Observer,
        *,
        clock: Callable[[], int],
        loop_time: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        self.kernel_id = kernel_id
        self.kernel_name = kernel_name
        self.language = language
        self.owner = owner
        self.notebook: str | None = None
        self.pending: dict[str, Execution] = {}
        self._observer = observer
        self._clock = clock
        self._loop_time = loop_time
        self._new_id = new_id
        self._unbound: dict[str, deque[Execution]] = {}
        self._unreplied: dict[str, deque[Execution]] = {}
        self._parents: dict[bytes, ParentKey | str | None] = {}
        self._current: dict[ParentKey, Execution] = {}
        self._recent: OrderedDict[str, Execution] = OrderedDict()
        self._msg_ids: OrderedDict[str, None] = OrderedDict()
        self._new: list[Execution] = []
        self._late: dict[str, Execution] = {}
        self._counter = MessageCounter()

    @property
    def session(self) -> str:
        """The session of the kernel process that publishes now; "" before it has."""
        return self._counter.session

    # Requests and replies, seen as they pass through the server.

    def requested(self, request: Request) -> Execution:
        """A request is on its way to the kernel."""
        execution = self._new_execution(request)
        self._unbound.setdefault(request.msg_id, deque()).append(execution)
        self._unreplied.setdefault(request.msg_id, deque()).append(execution)
        self._begin(execution)
        return execution

    def withdrawn(self, execution: Execution) -> None:
        """A request never reached the kernel."""
        self._forget(execution)
        execution.over = True

    def replied(self, msg_id: str, content: dict[str, Any]) -> None:
        """An execute_reply passes; ``content`` is the kernel's, and not trusted."""
        waiting = self._unreplied.get(msg_id)
        if not waiting:
            return
        execution = waiting.popleft()
        if not waiting:
            del self._unreplied[msg_id]
        execution.reply_status = str(content.get("status", "ok"))
        execution.replied_at = execution.last_message_at = self._loop_time()
        count = content.get("execution_count")
        if isinstance(count, int) and not isinstance(count, bool):
            execution.execution_count = count
        if execution.reply_status == "error" and execution.error_name is None:
            execution.error_name = str(content.get("ename", ""))
        if content.get("payload"):
            execution.payload = content

    def asked_for_input(self, msg_id: str) -> None:
        """An input_request passes: one message of the kernel's, of this msg_id, that is not on iopub."""
        self._counter.input_request(msg_id)

    def connection_closed(self, executions: list[Execution]) -> None:
        """Nobody is left to see the replies of these."""
        for execution in executions:
            execution.connection_closed = True

    def interrupt(self) -> None:
        """Somebody interrupts the kernel: what runs now, if it fails, was interrupted."""
        for execution in self.pending.values():
            if execution.request.client == "direct" or execution.bound:
                execution.interrupted = True

    def doom(self, status: Status) -> list[Execution]:
        """The kernel is about to go: whatever is pending and fails from now on ends by that."""
        doomed = list(self.pending.values())
        for execution in doomed:
            execution.ending = status
        return doomed

    def close(self, status: Status, executions: list[Execution] | None = None) -> None:
        """The kernel or the recorder goes: what is pending (or of it, these) ends here."""
        for execution in list(self.pending.values()) if executions is None else executions:
            if not execution.over:
                self._finish(execution, status)
        self.flush_late(now=True)

    # iopub, drained in batches.

    def iopub(self, header: dict[str, Any], parent: ParentKey | str | None, content: bytes, size: int) -> None:
        """
        One iopub message: its parsed header, what `parent` says of its parent, its content's bytes.

        Raises ValueError, KeyError or AttributeError when it is none.
        """
        kind = header["msg_type"]
        mark = self._counter.iopub(header)
        state = parse_object(content).get("execution_state") if kind == "status" else None
        if not isinstance(parent, ParentKey):
            self._others(kind, state, parent, content)
            return
        execution = self._current.get(parent)
        if execution is None or (execution.idle_date is not None and state == "busy"):
            execution = self._bind(parent)
        execution.last_message_at = self._loop_time()
        if kind == "status":
            self._status(execution, state, str(header.get("date", "")), mark)
        elif kind == "execute_input":
            self._execute_input(execution, parse_object(content))
        elif kind in OUTPUT_TYPES:
            self._output(execution, kind, content, size)

    def parent(self, parent_bytes: bytes) -> ParentKey | str | None:
        """Of an execute_request, what tells it from others; of any other request, its msg_type."""
        try:
            return self._parents[parent_bytes]
        except KeyError:
            header = orjson.loads(parent_bytes) if parent_bytes else None
        parent: ParentKey | str | None = None
        if isinstance(header, dict) and header.get("msg_type") == "execute_request":
            key = (str(header.get("session", "")), str(header.get("msg_id", "")), bool(header.get("subshell_id")))
            parent = ParentKey(*key)
        elif isinstance(header, dict) and header.get("msg_type"):
            parent = str(header["msg_type"])
        if len(self._parents) >= PARENTS_CACHED:
            self._parents.clear()
        self._parents[parent_bytes] = parent
        return parent

    def end_of_batch(self) -> None:
        """All that had come was looked at: begin what is new, end what has waited long enough."""
        for execution in self._new:
            if not execution.begun and not execution.over:
                self._begin(execution)
        self._new.clear()
        if self.pending:
            now = self._loop_time()
            for execution in list(self.pending.values()):
                if self._has_waited(execution, now):
                    self._finish(execution)
        if self._late:
            self.flush_late()

    def flush_late(self, *, now: bool = False) -> None:
        """Report late outputs that are due, or all of them."""
        time = self._loop_time()
        for execution in list(self._late.values()):
            if now or time >= execution.late_due:
                del self._late[execution.execution_id]
                self._observer.late(self, execution)
                execution.late = None

    # Inside.

    def _new_execution(self, request: Request) -> Execution:
        reused = request.msg_id in self._msg_ids
        self._msg_ids[request.msg_id] = None
        if len(self._msg_ids) > 10_000:
            self._msg_ids.popitem(last=False)
        execution = Execution(self._new_id(), request, Outputs(limit=OUTPUT_LIMIT_BYTES), msg_id_reused=reused)
        execution.last_message_at = self._loop_time()
        self.pending[execution.execution_id] = execution
        return execution

    def _begin(self, execution: Execution) -> None:
        execution.begun = True
        self._observer.begun(self, execution)

    def _bind(self, parent: ParentKey) -> Execution:
        """The execution this parent stands for from now on: the oldest such request, or a direct one."""
        waiting = self._unbound.get(parent.msg_id)
        if waiting:
            execution = waiting.popleft()
            if not waiting:
                del self._unbound[parent.msg_id]
        else:
            request = Request(parent.msg_id, "direct", "unknown", self._clock(), subshell=parent.subshell)
            execution = self._new_execution(request)
            self._new.append(execution)
        for ended in [e for e in self.pending.values() if _has_ended(e)]:
            self._finish(ended)  # what this one does to their displays is late for them, however fast it comes
        execution.bound = True
        execution.parent = parent
        self._current[parent] = execution
        return execution

    def _status(self, execution: Execution, state: Any, date: str, mark: Mark | None) -> None:
        if state == "busy" and execution.busy_date is None:
            execution.busy_date = date
            execution.mark_at_busy = mark
            self._end_overtaken(execution, mark)
        elif state == "idle" and not execution.over:
            if execution.idle_date is None:
                self._counter.reply()
            # Code may say idle for itself; what comes before its batch is done still belongs to it.
            execution.idle_date = date
            execution.idle_at = self._loop_time()
            execution.iopub_missed = self._missed(execution, mark)

    def _execute_input(self, execution: Execution, content: dict[str, Any]) -> None:
        if isinstance(code := content.get("code"), str):
            execution.input_code = code
        if isinstance(count := content.get("execution_count"), int) and not isinstance(count, bool):
            execution.execution_count = count

    def _output(self, execution: Execution, kind: str, content: bytes, size: int) -> None:
        if kind in DISPLAY_TYPES and DISPLAY_ID in content:
            self._update_displays(content, execution)
        if not execution.over:
            if kind == "error" and execution.error_name is None:
                execution.error_name = str(parse_object(content).get("ename", ""))
            execution.keep(kind, content, size)
            return
        if kind == "update_display_data":
            return  # its late output is that of the execution whose display it updates
        parsed = parse_object(content)
        self._late_outputs(execution, "output").add(kind, parsed, size)
        if execution.execution_id in self._recent:
            execution.outputs.add(kind, parsed, size)

    def _update_displays(self, content: bytes, own: Execution | None) -> None:
        """A display shows its last content wherever it stands: here, in every execution but ``own``."""
        parsed = parse_object(content)
        if (display_id := display_id_of(parsed)) is None:
            return
        for other in self._recent.values():
            # A finished execution's own late update changes its outputs like anybody else's.
            if (other is not own or other.over) and other.outputs.update_display(display_id, parsed):
                self._late_outputs(other, "display_update").add("display_data", parsed, 0)
        for running in self.pending.values():
            if running is not own:
                running.keep("", content, 0)

    def _late_outputs(self, execution: Execution, cause: Any) -> Outputs:
        if execution.late is None:
            execution.late = Outputs(limit=RECENT_EACH_BYTES)
            execution.late_cause = cause
            execution.late_due = self._loop_time() + LATE_SECONDS
            self._late[execution.execution_id] = execution
        return execution.late

    def _others(self, kind: str, state: Any, parent_kind: str | None, content: bytes) -> None:
        """Messages that belong to no execution: only what they say about counters, interrupts and displays."""
        if kind == "status" and state == "idle" and parent_kind is not None and parent_kind not in WITHOUT_REPLY:
            self._counter.reply()
        if parent_kind == "interrupt_request" and state == "busy":
            self.interrupt()
        if kind in DISPLAY_TYPES and DISPLAY_ID in content:
            self._update_displays(content, None)

    def _has_waited(self, execution: Execution, now: float) -> bool:
        if _has_ended(execution):
            return True
        if execution.idle_date is not None:
            # A kernel replies before it says idle; one that says idle first may only pretend to be done.
            grace = IDLE_GRACE_SECONDS if execution.request.client == "websocket" else REPLY_GRACE_SECONDS
            return now - max(execution.idle_at, execution.last_message_at) > grace
        return execution.reply_seen and now - execution.last_message_at > IDLE_GRACE_SECONDS

    def _finish(self, execution: Execution, status: Status | None = None) -> None:
        if execution.over:
            return
        if not execution.begun:
            self._begin(execution)
        execution.over = True
        self._forget(execution)
        self._observer.finished(self, execution, status or execution.status())
        self._remember(execution)
        if execution.reply_seen and execution.request.client != "direct":
            self._end_overtaken(execution, None)

    def _forget(self, execution: Execution) -> None:
        self.pending.pop(execution.execution_id, None)
        for table in (self._unbound, self._unreplied):
            waiting = table.get(execution.request.msg_id)
            if waiting and execution in waiting:
                waiting.remove(execution)
                if not waiting:
                    del table[execution.request.msg_id]

    def _remember(self, execution: Execution) -> None:
        """Keep it for late outputs, within bounds; of large outputs only that they were there."""
        if execution.outputs.size > RECENT_EACH_BYTES:
            execution.outputs = Outputs(limit=0)
            execution.outputs.overflow = True
        self._recent[execution.execution_id] = execution
        held = sum(old.outputs.size for old in self._recent.values()) if len(self._recent) % 16 == 0 else 0
        while len(self._recent) > RECENT_EXECUTIONS or held > RECENT_BYTES:
            _, old = self._recent.popitem(last=False)
            held -= old.outputs.size
            if old.parent is not None and self._current.get(old.parent) is old:
                del self._current[old.parent]

    def _missed(self, execution: Execution, mark: Mark | None) -> int:
        """How many of the kernel's messages between an execution's busy and ``mark`` nobody saw."""
        missed = self._counter.missed(execution.mark_at_busy, mark)
        return missed if missed > (UNSEEN_STDIN if execution.request.client == "direct" else 0) else 0

    def _end_overtaken(self, newer: Execution, mark: Mark | None) -> None:
        """
        End direct executions whose idle was lost: the main shell runs one thing at a time.

        What the kernel began before ``newer`` was requested of the main shell is over once that runs. A
        direct request may have come on the control channel, beside which another runs; it counts as
        proof only where messages are known to be missing.
        """
        if newer.request.subshell or newer.request.channel == "control":
            return
        for older in list(self.pending.values()):
            request = older.request
            if older is newer or request.client != "direct" or request.subshell or not older.bound or older.idle_date:
                continue
            missed = self._missed(older, mark)
            began = microseconds(older.busy_date)
            waited = newer.request.channel == "shell" and began is not None and began < newer.request.received_us
            if missed or waited:
                older.iopub_missed = missed
                self._finish(older)


def _has_ended(execution: Execution) -> bool:
    """The kernel said idle, and the reply was seen or nobody will see one."""
    waits_for_reply = execution.request.client != "direct" and not execution.connection_closed
    return execution.idle_date is not None and (execution.reply_seen or not waits_for_reply)
