"""`exec-events forward` against the stand-in for Learning Observer: what arrives, as whose, in which order."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from forward_reducers import POISON, REDUCERS
from forwarded import Site, differences, more, recording, summary
from learning_observer_stand_in import Connection, LearningObserver, frames_received, frames_resent

from exec_events_consumers.learning_observer import forward as forwarding
from exec_events_consumers.learning_observer import sending
from exec_events_schemas.sources import StoredRecord
from kafka_sites import wait_until
from spool_files import SECOND, Recording


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A folder for a forwarder; subjects 0 to 3 are known."""
    made = Site(tmp_path)
    made.people(range(4))
    return made


def of(made: Recording, subject: int) -> list[StoredRecord]:
    """The records of one subject."""
    return [row for row in made.rows if f'"subject-{subject}"'.encode() in row.record]


def test_everything_arrives_once_and_in_order(site: Site) -> None:
    """Each student's state equals a recount, each frame is proved and came once, and a second run sends nothing."""
    made = recording(300)
    made.write(site.spool)
    with LearningObserver(REDUCERS, folder=site.folder) as server:
        site.url = server.url
        said = site.forward("--batch", "37")
        assert differences(server.students_of("tally"), made.rows) == []
        assert summary(said)[1:] == (len(made.rows) - 1, 0, 0, 0, 1)
        assert summary(site.forward())[0] == 0
    assert frames_resent(site.folder) == 0
    assert sum(frames_received(site.folder).values()) == len(made.rows) - 1


def test_connections_end_with_terminate(site: Site) -> None:
    """There is one connection for each student, and the last word on it is terminate."""
    recording(40).write(site.spool)
    with LearningObserver(REDUCERS, folder=site.folder) as server:
        site.url = server.url
        site.forward("--batch", "10")
    logs = [log for log in site.folder.glob("*.log") if not log.name.endswith(".study.log")]
    assert len(logs) == 4
    assert {log.read_text().splitlines()[-1] for log in logs} == {'{"event":"terminate"}'}


def test_of_other_records_only_the_place_is_sent(site: Site) -> None:
    """A record that is no execution goes as its place, kind and time; a recorder's own does not go at all."""
    recording(1, subjects=1).write(site.spool)
    with LearningObserver(REDUCERS, folder=site.folder) as server:
        site.url = server.url
        site.forward()
    (log,) = [log for log in site.folder.glob("*.log") if not log.name.endswith(".study.log")]
    (other,) = [line for line in log.read_text().splitlines() if "exec_events_other" in line]
    assert "subject" not in other
    assert '"kind":"late_output"' in other
    assert '"action":"started"' not in log.read_text()


def test_people_nobody_knows_are_held_until_somebody_does(site: Site) -> None:
    """Events of a person who is in no list wait and are listed; once the person is known they go first, in order."""
    made = recording(60)
    made.write(site.spool)
    site.people([0, 1])
    with LearningObserver(REDUCERS, folder=site.folder) as server:
        site.url = server.url
        said = site.forward()
        assert "subject-2: nobody has said" in said
        assert set(server.students_of("tally")) == {"tc-testcase-student0", "tc-testcase-student1"}
        assert site.command("forward", "held").count("nobody has said which Learning Observer id") == 2
        held = summary(said)[2]
        assert held == site.rows("SELECT count(*) FROM forward_held")[0][0] > 0
        later = recording(60, recorder_id=SECOND, number=60)
        later.write(site.spool)
        site.people(range(4))
        assert f"; of those held, {held + len([*of(later, 2), *of(later, 3)]):,} sent" in site.forward()
        assert differences(server.students_of("tally"), [*made.rows, *later.rows]) == []
    assert frames_resent(site.folder) == 0
    assert site.rows("SELECT count(*) FROM forward_held") == [(0,)]
    assert "Nobody's events wait" in site.command("forward", "held")


def test_a_table_says_who_is_who(site: Site) -> None:
    """`forward people import` does for a table what --people does for a file, and `list` gives the file back."""
    path = site.people(range(4)).rename(site.folder / "list.csv")
    made = recording(40)
    made.write(site.spool)
    with LearningObserver(REDUCERS) as server:
        site.url = server.url
        assert summary(site.forward())[1] == 0
        assert site.command("forward", "people", "import", str(path)) == "4 people\n"
        assert site.command("forward", "people", "list") == path.read_text()
        site.forward()
        assert differences(server.students_of("tally"), made.rows) == []


