"""Verification finds every change to a log of sealed records, and names the record."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exec_events_schemas.chain import Verifier
from exec_events_schemas.findings import Kind, Report
from exec_events_schemas.record import Head, event_of, leaf_hash, seal, seal_of
from exec_events_schemas.sources import Damage, StoredRecord
from spool_files import FIRST, SECOND, Recording, chain_of, execution, heads, two_recorders

Rows = list[StoredRecord]
CHAIN = chain_of(FIRST, 0)
OTHER = chain_of(FIRST, 1)


def verify(rows: Rows, running: frozenset[str] = frozenset()) -> Report:
    """The report on these rows."""
    verifier = Verifier()
    for row in rows:
        verifier.add(row)
    return verifier.finish(running)


def log() -> Rows:
    """Two recorders' records; the first has CHAIN and OTHER with seq 0 to 2, heartbeats after 3 and 6, a stop."""
    first, second = two_recorders()
    return first.rows + second.rows


def index_of(rows: Rows, chain: str, seq: int) -> int:
    """Where the record is among the rows."""
    return next(i for i, row in enumerate(rows) if (s := seal_of(row.record)).chain == chain and s.seq == seq)


def resealed(row: StoredRecord, record: bytes) -> StoredRecord:
    """Another record in a row's place, with the hash that fits it."""
    return row._replace(record=record, hash=leaf_hash(record))


def broken(report: Report) -> set[tuple[Kind, str | None, int | None]]:
    """What was found, without where it shows."""
    return {(finding.kind, finding.chain, finding.seq) for finding in report.findings}


def test_a_whole_log_is_in_order() -> None:
    """An untouched log of two recorders verifies, and nothing is to be noted of it."""
    report = verify(log())
    assert report.ok
    assert not report.notes
    assert (report.records, report.chains, report.recorders, report.duplicates) == (len(log()), 6, 2, 0)


def test_the_order_between_chains_is_free() -> None:
    """Chains may come one after the other, as partitions of a topic do."""
    rows = sorted(log(), key=lambda row: seal_of(row.record).chain, reverse=True)
    assert verify(rows).ok


def test_a_record_that_comes_again_is_counted_not_blamed() -> None:
    """A batch delivered twice is duplicates, which are no findings."""
    rows = log()
    report = verify(rows[:6] + rows[2:])
    assert report.ok
    assert report.duplicates == 4


@pytest.mark.parametrize("seq", [0, 1, 2])
@pytest.mark.parametrize("chain", [CHAIN, OTHER, FIRST, chain_of(SECOND, 0)])
def test_a_changed_byte_is_found(chain: str, seq: int) -> None:
    """One changed byte of a record is one finding, which names it."""
    rows = log()
    at = index_of(rows, chain, seq)
    rows[at] = rows[at]._replace(record=rows[at].record.replace(b'"trust":"server"', b'"trust":"xerver"'))
    assert broken(verify(rows)) == {(Kind.CHANGED, chain, seq)}


@pytest.mark.parametrize("seq", [0, 1, 2])
def test_a_change_with_the_stored_hash_made_to_fit_is_found(seq: int) -> None:
    """Where the stored hash was changed too, the next record or a head gives it away."""
    rows = log()
    at = index_of(rows, CHAIN, seq)
    rows[at] = resealed(rows[at], rows[at].record.replace(b'"status":"ok"', b'"status":"error"'))
    assert broken(verify(rows)) == {(Kind.CHANGED, CHAIN, seq)}


def test_a_changed_stored_hash_is_found() -> None:
    """A stored hash that was changed alone is found too."""
    rows = log()
    at = index_of(rows, CHAIN, 1)
    rows[at] = rows[at]._replace(hash=b"\x00" * 32)
    assert broken(verify(rows)) == {(Kind.CHANGED, CHAIN, 1)}


