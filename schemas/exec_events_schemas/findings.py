"""What verification finds: each finding names a record by chain and seq, and says what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What is wrong."""

    CHANGED = "changed"
    MISSING = "missing"
    FRONT_MISSING = "front missing"
    TAIL_CUT = "tail cut"
    REORDERED = "reordered"
    FORK = "fork"
    ADDED = "added after the end"
    MALFORMED = "malformed"
    BROKEN_LINK = "broken link"
    RECORDER_MISSING = "recorder chain missing"
    DAMAGED = "damaged"


@dataclass(frozen=True, slots=True)
class Finding:
    """
    One broken record.

    ``chain`` and ``seq`` name it, None where what is broken cannot be named so. It shows at row or
    line ``position`` of ``file``: for what is missing, that is the record that gives it away. ``what``
    is a sentence without its subject and full stop.
    """

    kind: Kind
    chain: str | None
    seq: int | None
    file: str
    position: int
    what: str

    def __str__(self) -> str:
        """The finding as one line for a person."""
        place = f"{self.file}, at {self.position}"
        name = place if self.chain is None else f"chain {self.chain} seq {self.seq}"
        return f"{name}: {self.kind}: {self.what}" + ("" if self.chain is None else f" ({place})")


@dataclass(frozen=True, slots=True)
class Note:
    """What is not wrong but should be known: of one recorder, or of all that was read (None)."""

    recorder_id: str | None
    what: str

    def __str__(self) -> str:
        """The note as one line for a person."""
        return self.what if self.recorder_id is None else f"recorder {self.recorder_id}: {self.what}"


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a verification; ``duplicates`` are records that came again, byte by byte the same."""

    records: int
    duplicates: int
    chains: int
    recorders: int
    findings: tuple[Finding, ...]
    notes: tuple[Note, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings
