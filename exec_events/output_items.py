"""The content of one kernel message goes in, one output of a notebook comes out, or `Malformed` is raised."""

from __future__ import annotations

from typing import Any

import orjson

from .canonical_json import canonical_json
from .canonical_outputs import joined_body
from .stream_text import StreamText, utf8_length


class Malformed(Exception):
    """A message whose content is not what the protocol says."""


class StreamOutput:
    """Consecutive messages of one stream."""

    __slots__ = ("name", "text")

    def __init__(self, name: str) -> None:
        self.name = name
        self.text = StreamText()

    def nbformat(self) -> dict[str, Any]:
        """This output as nbformat 4 has it."""
        return {"output_type": "stream", "name": self.name, "text": self.text.text()}


class BundleOutput:
    """
    A display or a result: text bodies as they came, other JSON values as canonical bytes.

    Outputs that show one display are one object, in the list once for each, so that an update is one step.
    """

    __slots__ = ("bodies", "count", "kind", "metadata", "size", "times")

    def __init__(self, kind: str, content: dict[str, Any], size: int) -> None:
        self.kind = kind
        self.count = content.get("execution_count") if kind == "execute_result" else None
        self.times = 1
        self.bodies, self.metadata = _bodies(content), _metadata(content)
        self.size = max(size, _retained(self))

    def show(self, other: BundleOutput) -> None:
        """Take the content of an update."""
        self.bodies, self.metadata, self.size = other.bodies, other.metadata, other.size

    def nbformat(self) -> dict[str, Any]:
        """This output as nbformat 4 has it."""
        data = {mime: orjson.loads(body) if type(body) is bytes else body for mime, body in self.bodies.items()}
        output = {"output_type": self.kind, "data": data, "metadata": orjson.loads(self.metadata)}
        if self.kind == "execute_result":
            output["execution_count"] = self.count if type(self.count) is int else None
        return output


class ErrorOutput:
    """An exception as the kernel reported it."""

    __slots__ = ("ename", "evalue", "size", "traceback")

    def __init__(self, content: dict[str, Any]) -> None:
        self.ename, self.evalue, self.traceback = content.get("ename"), content.get("evalue"), content.get("traceback")
        lines = self.traceback
        if not (isinstance(lines, list) and all(type(part) is str for part in [self.ename, self.evalue, *lines])):
            raise Malformed
        self.size = sum(map(utf8_length, [self.ename, self.evalue, *lines]))

    def nbformat(self) -> dict[str, Any]:
        """This output as nbformat 4 has it."""
        return {"output_type": "error", "ename": self.ename, "evalue": self.evalue, "traceback": self.traceback}


def display_id_of(content: dict[str, Any]) -> str | None:
    """The display a message shows or updates, if it names one."""
    transient = content.get("transient")
    display_id = transient.get("display_id") if isinstance(transient, dict) else None
    return display_id if isinstance(display_id, str) and display_id else None


def _bodies(content: dict[str, Any]) -> dict[str, str | bytes]:
    data = content.get("data")
    if not isinstance(data, dict):
        raise Malformed
    return {mime: body if type(body) is str else _body(mime, body) for mime, body in data.items()}


def _body(mime: str, body: Any) -> str | bytes:
    joined = joined_body(mime, body)
    return joined if type(joined) is str else canonical_json(joined)


def _metadata(content: dict[str, Any]) -> bytes:
    metadata = content.get("metadata")
    if not metadata:
        return b"{}"
    if not isinstance(metadata, dict):
        raise Malformed
    return canonical_json(metadata)


def body_length(body: str | bytes) -> int:
    """The size of a body in bytes: text as UTF-8, other values as RFC 8785."""
    return len(body) if type(body) is bytes else utf8_length(str(body))


def _retained(bundle: BundleOutput) -> int:
    return len(bundle.metadata) + sum(len(mime) + body_length(body) for mime, body in bundle.bodies.items())


def strings(lines: Any) -> list[str]:
    """The lines, if that is what they are; raises `Malformed`."""
    if not (isinstance(lines, list) and all(isinstance(line, str) for line in lines)):
        raise Malformed
    return lines
