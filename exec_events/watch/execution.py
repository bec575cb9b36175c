"""What is known of one execution while it runs: the request as sent, and all that came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import orjson

from exec_events.outputs import Outputs

from .counter import Mark

# Beyond this many bytes of unparsed messages they are folded into outputs at once, on the event loop.
FOLD_BYTES = 16 * 1024 * 1024

Client = Literal["websocket", "direct", "in_process"]
Channel = Literal["shell", "control", "unknown"]
Status = Literal[
    "ok",
    "error",
    "aborted",
    "interrupted",
    "kernel_died",
    "kernel_restarted",
    "kernel_shut_down",
    "recorder_stopped",
    "unknown",
]


@dataclass(frozen=True, slots=True)
class Identity:
    """A user's name and how it is known; see ``subject_from`` in the schema."""

    name: str
    origin: Literal["request", "kernel_starter", "server_account"]


@dataclass(frozen=True, slots=True)
class Request:
    """
    An execute_request as the recorder saw it pass, or as far as a direct one can be known.

    ``code`` is None when it was not seen; ``received_us`` is the server's clock, microseconds since
    the epoch.
    """

    msg_id: str
    client: Client
    channel: Channel
    received_us: int
    code: str | None = None
    silent: bool = False
    store_history: bool = True
    user_expressions: dict[str, Any] = field(default_factory=dict)
    cell_id: str | None = None
    subshell: bool = False
    identity: Identity | None = None
    notebook: str | None = None


class ParentKey(NamedTuple):
    """What a parent header says of the execute_request it stands for."""

    session: str
    msg_id: str
    subshell: bool


@dataclass(slots=True)
class Execution:
    """
    One execution, mutable while its messages come in.

    Output messages are kept as they came until somebody asks for `folded` outputs: most of them never
    cost the event loop a parse. Dates are those in the kernel's message headers, as sent; loop times are
    the event loop's clock, in seconds.
    """

    execution_id: str
    request: Request
    outputs: Outputs
    msg_id_reused: bool = False
    base: dict[str, Any] = field(default_factory=dict)
    chain: str = ""
    bound: bool = False
    parent: ParentKey | None = None
    busy_date: str | None = None
    idle_date: str | None = None
    input_code: str | None = None
    execution_count: int | None = None
    error_name: str | None = None
    reply_status: str | None = None
    interrupted: bool = False
    ending: Status | None = None
    begun: bool = False
    over: bool = False
    unrecorded: bool = False  # its subject has not agreed to be recorded
    last_message_at: float = 0.0
    idle_at: float = 0.0
    replied_at: float = 0.0
    mark_at_busy: Mark | None = None
    iopub_missed: int = 0
    connection_closed: bool = False
    raw: list[tuple[str, bytes, int]] = field(default_factory=list)
    raw_bytes: int = 0
    payload: dict[str, Any] | None = None
    late: Outputs | None = None
    late_cause: Literal["output", "display_update"] = "output"
    late_due: float = 0.0

    def keep(self, kind: str, content: bytes, size: int) -> None:
        """Keep one output message; ``kind`` "" is another execution's update of a display."""
        self.raw.append((kind, content, size))
        self.raw_bytes += size
        if self.raw_bytes > FOLD_BYTES:
            self.folded()

    def folded(self) -> Outputs:
        """The outputs of all messages so far; takes time with their size."""
        raw, self.raw, self.raw_bytes = self.raw, [], 0
        for kind, content, size in raw:
            parsed = parse_object(content)
            if kind:
                self.outputs.add(kind, parsed, size)
            elif (display_id := display_id_of(parsed)) is not None:
                self.outputs.update_display(display_id, parsed)
        if self.payload is not None:
            self.outputs.add_payload(self.payload)
            self.payload = None
        return self.outputs

    @property
    def iopub_seen(self) -> bool:
        """The kernel was heard saying busy and idle for it."""
        return self.busy_date is not None and self.idle_date is not None

    @property
    def reply_seen(self) -> bool:
        """The execute_reply was seen passing."""
        return self.reply_status is not None

    def status(self) -> Status:
        """How it ended; a failure while its kernel was being restarted or shut down is that kernel's end."""
        status = self._status()
        return self.ending if self.ending is not None and status not in ("ok", "unknown") else status

    def _status(self) -> Status:
        """How it ended, from the reply, or from iopub where the reply was not seen."""
        if self.reply_status is not None:
            if self.reply_status == "error":
                return "interrupted" if self.interrupted else "error"
            return "aborted" if self.reply_status in ("aborted", "abort") else "ok"
        if self.error_name is not None:
            return "interrupted" if self.interrupted else "error"
        if self.input_code is not None:
            return "ok"
        if self.request.client != "direct" and not self.request.silent:
            return "aborted"  # a kernel that runs code says execute_input first, unless silent
        return "unknown"


def parse_object(content: bytes) -> dict[str, Any]:
    """A message's content; {} when it is no JSON object."""
    try:
        value = orjson.loads(content)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def display_id_of(content: dict[str, Any]) -> str | None:
    """The display_id in the transient part of a display's content."""
    transient = content.get("transient")
    display_id = transient.get("display_id") if isinstance(transient, dict) else None
    return display_id if isinstance(display_id, str) else None