def test_a_list_that_changes_is_read_again(site: Site) -> None:
    """A forwarder that runs sends what it held of a person as soon as the list has them; Ctrl-C ends it with 0."""
    made = recording(40)
    made.write(site.spool)
    site.people([0])
    with LearningObserver(REDUCERS) as server:
        site.url = server.url
        process = site.start()
        try:
            wait_until(lambda: server.students_of("tally"), what="the first student's state")
            site.people(range(4))
            wait_until(lambda: not differences(server.students_of("tally"), made.rows), what="everybody's state")
            process.send_signal(signal.SIGINT)
            said, _ = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 0, said
    read, *parts = summary(said)
    assert read == sum(parts) == len(made.rows)


def test_what_the_server_has_is_not_sent_again(site: Site) -> None:
    """A forwarder whose store is set back asks the server how far it is, and sends nothing twice."""
    made = recording(50)
    made.write(site.spool)
    with LearningObserver(REDUCERS, folder=site.folder) as server:
        site.url = server.url
        site.forward()
        site.change("UPDATE offsets SET position = 0", "DELETE FROM chains")
        said = site.forward()
        assert summary(said)[1] == len(made.rows) - 1
        assert differences(server.students_of("tally"), made.rows) == []
    assert frames_resent(site.folder) == 0


def test_another_stores_checkpoint_is_not_believed(site: Site) -> None:
    """A new store sends everything, whatever checkpoint another left at the server: duplicates, but no loss."""
    made = recording(50)
    made.write(site.spool)
    with LearningObserver(REDUCERS, folder=site.folder) as server:
        site.url = server.url
        site.forward()
        for path in site.folder.glob("forward.db*"):
            path.unlink()
        site.forward()
        assert differences(server.students_of("tally"), made.rows) == []
    assert frames_resent(site.folder) == len(made.rows) - 1


def test_a_server_that_is_away_is_waited_for(site: Site) -> None:
    """While nothing listens nothing counts as read, the message says when it tries again, and then all arrives."""
    made = recording(50)
    made.write(site.spool)
    with LearningObserver(REDUCERS) as server:
        port = server.port
    site.url = server.url
    process = site.start("--once")
    try:
        assert process.stdout is not None
        assert "the server is away (no connection" in process.stdout.readline()
        assert "again in" in process.stdout.readline()
        assert site.rows("SELECT max(position) FROM offsets") == [(0,)]
        with LearningObserver(REDUCERS, port=port) as back:
            said, _ = process.communicate(timeout=60)
            assert differences(back.students_of("tally"), made.rows) == []
    finally:
        process.kill()
    assert process.returncode == 0
    assert summary(said)[1] == len(made.rows) - 1


def test_it_ends_while_the_server_is_away(site: Site) -> None:
    """Told to end while it waits for the server, it ends at once, and nothing is committed."""
    recording(10).write(site.spool)
    with LearningObserver(REDUCERS) as server:
        pass
    site.url = server.url
    process = site.start()
    try:
        assert process.stdout is not None
        for _ in range(4):
            assert "again in" in process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0
    assert summary(said) == (0, 0, 0, 0, 0, 0)


def test_a_frame_that_kills_is_a_dead_letter(site: Site) -> None:
    """Of a student whose one frame the server drops the connection at, that one is a dead letter and all others arrive."""
    made = recording(21)
    made.execute(1, status="error", error_name=POISON)
    bad = made.rows[-1].record
    more(made, 40)
    made.write(site.spool)
    with LearningObserver(REDUCERS, run_mode="dev") as server:
        site.url = server.url
        said = site.forward()
        (letter,) = site.letters()
        assert letter[1] == bad
        assert "the server dropped the connection 3 times" in letter[0]
        assert summary(said)[3] == 1
        states = server.students_of("tally")
        assert states["tc-testcase-student1"]["gaps"] == 1
        states["tc-testcase-student1"]["gaps"] = 0
        assert differences(states, [row for row in made.rows if row.record != bad]) == []


def test_what_the_server_would_die_on_is_not_sent(site: Site) -> None:
    """An event whose frame is larger than the server takes is a dead letter at once, and those around it arrive."""
    made = recording(8)
    made.execute(1, of_a_later_version="n" * 4_100_000)
    more(made, 8)
    made.write(site.spool)
    with LearningObserver(REDUCERS, folder=site.folder) as server:
        site.url = server.url
        said = site.forward()
        assert server.students_of("tally")["tc-testcase-student1"]["gaps"] == 1
    assert summary(said)[3] == 1
    assert "its frame has 4,1" in site.letters()[0][0]
    assert frames_resent(site.folder) == 0


