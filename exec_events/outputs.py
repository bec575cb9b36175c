"""
Kernel messages go in, the outputs a notebook would save for them come out, counted and bounded.

The rules are JupyterLab's (4.6): ``OutputAreaModel`` (``outputarea/model.ts``), ``OutputArea`` (``widget.ts``),
``OutputModel`` (``rendermime/outputmodel.ts``) and, for displays shown more than once, ``_handleDisplayId`` of the
kernel connection (``services/kernel/default.ts``). JSON values pass through `canonical_json`, so that numbers are what
JavaScript makes of them.
"""

from __future__ import annotations

import re
from itertools import groupby
from typing import Any

import orjson

from .canonical_json import canonical_json
from .stream_text import StreamText, resolve, utf8_length

ERROR_MIME = "application/vnd.jupyter.error"
TYPED_INPUT = "stdin"

_OUTPUT_OVERHEAD = 200
_MAX_ROWS = 64
_MAX_KIND_ROWS = 32
_STREAM_MIMES = frozenset({"stdout", "stderr"})
_BUNDLE_KINDS = frozenset({"display_data", "execute_result"})
_NAME = r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]*"
_MIME = re.compile(rf"(?:application|audio|font|image|message|model|multipart|text|video)/{_NAME}", re.ASCII)
_MAX_MIME = 128


class _Malformed(Exception):
    """A message whose content is not what the protocol says."""


class _Stream:
    """Consecutive messages of one stream."""

    __slots__ = ("name", "text")

    def __init__(self, name: str) -> None:
        self.name = name
        self.text = StreamText()

    def nbformat(self) -> dict[str, Any]:
        return {"output_type": "stream", "name": self.name, "text": self.text.text()}


class _Bundle:
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

    def show(self, other: _Bundle) -> None:
        """Take the content of an update; an updated output is a display, whatever it was."""
        self.kind, self.count = other.kind, other.count
        self.bodies, self.metadata, self.size = other.bodies, other.metadata, other.size

    def nbformat(self) -> dict[str, Any]:
        data = {mime: orjson.loads(body) if type(body) is bytes else body for mime, body in self.bodies.items()}
        output = {"output_type": self.kind, "data": data, "metadata": orjson.loads(self.metadata)}
        if self.kind == "execute_result":
            output["execution_count"] = self.count if type(self.count) is int else None
        return output


class _Error:
    """An exception as the kernel reported it."""

    __slots__ = ("ename", "evalue", "size", "traceback")

    def __init__(self, content: dict[str, Any]) -> None:
        self.ename, self.evalue, self.traceback = content.get("ename"), content.get("evalue"), content.get("traceback")
        lines = self.traceback
        if not (isinstance(lines, list) and all(type(part) is str for part in [self.ename, self.evalue, *lines])):
            raise _Malformed
        self.size = sum(map(utf8_length, [self.ename, self.evalue, *lines]))  # type: ignore[list-item]

    def nbformat(self) -> dict[str, Any]:
        return {"output_type": "error", "ename": self.ename, "evalue": self.evalue, "traceback": self.traceback}


