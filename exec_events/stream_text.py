"""
Stream messages' text goes in, the text JupyterLab saves for them comes out: ``\\r`` and ``\\b`` resolved.

The rules are those of ``Private.processText`` in JupyterLab's ``outputarea/model.ts`` (4.6). It keeps a
text and a cursor: characters overwrite at the cursor, ``\\n`` is appended at the end of the text and takes the
cursor there, ``\\r`` takes it to the start of the line, ``\\b`` deletes the character before it (never a
newline) *and the one under it*. So the cursor never leaves the last line, lines resolve independently
of each other, and the cursor inside a line can be written as text again (see `settle`).
"""

from __future__ import annotations

_PLAIN_CHUNKS = 1024
_SETTLE_AT = 256 * 1024
_CHUNK_COST = 64


def utf8_length(text: str) -> int:
    """The size of ``text`` as UTF-8, in bytes; a lone surrogate counts three."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def resolve(raw: str) -> str:
    """
    The text JupyterLab shows and saves for a stream that said ``raw``, however it was chunked.

    Idempotent: what comes out has neither ``\\r`` nor ``\\b``. Linear in the length of ``raw``.
    """
    if "\r" in raw:
        raw = raw.replace("\r\n", "\n")  # going back and then to a new line changes nothing
    if not _is_special(raw):
        return raw
    return "\n".join([_line(line)[0] if _is_special(line) else line for line in raw.split("\n")])


def settle(raw: str) -> tuple[str, str]:
    """
    Split ``raw`` in its finished lines, resolved, and a short text that continues as the rest would.

    For any ``more``: ``finished + resolve(rest + more) == resolve(raw + more)``. The line being written, with
    its cursor, is the line itself, a ``\\r``, and again the part of it before the cursor.
    """
    finished, newline, line = raw.rpartition("\n")
    if not _is_special(line):
        return resolve(finished) + newline, line
    text, before = _line(line)
    return resolve(finished) + newline, text if before == text else f"{text}\r{before}"


def _is_special(text: str) -> bool:
    return "\r" in text or "\b" in text


def _line(raw: str) -> tuple[str, str]:
    """One line without its newline, resolved, and the part of it before the cursor."""
    if raw.isascii() or max(raw) <= "\uffff":
        return _line_of_units(raw)
    # JavaScript counts UTF-16 code units: half of an astral character can be overwritten or deleted.
    units = raw.encode("utf-16-le", "surrogatepass")
    text, before = _line_of_units("".join([chr(unit) for unit in memoryview(units).cast("H")]))
    return _join_units(text), _join_units(before)


def _join_units(text: str) -> str:
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def _line_of_units(raw: str) -> tuple[str, str]:
    if "\b" in raw:
        return _line_with_backspaces(raw)
    # Each piece overwrites from the first column: a column shows the last piece that reached it.
    pieces = raw.split("\r")
    shown = [pieces[-1]]
    width = len(pieces[-1])
    for piece in reversed(pieces):
        if len(piece) > width:
            shown.append(piece[width:])
            width = len(piece)
    return "".join(shown), pieces[-1]


def _line_with_backspaces(raw: str) -> tuple[str, str]:
    """The general case with a gap buffer: what is left of the cursor, and, reversed, what is right of it."""
    left: list[str] = []
    right: list[str] = []
    for character in raw:
        if character == "\r":
            right.extend(reversed(left))
            left.clear()
        elif character != "\b":
            left.append(character)
            if right:
                right.pop()
        elif left:
            left.pop()
            if right:
                right.pop()
    before = "".join(left)
    return before + "".join(reversed(right)), before


class StreamText:
    """
    The text of one stream output, built from its messages; resolving it is put off as long as possible.

    ``size`` is what it holds, in bytes of UTF-8. Appending costs well under a microsecond; a stream that
    overwrites itself for hours holds what it shows and at most some hundred kilobytes more.
    """

    __slots__ = ("_chunks", "_finished", "_settle_at", "_special", "_unfinished", "_waiting", "size")

    def __init__(self) -> None:
        self.size = 0
        self._finished: list[str] = []  # resolved; what follows cannot change them
        self._unfinished: list[str] = []  # as they came, many joined to one
        self._chunks: list[str] = []  # as they came
        self._special = False
        self._waiting = 0
        self._settle_at = _SETTLE_AT

    def append(self, text: str, size: int) -> None:
        """Add a message's text; ``size`` is its `utf8_length`."""
        chunks = self._chunks
        chunks.append(text)
        self.size += size
        if self._special:
            self._waiting += len(text) + _CHUNK_COST
            if self._waiting >= self._settle_at:
                self._settle()
        elif "\r" in text or "\b" in text:
            self._special = True
            self._waiting = 0
        elif len(chunks) >= _PLAIN_CHUNKS:
            self._join_plain()

    def text(self) -> str:
        """What JupyterLab would save for all that was appended."""
        if not self._special:
            return "".join([*self._finished, *self._unfinished, *self._chunks])
        return "".join([*self._finished, resolve("".join([*self._unfinished, *self._chunks]))])

    def _join_plain(self) -> None:
        """Many small strings become one."""
        self._unfinished.append("".join(self._chunks))
        self._chunks.clear()

    def _settle(self) -> None:
        raw = "".join([*self._unfinished, *self._chunks])
        finished, line = settle(raw)
        self._finished.append(finished)
        self._unfinished = []
        self._chunks = [line]
        self._special = _is_special(line)
        self._waiting = 0
        self._settle_at = max(_SETTLE_AT, 2 * len(line))  # so that all settling together stays linear
        self.size += utf8_length(finished) + utf8_length(line) - utf8_length(raw)