def test_a_dropped_record_is_found() -> None:
    """A gap names the first seq that is not there."""
    rows = log()
    del rows[index_of(rows, CHAIN, 1)]
    assert broken(verify(rows)) == {(Kind.MISSING, CHAIN, 1)}


def test_swapped_records_are_found() -> None:
    """Two records of a chain in the wrong order: the late one is named, and nothing is missing."""
    rows = log()
    one, two = index_of(rows, CHAIN, 1), index_of(rows, CHAIN, 2)
    rows[one], rows[two] = rows[two], rows[one]
    assert broken(verify(rows)) == {(Kind.REORDERED, CHAIN, 1)}


def test_an_inserted_record_is_a_fork() -> None:
    """A record put between two, linked to the first of them, has the seq of the second."""
    rows = log()
    at = index_of(rows, CHAIN, 1)
    before = Head(0, leaf_hash(rows[index_of(rows, CHAIN, 0)].record))
    record, head = seal(execution(FIRST, 0, 99), CHAIN, before)
    rows.insert(at + 1, StoredRecord(record, head.hash, "f", 99))
    assert broken(verify(rows)) == {(Kind.FORK, CHAIN, 1)}


def test_a_record_added_after_the_stop_is_found() -> None:
    """A well-linked record beyond the heads of the recorder's stop was added later."""
    first, second = two_recorders()
    first.execute(0)
    assert broken(verify(first.rows + second.rows)) == {(Kind.ADDED, CHAIN, 3)}


def test_a_new_chain_after_the_stop_is_found() -> None:
    """A chain that the recorder's stop does not know was added later."""
    first, second = two_recorders()
    first.execute(7)
    assert broken(verify(first.rows + second.rows)) == {(Kind.ADDED, chain_of(FIRST, 7), 0)}


def test_a_recorder_that_speaks_after_its_stop_is_found() -> None:
    """Nothing follows a stop in the recorder's own chain."""
    first, second = two_recorders()
    last = first.say("heartbeat")
    assert broken(verify(first.rows + second.rows)) == {(Kind.ADDED, FIRST, last.seq)}


def test_a_cut_tail_is_found() -> None:
    """The heads in a later heartbeat or stop show what was cut from a chain's end."""
    rows = log()
    del rows[index_of(rows, CHAIN, 2)]
    del rows[index_of(rows, CHAIN, 1)]
    assert broken(verify(rows)) == {(Kind.TAIL_CUT, CHAIN, 1)}


def test_a_chain_cut_whole_is_found() -> None:
    """A chain of which nothing is left is missed from its first record."""
    rows = [row for row in log() if seal_of(row.record).chain != CHAIN]
    assert broken(verify(rows)) == {(Kind.TAIL_CUT, CHAIN, 0)}


def test_a_recorder_cut_at_its_end_breaks_the_link() -> None:
    """Where a recorder's last record was cut, the next recorder's link finds it."""
    rows = log()
    seq = max(s.seq for row in rows if (s := seal_of(row.record)).chain == FIRST)
    del rows[index_of(rows, FIRST, seq)]
    assert broken(verify(rows)) == {(Kind.BROKEN_LINK, FIRST, seq)}


def test_a_dropped_file_breaks_the_link() -> None:
    """A recorder of which nothing is left is missed by the one that linked to it."""
    _, second = two_recorders()
    assert broken(verify(second.rows)) == {(Kind.BROKEN_LINK, FIRST, 0)}


def test_a_link_to_another_record_is_found() -> None:
    """A link over a restart that names another hash blames the record it names."""
    first, second = two_recorders()
    forged = Recording(FIRST)
    for row in first.rows:
        event = event_of(row.record)
        forged.seal({**event, "time": "2027-01-01T00:00:00.000000Z"}, seal_of(row.record).chain)
    assert (Kind.CHANGED, FIRST, forged.heads[FIRST].seq) in broken(verify(forged.rows + second.rows))


