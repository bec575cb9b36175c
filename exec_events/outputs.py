"""
Kernel messages go in, the outputs a notebook would save for them come out, counted and bounded.

The rules are JupyterLab's (4.6): ``OutputAreaModel`` (``outputarea/model.ts``), ``OutputArea`` (``widget.ts``),
``OutputModel`` (``rendermime/outputmodel.ts``) and, for displays shown more than once, ``_handleDisplayId`` of the
kernel connection (``services/kernel/default.ts``). JSON values pass through `canonical_json`, so that numbers are what
JavaScript makes of them.
"""

from __future__ import annotations

from typing import Any

from .canonical_outputs import canonical_outputs
from .output_counts import ERROR_MIME, OutputCounts
from .output_items import BundleOutput, ErrorOutput, Malformed, StreamOutput, body_length, display_id_of, strings
from .stream_text import utf8_length

__all__ = ["Outputs", "canonical_outputs"]

_OUTPUT_OVERHEAD = 200
_BUNDLE_KINDS = frozenset({"display_data", "execute_result"})


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
        self._items: list[StreamOutput | BundleOutput | ErrorOutput] = []
        self._last: StreamOutput | None = None  # the stream that the next message may continue
        self._displays: dict[str, BundleOutput] = {}
        self._page: BundleOutput | None = None
        self._clear_next = False
        self._counts = OutputCounts()

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
                self._update(display_id_of(content), self._bundle("display_data", content, size))
            elif msg_type == "clear_output":
                self._clear_output(content)
        except (Malformed, AttributeError, TypeError):
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
        except (Malformed, AttributeError, TypeError):
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
            self._update(display_id, BundleOutput("display_data", content, 0))
        except (Malformed, AttributeError, TypeError):
            self.malformed += 1
        except (ValueError, RecursionError):
            self._overflow()
        return True

    def counts(self) -> list[dict[str, Any]]:
        """
        All bodies received, also cleared and replaced ones: the ``outputs`` of a ``cell_execution`` event.

        Rows ``{"kind", "mime", "count", "bytes"}`` sorted by kind and mime; at most 32 of a kind and 64 in all.
        """
        return self._counts.rows()

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
            raise Malformed
        if type(text) is not str:
            text = "\n".join(strings(text))  # with newlines: so does JupyterLab's Private.normalize
        size = utf8_length(text)
        self._counts.add("stream", name, size)
        if self.overflow:
            return
        stream = self._last
        if stream is None or stream.name != name or self._clear_next:
            stream = StreamOutput(name)
            if not self._append(stream, 0):
                return
            self._last = stream
        held = stream.text
        before = held.size
        held.append(text, size)
        self._charge(held.size - before)

    def _add_bundle(self, kind: str, content: dict[str, Any], size: int) -> None:
        bundle = self._bundle(kind, content, size)
        display_id = display_id_of(content)
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
        error = ErrorOutput(content)
        self._counts.add("error", ERROR_MIME, error.size)
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

    def _bundle(self, kind: str, content: dict[str, Any], size: int) -> BundleOutput:
        """The bundle of a message, counted."""
        bundle = BundleOutput(kind, content, size)
        for mime, body in bundle.bodies.items():
            self._counts.add(kind, mime, body_length(body))
        return bundle

    def _update(self, display_id: str | None, bundle: BundleOutput) -> BundleOutput | None:
        """Show ``bundle`` wherever this display is shown; returns the shown one."""
        shown = self._displays.get(display_id) if display_id is not None else None
        if shown is not None:
            self._charge((bundle.size - shown.size) * shown.times)
            shown.show(bundle)
        return shown

    def _append(self, item: StreamOutput | BundleOutput | ErrorOutput, size: int) -> bool:
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
