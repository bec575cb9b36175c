"""Of a part of the record, what lies outside is no finding, and what is inside is checked as ever."""

from __future__ import annotations

import pytest

from exec_events_schemas import claims
from exec_events_schemas.chain import Verifier
from exec_events_schemas.findings import Kind, Report
from exec_events_schemas.record import leaf_hash, seal_of
from exec_events_schemas.sources import StoredRecord
from spool_files import FIRST, SECOND, Recording, chain_of, two_recorders

Rows = list[StoredRecord]
CHAIN, OTHER = chain_of(FIRST, 0), chain_of(FIRST, 1)


def verify(rows: Rows, *, partial: bool = True) -> Report:
    """The report on these rows."""
    verifier = Verifier(partial=partial)
    for row in rows:
        verifier.add(row)
    return verifier.finish()


def log() -> Rows:
    """Two recorders' records, one after the other."""
    first, second = two_recorders(12)
    return first.rows + second.rows


def of(rows: Rows, *chains: str) -> Rows:
    """The records of these chains."""
    return [row for row in rows if seal_of(row.record).chain in chains]


def without(rows: Rows, chain: str, seq: int) -> Rows:
    """All records but this one."""
    return [row for row in rows if (s := seal_of(row.record)).chain != chain or s.seq != seq]


@pytest.mark.parametrize(
    "rows",
    [of(log(), CHAIN), of(log(), FIRST), of(log(), SECOND), of(log(), CHAIN, SECOND), log()[9:], log()[15:], []],
    ids=["a chain", "a recorder", "its successor", "some of each", "a later part", "much later", "nothing"],
)
def test_what_is_outside_is_no_finding(rows: Rows) -> None:
    """A missing front, a missing recorder and heads of chains that were not read are none; a note says why."""
    report = verify(rows)
    assert report.findings == ()
    assert "only a part" in str(report.notes[0])
    if rows:
        assert not verify(rows, partial=False).ok


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        (without(of(log(), CHAIN), CHAIN, 3), (Kind.MISSING, 3)),
        ([*of(log(), CHAIN)[:2], *reversed(of(log(), CHAIN)[2:4]), *of(log(), CHAIN)[4:]], (Kind.REORDERED, 2)),
        (without(of(log(), CHAIN, FIRST), CHAIN, 5), (Kind.TAIL_CUT, 5)),
        (without(without(log()[6:], CHAIN, 5), OTHER, 99), (Kind.TAIL_CUT, 5)),
    ],
    ids=["a gap", "out of order", "a cut tail", "a cut tail of a later part"],
)
def test_what_is_inside_is_checked(rows: Rows, found: tuple[Kind, int]) -> None:
    """A gap, another order and a cut tail are found in a part, too."""
    assert {(finding.kind, finding.seq) for finding in verify(rows).findings} == {found}


def test_changes_and_forks_in_a_part() -> None:
    """A changed record of a part, and a second one of its chain and seq, are found."""
    rows = of(log(), CHAIN)
    changed = rows[2]._replace(record=rows[2].record.replace(b'"trust":"server"', b'"trust":"xerver"'))
    assert {finding.kind for finding in verify([*rows[:2], changed, *rows[3:]]).findings} == {Kind.CHANGED}
    other = Recording(FIRST)
    for _ in range(3):
        other.execute(0, status="error")
    assert {finding.kind for finding in verify([*rows, other.rows[2]]).findings} == {Kind.FORK}


def test_order_is_that_of_one_file() -> None:
    """Chains that go on in another partition, because a topic was given more of them, are read in any order."""
    old = [row._replace(file="events/0") for row in log()[:9]]
    new = [row._replace(file="events/7") for row in log()[9:]]
    assert verify(new + old, partial=False).ok


def test_what_is_awaited() -> None:
    """A record that was named, and a recorder of whom nothing is here yet, may be on their way; not outside a part."""
    rows = log()
    for partial in (False, True):
        verifier = Verifier(partial=partial)
        for row in without(rows, CHAIN, 5):
            verifier.add(row)
        assert verifier.awaits()
        verifier.add(*(row for row in of(rows, CHAIN) if seal_of(row.record).seq == 5))
        assert not verifier.awaits()
    for partial in (False, True):
        verifier = Verifier(partial=partial)
        for row in of(rows, CHAIN):
            verifier.add(row)
        assert verifier.awaits() is not partial


def test_what_is_said_again_and_again_is_kept_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The heads of chains that are read later take the memory of what differs, and are let go of once they are here."""
    monkeypatch.setattr(claims, "SWEEP_AT", 10)
    recording = Recording(FIRST)
    recording.say("started")
    for subject in range(8):
        recording.execute(subject)
    for _ in range(50):
        recording.say("heartbeat")
    recording.execute(0)
    verifier = Verifier()
    for row in of(recording.rows, FIRST):
        verifier.add(row)
    assert len(verifier._claims) == 8
    for row in recording.rows:
        verifier.add(row)
    report = verifier.finish()
    assert report.ok
    assert len(verifier._claims) == 0


def test_nothing_is_expected_beyond_the_first_look() -> None:
    """Once it was asked what is awaited, what comes names nothing that must come too; a contradiction is still found."""
    first, second = two_recorders(12)
    began = len(first.rows) - 1
    for changed in (False, True):
        verifier = Verifier()
        for row in first.rows[:began]:
            verifier.add(row)
        verifier.awaits()
        rows = [first.rows[began], *of(second.rows, chain_of(SECOND, 0))]
        if changed:
            rows.append(_resealed(of(first.rows, OTHER)[0]))
        for row in rows:
            verifier.add(row)
        assert verifier.finish().ok is not changed


def _resealed(row: StoredRecord) -> StoredRecord:
    record = row.record.replace(b'"status":"ok"', b'"status":"error"')
    return row._replace(record=record, hash=leaf_hash(record))