def test_the_last_recorder_cut_at_its_end_is_only_noted() -> None:
    """What nothing comes after cannot be missed: the report says that the tail may be missing."""
    report = verify(log()[:-1])
    assert report.ok
    assert [note.recorder_id for note in report.notes] == [SECOND]
    assert "tail may be missing" in report.notes[0].what


def test_a_running_recorder_is_noted_as_such() -> None:
    """A recorder without an end whose lock is held is a running server."""
    report = verify(log()[:-1], frozenset({SECOND}))
    assert [str(note) for note in report.notes] == [f"recorder {SECOND}: the server is running"]


def test_a_cut_front_is_found() -> None:
    """A chain that does not begin at 0 is missed from 0."""
    rows = log()
    del rows[index_of(rows, CHAIN, 0)]
    assert broken(verify(rows)) == {(Kind.FRONT_MISSING, CHAIN, 0)}


def pruned(cut_seq: int = 1) -> tuple[Rows, dict[str, Head]]:
    """A log whose recorder cut both its chains and its own up to ``cut_seq``, and what it cut."""
    recording = Recording(FIRST)
    recording.say("started")
    for number in range(8):
        recording.execute(number % 2)
        recording.say("heartbeat")
    removed = [row for row in recording.rows if seal_of(row.record).seq <= cut_seq]
    cuts = {(s := seal_of(row.record)).chain: Head(s.seq, leaf_hash(row.record)) for row in removed}
    recording.say("pruned", cuts=heads(cuts))
    recording.say("stopped", cause="stop")
    return [row for row in recording.rows if row not in removed], cuts


def test_a_sealed_cut_covers_a_front() -> None:
    """Where the recorder sealed the cut, chains that begin later are in order."""
    rows, _ = pruned()
    assert verify(rows).ok


def test_more_cut_than_was_sealed_is_found() -> None:
    """A front cut further than the recorder said is missed from there."""
    rows, cuts = pruned()
    del rows[index_of(rows, CHAIN, cuts[CHAIN].seq + 1)]
    assert broken(verify(rows)) == {(Kind.FRONT_MISSING, CHAIN, cuts[CHAIN].seq + 1)}


def test_records_that_a_cut_names_and_are_still_here_must_be_those() -> None:
    """Where cut records were delivered before, the cut is checked against them."""
    recording = Recording(FIRST)
    recording.say("started")
    recording.execute(0)
    recording.say("pruned", cuts=heads({CHAIN: Head(0, b"\x07" * 32)}))
    assert broken(verify(recording.rows)) == {(Kind.CHANGED, CHAIN, 0)}


def test_a_chain_without_its_recorder_is_found() -> None:
    """Chains whose recorder's own chain is absent say so once."""
    first, _ = two_recorders()
    report = verify([row for row in first.rows if seal_of(row.record).chain != FIRST])
    assert broken(report) == {(Kind.RECORDER_MISSING, FIRST, 0)}


def test_a_renumbered_chain_is_found() -> None:
    """A chain rebuilt without a record, numbers and links made to fit, differs from the heads."""
    rows = log()
    rebuilt: Head | None = None
    out: Rows = []
    for row in rows:
        where = seal_of(row.record)
        if where.chain != CHAIN:
            out.append(row)
        elif where.seq != 1:
            event = event_of(row.record)
            record, rebuilt = seal(event, CHAIN, rebuilt)
            out.append(StoredRecord(record, rebuilt.hash, row.file, row.position))
    assert {(Kind.CHANGED, CHAIN, 1), (Kind.TAIL_CUT, CHAIN, 2)} & broken(verify(out))


def test_a_renamed_chain_is_found() -> None:
    """A chain under another name is missed under its own."""
    rows = [
        resealed(row, row.record.replace(CHAIN.encode(), chain_of(FIRST, 9).encode()))
        if seal_of(row.record).chain == CHAIN
        else row
        for row in log()
    ]
    found = broken(verify(rows))
    assert (Kind.TAIL_CUT, CHAIN, 0) in found
    assert (Kind.ADDED, chain_of(FIRST, 9), 0) in found