def test_a_person_who_is_blocked_for_a_time_is_held(site: Site) -> None:
    """MAINTAIN holds that person's events, over restarts, until its time is up; then they go, in order."""
    made = recording(40)
    made.write(site.spool)
    with LearningObserver(REDUCERS, folder=site.folder, blocklist={"testcase-student1": "MAINTAIN"}) as server:
        site.url = server.url
        said = site.forward()
        assert "subject-1: the server blocks them (MAINTAIN, DAYS)" in said
        later = recording(40, recorder_id=SECOND, number=40)
        later.write(site.spool)
        server.settings.blocklist.pop("testcase-student1")  # type: ignore[attr-defined]
        assert summary(site.forward())[2] > 0
        assert "tc-testcase-student1" not in server.students_of("tally")
        site.change("UPDATE forward_waiting SET until = '2026-01-01T00:00:00.000000Z'")
        site.forward()
        assert differences(server.students_of("tally"), [*made.rows, *later.rows]) == []
    assert frames_resent(site.folder) == 0


def test_a_person_whose_events_are_dropped(site: Site) -> None:
    """DROP makes dead letters of that person's events, each with the reason, and touches nobody else's."""
    made = recording(40)
    made.write(site.spool)
    with LearningObserver(REDUCERS, blocklist={"testcase-student1": "DROP"}) as server:
        site.url = server.url
        said = site.forward("--batch", "15")
        own = [row.record for row in of(made, 1)]
        assert [value for _, value in site.letters()] == own
        assert all("(DROP" in reason for reason, _ in site.letters())
        assert summary(said)[3] == len(own)
        assert differences(server.students_of("tally"), [row for row in made.rows if row.record not in own]) == []


def test_tokens_log_people_in(site: Site) -> None:
    """With local_storage each person has a token; who has none, or a wrong one, is held and told of, without the token."""
    made = recording(40)
    made.write(site.spool)
    tokens = site.folder / "tokens.csv"
    tokens.write_text("learning_observer_id,secret\nstudent0,token-zero\nstudent1,token-one\nstudent2,token-wrong\n")
    tokens.chmod(0o600)
    site.login = ("--login", "local_storage", "--secrets", str(tokens))
    with LearningObserver(REDUCERS, auth="local_storage", tokens=["token-zero", "token-one", "token-two"]) as server:
        site.url = server.url
        said = site.forward()
        assert "subject-2: the token was refused" in said
        assert "subject-3: " in said
        assert "has no secret for student3" in said
        assert set(server.students_of("tally")) == {"ls-ls-token-zero", "ls-ls-token-one"}
        assert summary(said)[2] == site.rows("SELECT count(*) FROM forward_held")[0][0] == 20 + 2
    assert "token-" not in said + site.command("forward", "held")


def test_basic_passwords_log_people_in(site: Site) -> None:
    """With http_basic the person's id and password are in the handshake."""
    made = recording(40)
    made.write(site.spool)
    secrets = site.folder / "passwords.csv"
    secrets.write_text("learning_observer_id,secret\n" + "".join(f"student{n},pass:{n}\n" for n in range(4)))
    secrets.chmod(0o600)
    site.login = ("--login", "http_basic", "--secrets", str(secrets))
    with LearningObserver(REDUCERS, auth="http_basic") as server:
        site.url = server.url
        site.forward()
        assert differences(server.students_of("tally"), made.rows, "nginx-") == []


@pytest.mark.parametrize("method", ["guest", "hash_identify"])
def test_methods_without_proof(site: Site, method: str) -> None:
    """guest and hash_identify work where a person allows them."""
    recording(40, subjects=1).write(site.spool)
    site.login = ("--login", method, "--insecure")
    with LearningObserver(REDUCERS, auth=method) as server:
        site.url = server.url
        assert summary(site.forward())[1] == 44
        (state,) = server.students_of("tally").values()
        assert state["executions"] == 40


def test_a_server_that_knows_no_such_source(site: Site) -> None:
    """Where no module declares our source it ends with an error that says to install it, and nothing is committed."""
    recording(10).write(site.spool)
    with LearningObserver([REDUCERS[0]._replace(source="org.example")]) as server:
        site.url = server.url
        said = site.forward(code=2)
    assert "no module of that server declares the source org.exec_events.jupyter" in said
    assert site.rows("SELECT max(position) FROM offsets") == [(0,)]


