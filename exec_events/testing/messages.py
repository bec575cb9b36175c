"""Kernel messages as a browser sends and receives them: frames of both websocket protocols, and results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson
from jupyter_server.services.kernels.connection.base import (
    deserialize_binary_message,
    deserialize_msg_from_ws_v1,
    serialize_binary_message,
    serialize_msg_to_ws_v1,
)

V1 = "v1.kernel.websocket.jupyter.org"
LEGACY = ""

OUTPUT_TYPES = frozenset(["stream", "display_data", "execute_result", "error", "update_display_data", "clear_output"])

# {"channel", "header", "parent_header", "metadata", "content", "buffers"}
Message = dict[str, Any]


@dataclass(slots=True)
class Result:
    """What came of one execute_request, as its client saw it."""

    msg_id: str
    sent_at: float
    reply: Message | None = field(default=None, repr=False)
    messages: list[Message] = field(default_factory=list, repr=False)
    idle: bool = False
    lost: str | None = None
    done_at: float | None = None

    @property
    def status(self) -> str:
        """``ok``, ``error`` or ``aborted`` as replied; ``lost`` when the kernel or the websocket went away."""
        if self.reply is None:
            return "lost"
        return str(self.reply["content"]["status"])

    @property
    def execution_count(self) -> int | None:
        """The kernel's counter, from the reply."""
        return None if self.reply is None else self.reply["content"].get("execution_count")

    @property
    def outputs(self) -> list[Message]:
        """The messages that change a cell's outputs, in order."""
        return [message for message in self.messages if message["header"]["msg_type"] in OUTPUT_TYPES]

    @property
    def text(self) -> str:
        """All that was written to stdout and stderr."""
        return "".join(m["content"]["text"] for m in self.messages if m["header"]["msg_type"] == "stream")

    @property
    def seconds(self) -> float:
        """From sending the request to having both reply and idle."""
        if self.done_at is None:
            raise ValueError(f"execution {self.msg_id} is not over")
        return self.done_at - self.sent_at


def header(msg_type: str, msg_id: str, session: str, **more: Any) -> dict[str, Any]:
    """A header as JupyterLab 4 makes it."""
    date = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    made = {"date": date, "msg_id": msg_id, "msg_type": msg_type, "session": session, "username": "", "version": "5.2"}
    return {**made, **more}


def encode(message: Message, subprotocol: str, buffers: Sequence[bytes] = ()) -> bytes | str:
    """The websocket frame of a message: bytes (v1, or legacy with buffers) or text (legacy)."""
    if subprotocol == V1:
        parts = [orjson.dumps(message[key]) for key in ("header", "parent_header", "metadata", "content")]
        frame: bytes = serialize_msg_to_ws_v1([*parts, *buffers], message["channel"])
        return frame
    if buffers:
        binary: bytes = serialize_binary_message({**message, "buffers": list(buffers)})
        return binary
    return json.dumps(message)


def decode(frame: bytes | str, subprotocol: str) -> Message:
    """The message of a websocket frame."""
    if isinstance(frame, str):
        text: Message = json.loads(frame)
        text.setdefault("buffers", [])
        return text
    if subprotocol == V1:
        channel, parts = deserialize_msg_from_ws_v1(frame)
        head, parent, metadata, content = (_loads(part) for part in parts[:4])
        return {
            "channel": channel,
            "header": head,
            "parent_header": parent,
            "metadata": metadata,
            "content": content,
            "buffers": parts[4:],
        }
    binary: Message = deserialize_binary_message(frame)
    return binary


def _loads(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        # NaN and lone surrogates are legal to Python's json, which most kernels use.
        return json.loads(data)