def test_the_first_broken_record_comes_first() -> None:
    """Findings are in the order in which they show in the log."""
    rows = log()
    late, early = index_of(rows, chain_of(SECOND, 1), 2), index_of(rows, CHAIN, 1)
    for at in (late, early):
        rows[at] = rows[at]._replace(hash=b"\x00" * 32)
    assert [finding.chain for finding in verify(rows).findings] == [CHAIN, chain_of(SECOND, 1)]


def test_damage_is_a_finding_with_its_file() -> None:
    """A place that a source cannot read is part of the report."""
    verifier = Verifier()
    verifier.damaged(Damage("x.db", 12, "the spool file is damaged (malformed)"))
    (finding,) = verifier.finish().findings
    assert str(finding) == "x.db, at 12: damaged: the spool file is damaged (malformed)"


def with_recorder_event(**members: object) -> Rows:
    """One record: a recorder that starts and says this."""
    recording = Recording(FIRST)
    recording.say("started", **members)
    return recording.rows


HASH = "sha256:" + "0" * 64
FROZEN: dict[str, Callable[[], Rows]] = {
    "empty": lambda: [StoredRecord(b"", leaf_hash(b""), "f", 1)],
    "no seal": lambda: [StoredRecord(b'{"event":{}}', None, "f", 1)],
    "seal not last": lambda: [
        StoredRecord(b'{"event":{},"seal":{"chain":"a","prev":null,"seq":0},"x":1}', None, "f", 1)
    ],
    "seal keys in another order": lambda: [
        StoredRecord(b'{"event":{},"seal":{"prev":null,"chain":"a","seq":0}}', None, "f", 1)
    ],
    "chain that is no text": lambda: [
        StoredRecord(b'{"event":{},"seal":{"chain":"\xb1","prev":null,"seq":0}}', None, "f", 1)
    ],
    "leading zero": lambda: [StoredRecord(b'{"event":{},"seal":{"chain":"a","prev":null,"seq":00}}', None, "f", 1)],
    "negative seq": lambda: [StoredRecord(b'{"event":{},"seal":{"chain":"a","prev":null,"seq":-1}}', None, "f", 1)],
    "no predecessor at 3": lambda: [
        StoredRecord(b'{"event":{},"seal":{"chain":"a/0","prev":null,"seq":3}}', None, "f", 1)
    ],
    "predecessor at 0": lambda: [
        StoredRecord(b'{"event":{},"seal":{"chain":"a/0","prev":"%b","seq":0}}' % HASH.encode(), None, "f", 1)
    ],
    "recorder event that is no JSON": lambda: [
        StoredRecord(b'{"event":{,"seal":{"chain":"a","prev":null,"seq":0}}', None, "f", 1)
    ],
    "recorder event of another recorder": lambda: with_recorder_event(recorder_id=SECOND),
    "heads that are no list": lambda: with_recorder_event(heads=7),
    "heads without hash": lambda: with_recorder_event(heads=[{"chain": "a", "seq": 1}]),
    "heads with a hash that is none": lambda: with_recorder_event(heads=[{"chain": "a", "seq": 1, "hash": "x"}]),
    "heads with a hash that is no text": lambda: with_recorder_event(heads=[{"chain": "a", "seq": 1, "hash": 1}]),
    "heads with a seq that is none": lambda: with_recorder_event(heads=[{"chain": "a", "seq": True, "hash": HASH}]),
    "heads with a chain that is no text": lambda: with_recorder_event(heads=[{"chain": ["a"], "seq": 1, "hash": HASH}]),
}


@pytest.mark.parametrize("name", FROZEN)
def test_malformed_records_are_findings(name: str) -> None:
    """Bytes that are no record, and recorders that speak nonsense, are malformed, and nothing raises."""
    assert Kind.MALFORMED in {finding.kind for finding in verify(FROZEN[name]()).findings}