def test_a_server_that_says_nothing_to_a_login(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a login is met with silence it ends with an error that says which setting to look at."""
    monkeypatch.setattr(sending, "LOGIN_SECONDS", 0.5)
    recording(10).write(site.spool)
    with LearningObserver(REDUCERS, auth="hash_identify") as server:
        site.url = server.url
        said = site.forward(code=2)
    assert "event_auth" in said


def test_a_wrong_path(site: Site) -> None:
    """A URL that the server does not have is told with the end it should have."""
    recording(10).write(site.spool)
    with LearningObserver(REDUCERS) as server:
        site.url = server.url.replace("/in/", "/out/")
        assert "the URL ends in /wsapi/in/" in site.forward(code=2)


def test_a_server_that_hangs(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes frames and answers no barrier is given up after a while, and its batch goes again."""
    made = recording(20, subjects=1)
    made.write(site.spool)
    hangs = threading.Event()

    def slowly(state: object, event: dict[str, object]) -> object:
        if not hangs.is_set() and event.get("seq") == 5:
            hangs.set()
            time.sleep(3)
        return REDUCERS[0].function(state, event)  # type: ignore[arg-type]

    with LearningObserver([REDUCERS[0]._replace(function=slowly)]) as server:  # type: ignore[arg-type]
        site.url = server.url
        said = site.forward("--patience", "1")
        assert hangs.is_set()
        assert "it has not processed" in said
        assert differences(server.students_of("tally"), made.rows) == []


def test_one_person_does_not_keep_others_waiting(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the server hangs over one person's events theirs are held, others' go on, and theirs follow once it answers."""
    made = recording(40)
    made.write(site.spool)
    goes_on = threading.Event()
    reduce = Connection._reduce

    async def hangs(connection: Connection, event: dict[str, Any]) -> None:
        while event.get("chain_id", "").endswith("1") and not goes_on.is_set():
            await asyncio.sleep(0.05)
        await reduce(connection, event)

    monkeypatch.setattr(Connection, "_reduce", hangs)
    with LearningObserver(REDUCERS, folder=site.folder) as server:
        site.url = server.url
        said = site.forward("--patience", "1")
        assert "subject-1: the server answers for others, and not for them" in said
        assert len(server.students_of("tally")) == 3
        goes_on.set()
        site.change("UPDATE forward_waiting SET until = ''")
        site.forward()
        assert differences(server.students_of("tally"), made.rows) == []


def test_a_server_that_has_forgotten(site: Site) -> None:
    """A server that comes back without what it had is told of, once."""
    made = recording(40)
    made.write(site.spool)
    with LearningObserver(REDUCERS) as server:
        site.url, port = server.url, server.port
        process = site.start()
        wait_until(lambda: not differences(server.students_of("tally"), made.rows), what="everybody's state")
    try:
        with LearningObserver(REDUCERS, port=port) as server:
            recording(40, recorder_id=SECOND, number=40).write(site.spool)
            wait_until(lambda: len(server.students_of("tally")) == 4, what="everybody's state")
            process.send_signal(signal.SIGTERM)
            said, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    assert said.count("the server has forgotten what it had") == 1


def test_connections_that_are_too_many_are_closed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """With more people than connections may be open, those used longest ago are closed, and all arrives in order."""
    monkeypatch.setattr(sending, "OPEN_AT_MOST", 2)
    monkeypatch.setattr(sending, "AT_ONCE", 2)
    made = recording(200, subjects=9)
    made.write(site.spool)
    site.people(range(9))
    with LearningObserver(REDUCERS, folder=site.folder) as server:
        site.url = server.url
        site.forward("--batch", "20")
        assert differences(server.students_of("tally"), made.rows) == []
    assert frames_resent(site.folder) == 0
    assert len([log for log in site.folder.glob("*.log") if not log.name.endswith(".study.log")]) > 9


def test_waits_are_bounded_and_differ() -> None:
    """Time limits of a blocklist are words or milliseconds, a day at the most."""
    limits = {"MINUTES": 300, "DAYS": 86400, "PERMANENT": 86400, 5000: 5, 10**12: 86400, -1: 1, "soon": 300}
    assert {given: forwarding.limit_seconds(given) for given in limits} == limits