class Outputs:
    """
    The outputs of one execution, built message by message; never raises for what a kernel says.

    Args:
        limit: how many bytes are retained at most.
        max_outputs: how many outputs (of the notebook, not messages) are retained at most.

    Attributes:
        size: bytes retained, for memory budgets.
        overflow: there was more than the limits allow, or JSON nested too deep: nothing is retained any
            more and there is no hash; `counts` go on.
        malformed: how many messages were skipped because their content was not what the protocol says.
        display_ids: the displays this execution shows now.
    """

    __slots__ = (
        "_clear_next",
        "_counts",
        "_displays",
        "_items",
        "_last",
        "_limit",
        "_max_outputs",
        "_page",
        "malformed",
        "overflow",
        "size",
    )

    def __init__(self, limit: int = 64 * 1024 * 1024, max_outputs: int = 100_000) -> None:
        self.size = 0
        self.overflow = False
        self.malformed = 0
        self._limit = limit
        self._max_outputs = max_outputs
        self._items: list[_Stream | _Bundle | _Error] = []
        self._last: _Stream | None = None  # the stream that the next message may continue
        self._displays: dict[str, _Bundle] = {}
        self._page: _Bundle | None = None
        self._clear_next = False
        self._counts: dict[tuple[str, str], list[int]] = {}

    @property
    def display_ids(self) -> set[str]:
        """The ``display_id`` of each display that an update would change here."""
        return set(self._displays)

    def add(self, msg_type: str, content: dict[str, Any], size: int) -> None:
        """
        Take one iopub message of this execution; other message types change nothing.

        A display or result with a ``display_id`` also updates what shows that display already: in this
        execution here, in others by the caller, with `update_display`.

        Args:
            msg_type: ``stream``, ``display_data``, ``execute_result``, ``error``, ``update_display_data`` or
                ``clear_output``.
            content: the message's content.
            size: its size on the wire in bytes: the least that a display or result is charged for.
        """
        try:
            if msg_type == "stream":
                self._add_stream(content)
            elif msg_type in _BUNDLE_KINDS:
                self._add_bundle(msg_type, content, size)
            elif msg_type == "error":
                self._add_error(content)
            elif msg_type == "update_display_data":
                self._update(_display_id(content), self._bundle("display_data", content, size))
            elif msg_type == "clear_output":
                self._clear_output(content)
        except (_Malformed, AttributeError, TypeError):
            self.malformed += 1
        except (ValueError, RecursionError):
            self._overflow()

    def add_payload(self, reply_content: dict[str, Any]) -> None:
        """
        Take the content of the execute_reply: its first ``page`` payload (``name?`` in IPython) is an output.

        It comes after all others, as the kernel replies last; messages and reply reach us by two sockets.
        """
        try:
            if reply_content.get("status") != "ok" or self._page is not None:
                return
            pages = [item for item in reply_content.get("payload") or () if item.get("source") == "page"]
            if not pages:
                return
            page = self._bundle("display_data", {"data": pages[0].get("data")}, 0)
            self._page = page
            self._charge(page.size + _OUTPUT_OVERHEAD)
        except (_Malformed, AttributeError, TypeError):
            self.malformed += 1
        except (ValueError, RecursionError):
            self._overflow()

    def update_display(self, display_id: str, content: dict[str, Any]) -> bool:
        """
        Update a display from a message of another execution; True when this one shows that display.

        Not counted: the message is not this execution's.
        """
        if not isinstance(display_id, str) or display_id not in self._displays:
            return False
        try:
            self._update(display_id, _Bundle("display_data", content, 0))
        except (_Malformed, AttributeError, TypeError):
            self.malformed += 1
        except (ValueError, RecursionError):
            self._overflow()
        return True

    def counts(self) -> list[dict[str, Any]]:
        """
        All bodies received, also cleared and replaced ones: the ``outputs`` of a ``cell_execution`` event.

        Rows ``{"kind", "mime", "count", "bytes"}`` sorted by kind and mime; at most 32 of a kind and 64 in all.
        """
        rows = dict(self._counts)
        surplus = len(rows) - _MAX_ROWS
        if surplus > 0:
            _fold(rows, surplus)
        return [
            {"kind": kind, "mime": mime, "count": count, "bytes": size}
            for (kind, mime), (count, size) in sorted(rows.items())
        ]

    def nbformat(self) -> list[dict[str, Any]]:
        """
        The outputs as nbformat 4 dicts, with multi-line strings joined and stream text resolved.

        Raises:
            ValueError: after `overflow` there is nothing to show.
        """
        if self.overflow:
            raise ValueError("these outputs were more than is kept, so they cannot be shown or hashed")
        items = [] if self._clear_next and self._page else self._items
        return [item.nbformat() for item in [*items, *([self._page] if self._page else [])]]

    def _add_stream(self, content: dict[str, Any]) -> None:
        name, text = content.get("name"), content.get("text")
        if type(name) is not str:
            raise _Malformed
        if type(text) is not str:
            text = "\n".join(_strings(text))  # with newlines: so does JupyterLab's Private.normalize
        size = utf8_length(text)
        self._count("stream", name if name in _STREAM_MIMES else "other", size)
        if self.overflow:
            return
        stream = self._last
        if stream is None or stream.name != name or self._clear_next:
            stream = _Stream(name)
            if not self._append(stream, 0):
                return
            self._last = stream
        held = stream.text
        before = held.size
        held.append(text, size)
        self._charge(held.size - before)

    def _add_bundle(self, kind: str, content: dict[str, Any], size: int) -> None:
        bundle = self._bundle(kind, content, size)
        display_id = _display_id(content)
        if self.overflow:
            return
        if display_id is None:
            self._append(bundle, bundle.size)
            return
        if self._clear_next:
            self._clear()
        shown = self._update(display_id, bundle)
        if kind == "execute_result":  # JupyterLab does not update results later
            self._append(bundle, bundle.size)
        elif shown is not None:
            shown.times += 1
            self._append(shown, shown.size)
        else:
            self._displays[display_id] = bundle
            self._append(bundle, bundle.size + len(display_id))  # after: an overflow forgets the display

    def _add_error(self, content: dict[str, Any]) -> None:
        error = _Error(content)
        self._count("error", ERROR_MIME, error.size)
        self._append(error, error.size)

    def _clear_output(self, content: dict[str, Any]) -> None:
        self._last = None
        if content.get("wait"):
            self._clear_next = True
        else:
            self._clear()

    def _clear(self) -> None:
        self._items = []
        self._displays = {}
        self._last = None
        self._clear_next = False
        self.size = self._page.size + _OUTPUT_OVERHEAD if self._page else 0

    def _bundle(self, kind: str, content: dict[str, Any], size: int) -> _Bundle:
        """The bundle of a message, counted."""
        bundle = _Bundle(kind, content, size)
        for mime, body in bundle.bodies.items():
            self._count(kind, mime, _length(body))
        return bundle

    def _update(self, display_id: str | None, bundle: _Bundle) -> _Bundle | None:
        """Show ``bundle`` wherever this display is shown; returns the shown one."""
        shown = self._displays.get(display_id) if display_id is not None else None
        if shown is not None:
            self._charge((bundle.size - shown.size) * shown.times)
            shown.show(bundle)
            shown.kind, shown.count = "display_data", None
        return shown

    def _append(self, item: _Stream | _Bundle | _Error, size: int) -> bool:
        """Add an output; False when that was too much, now or earlier."""
        if self._clear_next:
            self._clear()
        self._last = None
        if len(self._items) >= self._max_outputs:
            self._overflow()
        if not self.overflow:
            self._items.append(item)
            self._charge(size + _OUTPUT_OVERHEAD)
        return not self.overflow

    def _charge(self, size: int) -> None:
        if self.overflow:
            return
        self.size += size
        if self.size > self._limit:
            self._overflow()

    def _overflow(self) -> None:
        self.overflow = True
        self._page = None
        self._clear()

    def _count(self, kind: str, mime: str, size: int) -> None:
        row = self._counts.get((kind, mime))
        if row is None:
            row = self._new_row(kind, mime)
        row[0] += 1
        row[1] += size

    def _new_row(self, kind: str, mime: str) -> list[int]:
        named = sum(of == kind and name != "other" for of, name in self._counts)
        plain = kind not in _BUNDLE_KINDS or (len(mime) <= _MAX_MIME and _MIME.fullmatch(mime))
        if not plain or named >= _MAX_KIND_ROWS - 1:
            mime = "other"
        return self._counts.setdefault((kind, mime), [0, 0])