def test_a_forged_ending_without_a_seal_is_malformed() -> None:
    """Bytes that end as the next record should, but hold no seal, are not taken for it."""
    first, _ = two_recorders()
    rows = first.rows[:2]
    chain = seal_of(rows[1].record).chain
    ending = f'{chain}","prev":"sha256:{rows[1].hash.hex() if rows[1].hash else ""}","seq":1}}}}'
    forged = b"x" * 17 + ending.encode()
    assert (Kind.MALFORMED, None, None) in broken(verify([*rows, StoredRecord(forged, leaf_hash(forged), "f", 3)]))


MUTATIONS = ["byte", "byte and hash", "stored hash", "drop", "swap", "fork", "front", "repeat as next"]


@given(data=st.data(), executions=st.integers(1, 12), subjects=st.integers(1, 3))
def test_any_single_mutation_is_found(data: st.DataObject, executions: int, subjects: int) -> None:
    """Whatever one thing is changed in a log of several chains, it is found."""
    first, second = two_recorders(executions, subjects)
    # The last two records are the end of everything: what is cut there is noted, not found.
    rows, kept = (first.rows + second.rows)[:-1], (first.rows + second.rows)[-1:]
    at = data.draw(st.integers(0, len(rows) - 1))
    row, where = rows[at], seal_of(rows[at].record)
    mutation = data.draw(st.sampled_from(MUTATIONS))
    if mutation in ("byte", "byte and hash"):
        position, bit = data.draw(st.integers(0, len(row.record) - 1)), data.draw(st.integers(0, 7))
        flipped = bytearray(row.record)
        flipped[position] ^= 1 << bit
        changed = bytes(flipped)
        rows[at] = row._replace(record=changed) if mutation == "byte" else resealed(row, changed)
    elif mutation == "stored hash":
        rows[at] = row._replace(hash=bytes(32))
    elif mutation == "drop":
        del rows[at]
    elif mutation == "swap":
        same = [i for i, other in enumerate(rows) if seal_of(other.record).chain == where.chain and i != at]
        if not same:
            return
        to = data.draw(st.sampled_from(same))
        rows[at], rows[to] = rows[to], rows[at]
    elif mutation == "fork":
        head = None if where.seq == 0 else Head(where.seq - 1, seal_of(row.record).prev or b"")
        record, forged = seal({"forged": data.draw(st.integers(0, 9))}, where.chain, head)
        rows.insert(data.draw(st.integers(0, len(rows))), StoredRecord(record, forged.hash, "f", 1))
    elif mutation == "front":
        rows = [r for r in rows if (s := seal_of(r.record)).chain != where.chain or s.seq > where.seq]
    else:
        last = max((s for r in rows if (s := seal_of(r.record)).chain == where.chain), key=lambda s: s.seq)
        tail = next(r for r in rows if seal_of(r.record) == last)
        record, forged = seal({"again": True}, where.chain, Head(last.seq, leaf_hash(tail.record)))
        rows.insert(index_of(rows, where.chain, last.seq) + 1, StoredRecord(record, forged.hash, "f", 1))
    report = verify(rows + kept)
    assert not report.ok
    if mutation in ("stored hash", "drop", "fork"):
        assert (where.chain, where.seq) in {(finding.chain, finding.seq) for finding in report.findings}


@given(rows=st.lists(st.tuples(st.binary(max_size=300), st.none() | st.binary(max_size=40)), max_size=8))
def test_nothing_raises_on_any_bytes(rows: list[tuple[bytes, bytes | None]]) -> None:
    """Verification of arbitrary bytes gives a report."""
    report = verify([StoredRecord(record, raw, "f", i) for i, (record, raw) in enumerate(rows)])
    assert report.records == len(rows)
    assert report.ok == (not rows)
