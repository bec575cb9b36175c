"""Bodies of a source in, what became of a commitment out: its body, or that it was erased or refused."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from typing import Any

import orjson

from .errors import MalformedRecord
from .record import event_of
from .sources.stored import OnDamage, Source, refuse_damage

# Members of an event that name a body -> what the body is.
COMMITMENTS = {"code_commitment": "code", "outputs_commitment": "outputs"}
_MARK = b'_commitment":"sha256:'
# Between this and the disk is SQLite's own cache, of a few megabytes.
_DDL = "CREATE TABLE bodies (commitment TEXT PRIMARY KEY, body BLOB, refused TEXT) WITHOUT ROWID"
_ASKED_AT_ONCE = 500


class Contents:
    """
    The bodies of a source by their commitments, in a temporary database that goes when this is closed.

    Made from all bodies there are, which is when damage among them is met; raises SourceError.
    """

    def __init__(self, source: Source, on_damage: OnDamage = refuse_damage) -> None:
        self._coming = source.contents(on_damage)
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.execute(_DDL)
        self._read_on()

    def close(self) -> None:
        """Let go of the database, and of the source."""
        self._database.close()

    def of(self, records: Collection[bytes]) -> list[dict[str, Any] | None]:
        """
        For each record what became of the bodies it names, None where it names none.

        As JSON values: ``{"code": {"body": "…"} | {"erased": true} | {"refused": "why"}, "outputs": …}``, where
        the body of outputs is parsed. A body that is nowhere was erased. Raises SourceError.
        """
        named = [_commitments(record) for record in records]
        asked = {commitment for names in named for commitment in names.values()}
        found = self._find(asked)
        if len(found) < len(asked):
            # A record that came after the bodies were read may have its body behind them.
            self._read_on()
            found |= self._find(asked - found.keys())
        gone: dict[str, Any] = {"erased": True}
        return [
            {kind: _told(kind, *found[name]) if name in found else gone for kind, name in names.items()} or None
            for names in named
        ]

    def _read_on(self) -> None:
        self._database.execute("BEGIN")
        for content in self._coming:
            if content is None:
                break
            row = (content.commitment, content.body, content.refused)
            self._database.execute("INSERT OR REPLACE INTO bodies VALUES (?, ?, ?)", row)
        self._database.execute("COMMIT")

    def _find(self, commitments: Collection[str]) -> dict[str, tuple[bytes | None, str | None]]:
        found: dict[str, tuple[bytes | None, str | None]] = {}
        asked = list(commitments)
        for at in range(0, len(asked), _ASKED_AT_ONCE):
            part = asked[at : at + _ASKED_AT_ONCE]
            query = f"SELECT * FROM bodies WHERE commitment IN ({', '.join('?' * len(part))})"  # noqa: S608
            found |= {name: (body, refused) for name, body, refused in self._database.execute(query, part)}
        return found


def _commitments(record: bytes) -> dict[str, str]:
    """What a record commits to: the kind of each body, and its commitment."""
    if _MARK not in record:
        return {}
    try:
        event = event_of(record)
    except MalformedRecord:
        return {}
    return {kind: str(event[member]) for member, kind in COMMITMENTS.items() if member in event}


def _told(kind: str, body: bytes | None, refused: str | None) -> dict[str, Any]:
    if body is None:
        return {"erased": True} if refused is None else {"refused": refused}
    if kind == "outputs":
        try:
            return {"body": orjson.loads(body)}
        except ValueError:
            pass  # told as the text it is
    return {"body": body.decode("utf-8", "replace")}