def _display_id(content: dict[str, Any]) -> str | None:
    transient = content.get("transient")
    display_id = transient.get("display_id") if isinstance(transient, dict) else None
    return display_id if isinstance(display_id, str) and display_id else None


def _bodies(content: dict[str, Any]) -> dict[str, str | bytes]:
    data = content.get("data")
    if not isinstance(data, dict):
        raise _Malformed
    return {mime: body if type(body) is str else _body(mime, body) for mime, body in data.items()}


def _body(mime: str, body: Any) -> str | bytes:
    joined = _joined(mime, body)
    return joined if type(joined) is str else canonical_json(joined)


def _joined(mime: str, body: Any) -> Any:
    """A body that nbformat would join when it reads a notebook, joined; any other as it is."""
    if isinstance(body, list) and not _is_json(mime) and all(isinstance(line, str) for line in body):
        return "".join(body)
    return body


def _is_json(mime: str) -> bool:
    """nbformat's rule (``v4/rwbase.py``): these values are never joined."""
    return mime == "application/json" or (mime.startswith("application/") and mime.endswith("+json"))


def _metadata(content: dict[str, Any]) -> bytes:
    metadata = content.get("metadata")
    if not metadata:
        return b"{}"
    if not isinstance(metadata, dict):
        raise _Malformed
    return canonical_json(metadata)


def _length(body: str | bytes) -> int:
    return len(body) if type(body) is bytes else utf8_length(str(body))


def _retained(bundle: _Bundle) -> int:
    return len(bundle.metadata) + sum(len(mime) + _length(body) for mime, body in bundle.bodies.items())


def _strings(lines: Any) -> list[str]:
    if not (isinstance(lines, list) and all(isinstance(line, str) for line in lines)):
        raise _Malformed
    return lines


def _fold(rows: dict[tuple[str, str], list[int]], surplus: int) -> None:
    """Fold the last ``surplus`` rows of results in their row "other"."""
    named = sorted(row for row in rows if row[0] == "execute_result" and row[1] != "other")
    if ("execute_result", "other") not in rows:
        surplus += 1
    count, size = rows.get(("execute_result", "other"), (0, 0))
    for row in named[-surplus:]:
        more = rows.pop(row)
        count, size = count + more[0], size + more[1]
    rows["execute_result", "other"] = [count, size]


def canonical_outputs(outputs: list[dict[str, Any]]) -> list[Any]:
    """
    The form of outputs that is hashed, from `Outputs.nbformat` or from a cell of a saved notebook.

    Multi-line lists are joined; consecutive messages of a stream are joined and resolved; then, in each run of
    stream outputs, the text of each name is joined, names sorted, empty ones left out: how a kernel cuts and
    interleaves its streams does not matter. Only what is shown stays: ``output_type`` with ``name`` and ``text``, or
    ``data`` and ``metadata``, or ``ename``, ``evalue`` and ``traceback``. ``stdin`` streams, which JupyterLab adds for
    what was typed, are left out: the kernel did not say them. What is no output of nbformat 4 stays as it is.
    Idempotent.
    """
    canonical: list[Any] = []
    for is_stream, group in groupby(map(_canonical_output, outputs), _is_stream):
        run = list(group)
        canonical += _canonical_streams(run) if is_stream else run
    return canonical


def _canonical_output(output: Any) -> Any:
    kind = output.get("output_type") if isinstance(output, dict) else None
    if kind == "stream":
        text = output.get("text")
        if isinstance(text, list) and all(isinstance(line, str) for line in text):
            text = "".join(text)
        return {"output_type": kind, "name": output.get("name"), "text": text}
    if kind in ("display_data", "execute_result"):
        data = output.get("data")
        if isinstance(data, dict):
            data = {mime: _joined(str(mime), body) for mime, body in data.items()}
        return {"output_type": kind, "data": data, "metadata": output.get("metadata") or {}}
    if kind == "error":
        return {"output_type": kind, **{key: output.get(key) for key in ("ename", "evalue", "traceback")}}
    return output


def _is_stream(output: Any) -> bool:
    return (
        isinstance(output, dict)
        and output.get("output_type") == "stream"
        and isinstance(output["name"], str)
        and isinstance(output["text"], str)
    )


def _canonical_streams(run: list[dict[str, Any]]) -> list[dict[str, Any]]:
    texts: dict[str, list[str]] = {}
    for name, parts in groupby(run, lambda stream: str(stream["name"])):
        if name != TYPED_INPUT:
            texts.setdefault(name, []).append(resolve("".join([part["text"] for part in parts])))
    joined = {name: "".join(texts[name]) for name in sorted(texts)}
    return [{"output_type": "stream", "name": name, "text": text} for name, text in joined.items() if text]
