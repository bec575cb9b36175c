"""
Verification of chains: stored records go in as they were stored, what is wrong with them comes out.

Read aloud: every record hashes to what is stored with it; names the hash of the record before it in its
chain; follows it without a gap. What a recorder says in its own chain of other chains (their heads,
where they were cut, how its predecessors ended) is true. Nothing follows a recorder's end. Where only a
part of the record is read, nothing is missing for being outside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from typing import NamedTuple

from .claims import Claim, Claims, heads_in
from .errors import MalformedRecord
from .findings import Finding, Kind, Note, Report
from .record import Head, Seal, event_of, hash_text, leaf_hash, seal_of
from .runs import Place, Runs
from .sources.stored import Damage, StoredRecord

RECORDER_SCHEMA = "https://exec-events.org/schemas/recorder/"

_CHAIN_KEY = b',"seal":{"chain":"'
_CHAIN_KEY_BYTES = len(_CHAIN_KEY)
_SEAL_ROOM = 320
_MOST_HEADS = 10_000  # of the schema: a list this long may be incomplete


class _End(NamedTuple):
    """A recorder stopped with record ``seq``; ``heads`` are the last seq of its other chains, where all are known."""

    seq: int
    heads: dict[str, int] | None
    place: Place


class Verifier:
    """
    Verifies a stream of stored records: `add` each of them, then `finish` once.

    Records of one chain are expected in order; chains may be mixed in any way. With ``partial`` they
    are a part of the record: each chain from somewhere on, some chains not at all. Memory: 32 bytes a
    record. Nothing raises but a fault of this program: what is wrong becomes a finding.
    """

    def __init__(self, *, partial: bool = False) -> None:
        self._partial = partial
        self._horizon: int | None = None
        self._records = 0
        self._duplicates = 0
        self._chains: dict[bytes, Runs] = {}
        self._claims = Claims(self._settle)
        self._cuts: dict[str, list[Head]] = {}
        self._ends: dict[str, _End] = {}
        self._found: dict[tuple[Kind, str | None, int | None, int], tuple[int, Finding]] = {}

    @property
    def records(self) -> int:
        """How many records were added."""
        return self._records

    def awaits(self) -> bool:
        """
        Whether something is named that is not here, and may be on its way: a record, or a recorder's chain.

        From the first time that this is asked on, nothing more is expected: what is added then is checked, but
        what it names may well come after the last record that is added.
        """
        if self._horizon is None:
            self._horizon = self._records
        self._claims.sweep()
        if any(self._first_absent(claim) is not None for claim in self._claims):
            return True
        return any(self._lacks_recorder(runs) for runs in self._chains.values())

    def add(self, stored: StoredRecord) -> None:
        """Verify one more record."""
        self._records += 1
        record, stored_hash, file, position = stored
        digest = leaf_hash(record)
        # A record that follows the last of its chain ends in bytes known beforehand: its whole seal is
        # checked by comparing them. Anything else takes the way that finds out what is wrong.
        seal = record.rfind(_CHAIN_KEY, -_SEAL_ROOM)
        ending = record.find(b'"', seal + _CHAIN_KEY_BYTES)
        runs = self._chains.get(record[seal + _CHAIN_KEY_BYTES : ending]) if seal >= 0 else None
        if runs and record[ending:] == runs.next_ending and (digest == stored_hash or stored_hash is None):
            runs.append(digest)
            if runs.is_recorder:
                self._hear(runs.chain, runs.next_seq - 1, record, Place(self._records, file, position))
        else:
            self._add_slowly(stored, digest, Place(self._records, file, position))

    def damaged(self, damage: Damage) -> None:
        """Take note of a place that the source could not read."""
        self._find(Kind.DAMAGED, None, None, Place(self._records, damage.file, damage.position), damage.what)

    def finish(self, running: Set[str] = frozenset()) -> Report:
        """
        The report on all that was added, the first broken record first.

        ``running`` holds the recorder_id of every recorder that still holds its spool file's lock.
        """
        chains = {runs.chain: runs for runs in self._chains.values()}
        for runs in chains.values():
            self._check_runs(runs)
            if self._lacks_recorder(runs):
                what = "the recorder of other chains has none itself"
                self._find(Kind.RECORDER_MISSING, runs.recorder, 0, runs.first_place, what)
            self._check_end(runs)
        self._claims.sweep()
        for claim in self._claims:
            self._check_absent(claim)
        recorders = [runs.chain for runs in chains.values() if runs.is_recorder]
        findings = sorted(self._found.values(), key=lambda found: found[0])
        return Report(
            records=self._records,
            duplicates=self._duplicates,
            chains=len(chains),
            recorders=len(recorders),
            findings=tuple(finding for _, finding in findings),
            notes=tuple(_notes(recorders, self._ends.keys(), running, partial=self._partial)),
        )

    def _find(self, kind: Kind, chain: str | None, seq: int | None, place: Place, what: str) -> None:
        """Keep a finding, unless the same was found of the same record before."""
        key = (kind, chain, seq, place.number if chain is None else 0)
        self._found.setdefault(key, (place.number, Finding(kind, chain, seq, place.file, place.position, what)))

    # One record out of line.

    def _add_slowly(self, stored: StoredRecord, digest: bytes, place: Place) -> None:
        try:
            seal = seal_of(stored.record)
        except (MalformedRecord, UnicodeDecodeError) as error:
            self._find(Kind.MALFORMED, None, None, place, str(error))
            return
        name = seal.chain.encode()
        runs = self._chains.get(name)
        intact = stored.hash is None or stored.hash == digest
        if not intact:
            self._find(Kind.CHANGED, seal.chain, seal.seq, place, "its hash is not the one stored with it")
            # Its seal may be what was changed: it is believed only where a record was expected.
            if seal.seq != (0 if runs is None else runs.next_seq):
                return
        if (seal.seq == 0) != (seal.prev is None):
            what = "the first record names one before it" if seal.prev else "it names no record before it"
            self._find(Kind.MALFORMED, seal.chain, seal.seq, place, what)
            return
        if runs is None:
            self._chains[name] = runs = Runs(seal, digest, place)
        elif not self._place_in(runs, seal, digest, place):
            return
        if intact and runs.is_recorder:
            self._hear(seal.chain, seal.seq, stored.record, place)

    def _place_in(self, runs: Runs, seal: Seal, digest: bytes, place: Place) -> bool:
        """Add a record to its chain; False when one of its seq is there already."""
        known = runs.hash_at(seal.seq)
        if known == digest:
            self._duplicates += 1
            return False
        if known is not None:
            self._find(Kind.FORK, seal.chain, seal.seq, place, "there are two records of this seq, not the same")
            return False
        if runs.is_late(seal.seq, place.file):
            self._find(Kind.REORDERED, seal.chain, seal.seq, place, "it stands after later records of its chain")
        runs.insert(seal, digest, place)
        return True

    # What recorders say.

    def _hear(self, chain: str, seq: int, record: bytes, place: Place) -> None:
        """Take in what a record of a recorder's chain says of other records."""
        try:
            event = event_of(record)
            if event.get("recorder_id") != chain:
                raise MalformedRecord("its recorder_id is not its chain's")
            if not str(event.get("__schema__")).startswith(RECORDER_SCHEMA):
                return
            said = {word: heads_in(event.get(word, [])) for word in ("previous", "heads", "cuts")}
            action = event["action"]
        except (MalformedRecord, KeyError) as error:
            self._find(Kind.MALFORMED, chain, seq, place, f"it is no record of a recorder: {error}")
            return
        for word, heads in said.items():
            for name, head in heads:
                claim = Claim(name, head, word, chain, seq, place)
                if self._horizon is None:
                    self._claims.add(claim)
                else:
                    self._settle(claim)
        for name, head in said["cuts"]:
            self._cuts.setdefault(name, []).append(head)
        if action == "stopped":
            complete = "heads" in event and len(said["heads"]) < _MOST_HEADS
            last_seqs = {name: head.seq for name, head in said["heads"]}
            self._ends.setdefault(chain, _End(seq, last_seqs if complete else None, place))

    def _settle(self, claim: Claim) -> bool:
        """Check a claim if its record is here; False where it is not."""
        runs = self._chains.get(claim.chain.encode())
        known = None if runs is None else runs.hash_at(claim.head.seq)
        if known is not None and known != claim.head.hash:
            self._contradict(claim)
        return known is not None

    def _contradict(self, claim: Claim) -> None:
        what = f"its hash is not the one of {claim}, {hash_text(claim.head.hash)}"
        self._find(Kind.CHANGED, claim.chain, claim.head.seq, claim.place, what)

    # Once all have come.

    def _check_runs(self, runs: Runs) -> None:
        """Every run of a chain follows the one before it, or a sealed cut."""
        last: Head | None = None
        for run in runs:
            cuts = self._cuts.get(runs.chain, ())
            if run.start == (0 if last is None else last.seq + 1):
                if last is not None and run.prev != last.hash:
                    what = "it is not the record that the next one was sealed after"
                    self._find(Kind.CHANGED, runs.chain, last.seq, run.place, what)
            elif last is None and self._partial:
                pass  # what is before it was not read
            elif run.prev is not None and Head(run.start - 1, run.prev) not in cuts:
                covered = [cut.seq for cut in cuts if cut.seq < run.start - 1]
                first = max([*covered, -1 if last is None else last.seq]) + 1
                kind = Kind.FRONT_MISSING if last is None else Kind.MISSING
                what = f"{_seqs(first, run.start - 1)} not here, and no sealed cut says why"
                self._find(kind, runs.chain, first, run.place, what)
            last = run.last

    def _lacks_recorder(self, runs: Runs) -> bool:
        """Whether a chain's recorder should have a chain itself, and has none."""
        if self._partial or (self._horizon is not None and runs.first_place.number > self._horizon):
            return False
        return runs.recorder.encode() not in self._chains and runs.recorder not in self._cuts

    def _check_end(self, runs: Runs) -> None:
        """Nothing follows what a recorder said when it stopped."""
        if runs.recorder not in self._ends:
            return
        end = self._ends[runs.recorder]
        if runs.is_recorder:
            last = end.seq
        elif end.heads is not None:
            last = end.heads.get(runs.chain, -1)
        else:
            return
        if runs.next_seq - 1 > last:
            what = f"its recorder had stopped (chain {runs.recorder} seq {end.seq})"
            self._find(Kind.ADDED, runs.chain, last + 1, end.place, what)

    def _check_absent(self, claim: Claim) -> None:
        """A record that a recorder names, and that is not here, was cut."""
        cuts = self._cuts.get(claim.chain, ())
        same = [cut.hash for cut in cuts if cut.seq == claim.head.seq]
        if same and claim.head.hash not in same:
            self._contradict(claim)
        first = self._first_absent(claim)
        if first is not None:
            kind = Kind.BROKEN_LINK if claim.word == "previous" else Kind.TAIL_CUT
            what = f"{_seqs(first, claim.head.seq)} not here, but in {claim}"
            self._find(kind, claim.chain, first, claim.place, what)

    def _first_absent(self, claim: Claim) -> int | None:
        """The first seq missing at a chain's end, by this claim; None where the end is here, was cut, or is outside."""
        runs = self._chains.get(claim.chain.encode())
        if self._partial and (runs is None or claim.head.seq < runs.first_seq):
            return None
        cuts = self._cuts.get(claim.chain, ())
        reached = max([cut.seq for cut in cuts] + ([runs.next_seq - 1] if runs else []), default=-1)
        return reached + 1 if reached < claim.head.seq else None


def _notes(recorders: list[str], ended: Set[str], running: Set[str], *, partial: bool) -> Iterator[Note]:
    if partial:
        yield Note(None, "only a part of the record was read; whether anything outside it is missing was not checked")
    for recorder in recorders:
        if recorder in ended:
            continue
        if recorder in running:
            yield Note(recorder, "the server is running")
        else:
            yield Note(recorder, "it never said that it stopped: the tail may be missing, or the server crashed")


def _seqs(first: int, last: int) -> str:
    return f"seq {first} is" if first == last else f"seq {first} to {last} are"
