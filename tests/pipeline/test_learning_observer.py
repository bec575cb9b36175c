"""
How a Learning Observer server behaves, asserted of the stand-in, and of a real server where there is one.

    LO_URL=ws://127.0.0.1:8888/wsapi/in/ pytest -m live_lo tests/pipeline/test_learning_observer.py

A real server must have testcase_auth, test_case_insecure and deploy mode, and a module that declares org.exec_events.jupyter
and has the reducer ``tally`` below: LO_DAG and LO_EXPORT name its query. What a test needs beyond that, its ``configured``
marker names; LO_HAS="blocklist,local_storage" says which of them the server has ("probe": all REDUCERS below, in LO_PROBE_DAG).
Without LO_URL, or without what a test needs, it is not run, and the summary says so.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from learning_observer_stand_in import (
    Frame,
    LearningObserver,
    Reducer,
    StandInProcess,
    State,
    frames_received,
    frames_resent,
)
from lo_client import Server, executions, live_server, query, tally

from exec_events_consumers.learning_observer.frames import SOURCE

MIB = 1024 * 1024


def naive(state: State | None, frame: Frame) -> State:
    """Counts what it is given, copies too, and keeps the last of it."""
    state = state or {"frames": 0, "executions": 0}
    is_ours = frame["event"] == "exec_events_execution"
    last = {key: value for key, value in frame.items() if key != "execution" and len(str(value)) < 500}
    return {"frames": state["frames"] + 1, "executions": state["executions"] + is_ours, "last": last}


def raises(state: State | None, frame: Frame) -> State | None:
    """Raises when it is told to."""
    if frame["event"] == "exec_events_raise":
        raise RuntimeError("a reducer raises")
    return None


REDUCERS = [Reducer(each.__name__, SOURCE, "student", each) for each in (naive, raises, tally)]


@pytest.fixture(params=["stand-in", pytest.param("real", marks=pytest.mark.live_lo)])
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Server]:
    """The stand-in, configured as the test's marker says, or the real server at LO_URL."""
    marker = request.node.get_closest_marker("configured")
    settings = marker.kwargs if marker else {}
    if request.param == "real":
        server = live_server()
        if not settings:
            await server.hear_of_somebody()
        yield server
        return
    with LearningObserver(REDUCERS, folder=tmp_path, **settings) as stand_in:
        server = Server(stand_in.url, stand_in.query_url)
        if not settings:
            await server.hear_of_somebody()
        yield server


@pytest.fixture
def student() -> str:
    """Somebody of whom the server has heard nothing."""
    return f"ada{uuid.uuid4().hex[:12]}"


# -- what the wire protocol promises -----------------------------------------------------------------------------------


async def test_the_first_frame_that_says_who_sends_is_answered(server: Server, student: str) -> None:
    """The answer to an identity is the id that the server makes of it."""
    async with server.connected() as client:
        assert await client.introduce(student) == {"status": "auth", "user_id": f"testcase-{student}"}


async def test_events_have_no_reply_and_a_barrier_answers_after_all_of_them(server: Server, student: str) -> None:
    """After 500 events the first answer is the one to fetch_blob, and all 500 have been counted then."""
    async with server.introduced(student) as client:
        await client.send(*executions(500))
        await client.barrier()
        assert await server.count(student) == 500


async def test_terminate_closes_with_1000_after_all_was_processed(server: Server, student: str) -> None:
    """A connection that is asked to end does so in order, with every event before it counted."""
    async with server.introduced(student) as client:
        await client.send(*executions(100), {"event": "terminate"})
        assert await client.ended() == (1000, [])
        assert await server.count(student) == 100


@pytest.mark.configured("probe")
async def test_terminate_loses_what_waits_for_a_further_frame(server: Server, student: str) -> None:
    """Events before the identity, and the identity's own frame, never reach reducers when the next frame is the last."""
    async with server.connected() as client:
        await client.send({"event": "lock_fields", "fields": {"source": SOURCE}}, *executions(3))
        await client.send({"event": "test_framework_fake_identity", "user_id": student}, {"event": "terminate"})
        assert await client.ended() == (1000, [{"status": "auth", "user_id": f"testcase-{student}"}])
    assert await server.made_of(student, "naive") == {}


async def test_terminate_needs_no_identity(server: Server) -> None:
    """A connection of nobody's is closed with 1000 too."""
    async with server.connected() as client:
        await client.send({"event": "terminate"})
        assert await client.ended() == (1000, [])


async def test_a_blob_is_there_for_the_next_connection_of_its_student(server: Server, student: str) -> None:
    """What was saved is fetched again on another connection; of an activity that saved nothing there is no value."""
    async with server.introduced(student) as client:
        await client.send({"event": "save_blob", "activity": "checkpoint", "blob": {"offset": 41}})
        await client.barrier()
    async with server.introduced(student) as client:
        await client.send({"event": "fetch_blob", "activity": "checkpoint"})
        assert await client.receive() == {"status": "fetch_blob", "data": {"offset": 41}}
        await client.send({"event": "fetch_blob", "activity": "other"})
        assert (await client.receive())["data"] is None


async def test_a_blob_is_the_students_own(server: Server, student: str) -> None:
    """A blob of one student is not seen by another who names the same activity."""
    async with server.introduced(student) as client:
        await client.send({"event": "save_blob", "activity": "checkpoint", "blob": 1})
        await client.barrier()
    async with server.introduced(f"{student}2") as client:
        await client.send({"event": "fetch_blob", "activity": "checkpoint"})
        assert (await client.receive())["data"] is None


async def test_a_query_for_an_unknown_export_answers_with_an_error(server: Server) -> None:
    """One update comes, with an error in its value."""
    (update,) = await server.ask(query(export="no_such_export"))
    assert "error" in update["value"]


async def test_a_query_of_an_unknown_dag_is_not_answered(server: Server, student: str) -> None:
    """The first answer on a websocket is to the query after the one that names a DAG nobody knows."""
    async with server.introduced(student) as client:
        await client.send(*executions(1))
        await client.barrier()
    updates = await server.ask(query(dag="no_such_dag"), query())
    assert f"students.tc-testcase-{student}" in [update["path"] for update in updates]


# -- who sends ---------------------------------------------------------------------------------------------------------


async def test_a_frame_that_carries_the_identity_is_lost_when_nothing_follows(server: Server, student: str) -> None:
    """An event that says who sends it reaches the reducers when another frame comes, and never when none does."""
    first, second = executions(2)
    for follows, counted in ((False, 0), (True, 1)):
        async with server.connected() as client:
            await client.send({"event": "lock_fields", "fields": {"source": SOURCE}}, first | {"user_id": student})
            assert (await client.receive())["status"] == "auth"
            if follows:
                await client.barrier()
        assert await server.count(student) == counted
    async with server.introduced(student) as client:
        await client.send(second)
        await client.barrier()
    assert await server.state(student) == {"executions": 2, "duplicates": 0}


async def test_events_before_the_identity_are_processed_in_order(server: Server, student: str) -> None:
    """What came before the server knew whose it is waits for the frame after the identity, and nothing is out of order."""
    async with server.connected() as client:
        await client.send({"event": "lock_fields", "fields": {"source": SOURCE}}, *executions(20))
        await client.send({"event": "test_framework_fake_identity", "user_id": student})
        assert (await client.receive())["status"] == "auth"
        assert await server.count(student) == 0
        await client.barrier()
        assert await server.state(student) == {"executions": 20, "duplicates": 0}


async def test_nobody_who_sends_gets_no_answer_and_is_not_closed(server: Server, student: str) -> None:
    """Events, a barrier and an identity without its field are met with silence, on a connection that stays."""
    async with server.connected() as client:
        await client.send({"event": "lock_fields", "fields": {"source": SOURCE}}, *executions(3))
        await client.send({"event": "fetch_blob", "activity": "barrier"}, {"event": "test_framework_fake_identity"})
        await client.send({"event": "test_framework_fake_identity", "user_id": student})
        assert (await client.receive())["status"] == "auth"


async def test_a_locked_field_may_say_who_sends(server: Server, student: str) -> None:
    """Locked fields are in a frame before its identity is looked for."""
    async with server.connected() as client:
        await client.send({"event": "lock_fields", "fields": {"source": SOURCE, "user_id": student}}, *executions(1))
        assert await client.receive() == {"status": "auth", "user_id": f"testcase-{student}"}


@pytest.mark.parametrize("user_id", [5, None, ["ada"]], ids=str)
async def test_an_identity_that_is_not_text_drops_the_connection(server: Server, user_id: object) -> None:
    """There is no answer, only the end (1006)."""
    async with server.connected() as client:
        await client.send({"event": "test_framework_fake_identity", "user_id": user_id})
        assert await client.ended() == (1006, [])


async def test_a_second_identity_is_ignored(server: Server, student: str) -> None:
    """What follows it is still the first student's."""
    async with server.introduced(student) as client:
        await client.send({"event": "test_framework_fake_identity", "user_id": f"{student}2"}, *executions(3))
        await client.barrier()
        assert await server.count(student) == 3
        assert await server.count(f"{student}2") == 0


async def test_an_events_own_auth_is_replaced(server: Server, student: str) -> None:
    """An event that says to be of somebody else is its sender's."""
    other = f"{student}2"
    forged = {"user_id": f"testcase-{other}", "safe_user_id": f"tc-testcase-{other}", "sec": "authenticated"}
    async with server.introduced(student) as client:
        await client.send(*(frame | {"auth": forged} for frame in executions(2)))
        await client.barrier()
        assert await server.count(student) == 2
        assert await server.count(other) == 0


@pytest.mark.configured("local_storage", auth="local_storage", tokens=("token-of-ada",))
async def test_a_token_that_is_not_listed_ends_in_a_protocol_error(server: Server) -> None:
    """The bytes of an HTTP refusal come on the websocket, which is a protocol error to the client (1002)."""
    async with server.connected() as client:
        await client.send({"event": "lock_fields", "fields": {"source": SOURCE}})
        await client.send({"event": "local_storage", "user_tag": "nobody's"})
        assert await client.ended() == (1002, [])


@pytest.mark.configured("local_storage", auth="local_storage", tokens=("token-of-ada",))
async def test_a_token_that_is_listed_is_answered(server: Server) -> None:
    """A student whose token is in the site's list is known by it."""
    async with server.connected() as client:
        await client.send({"event": "lock_fields", "fields": {"source": SOURCE}})
        await client.send({"event": "local_storage", "user_tag": "token-of-ada"})
        assert await client.receive() == {"status": "auth", "user_id": "ls-token-of-ada"}
        await client.barrier()


@pytest.mark.configured("guest", auth="guest")
async def test_a_guest_is_whoever_comes(server: Server) -> None:
    """The first frame after the source makes a guest with an id of the server's making."""
    async with server.connected() as client:
        await client.send({"event": "lock_fields", "fields": {"source": SOURCE}}, *executions(1))
        answer = await client.receive()
        assert answer["status"] == "auth"
        assert len(answer["user_id"]) == 32


@pytest.mark.configured("blocklist", blocklist={"testcase-blocked": "MAINTAIN"})
async def test_who_is_blocked_is_told_after_the_identity_was_answered(server: Server) -> None:
    """The identity is answered as anybody's; at the frame after it comes the blocklist's answer, and the end (1000)."""
    async with server.connected() as client:
        assert (await client.introduce("blocked"))["status"] == "auth"
        await client.send(*executions(1))
        code, (said,) = await client.ended()
        assert code == 1000
        assert (said["status"], said["action"], said["time_limit"]) == ("blocklist", "MAINTAIN", "DAYS")
        assert "message" in said


@pytest.mark.configured("blocklist_drop", blocklist={"testcase-blocked": "DROP"})
async def test_who_is_to_be_dropped_is_told_so(server: Server) -> None:
    """It goes as for one who is to wait, with the action DROP, for good."""
    async with server.connected() as client:
        assert (await client.introduce("blocked"))["status"] == "auth"
        await client.send(*executions(1))
        code, (said,) = await client.ended()
        assert code == 1000
        assert (said["status"], said["action"], said["time_limit"]) == ("blocklist", "DROP", "PERMANENT")


# -- where it comes from -----------------------------------------------------------------------------------------------


async def test_a_source_no_module_declares_is_answered_and_then_dropped(server: Server, student: str) -> None:
    """The answer to the identity comes first, and then the connection is dropped (1006): it was not success."""
    async with server.connected() as client:
        answer = await client.introduce(student, "org.exec_events.unheard_of")
        assert answer["status"] == "auth"
        assert await client.ended() == (1006, [])


async def test_without_a_source_events_are_accepted_and_not_reduced(server: Server, student: str) -> None:
    """What a connection sends that never said where from is taken to its end, and nothing of it is counted."""
    async with server.introduced(student, source=None) as client:
        await client.send(*executions(3), {"event": "terminate"})
        assert await client.ended() == (1000, [])
    assert await server.count(student) == 0


@pytest.mark.parametrize(
    "event", [{"event": "fetch_blob"}, {"event": "save_blob", "blob": 1}], ids=lambda e: e["event"]
)
async def test_without_a_source_there_are_no_blobs(server: Server, student: str, event: Frame) -> None:
    """A connection that never said where its events come from is dropped when it asks for a barrier."""
    async with server.introduced(student, source=None) as client:
        await client.send(event | {"activity": "checkpoint"})
        assert await client.ended() == (1006, [])


async def test_a_source_that_is_said_after_the_identity_has_no_reducers(server: Server, student: str) -> None:
    """Reducers are chosen when the identity is answered: a source that comes later is in the events, and that is all."""
    async with server.introduced(student, source=None) as client:
        await client.send({"event": "lock_fields", "fields": {"source": SOURCE}}, *executions(3))
        await client.barrier()
    assert await server.count(student) == 0


async def test_a_hyphen_in_a_source_does_not_find_its_module(server: Server, student: str) -> None:
    """Reducers are chosen by the source as it was sent: with a hyphen it is one that no module declares."""
    async with server.connected() as client:
        assert (await client.introduce(student, SOURCE.replace("_", "-")))["status"] == "auth"
        assert await client.ended() == (1006, [])


@pytest.mark.configured("probe")
async def test_a_hyphen_in_a_source_is_an_underscore_to_reducers(server: Server, student: str) -> None:
    """A second source with a hyphen is in the events with an underscore."""
    async with server.introduced(student) as client:
        await client.send({"event": "lock_fields", "fields": {"source": "org.some-where"}}, *executions(1))
        await client.barrier()
    assert (await server.made_of(student, "naive"))["last"]["source"] == "org.some_where"


async def test_a_source_that_changes_keeps_the_reducers(server: Server, student: str) -> None:
    """After a second lock_fields the reducers of the first source go on, whatever the second is."""
    first, second = executions(2)
    async with server.introduced(student) as client:
        await client.send(first, {"event": "lock_fields", "fields": {"source": "org.exec_events.unheard_of"}}, second)
        await client.barrier()
        assert await server.count(student) == 2


async def test_locked_fields_are_put_into_every_event(server: Server, student: str) -> None:
    """A field that was locked is in the event before the reducers see it, over the event's own."""
    frames = executions(3)
    async with server.introduced(student) as client:
        await client.send({"event": "lock_fields", "fields": {"seq": 0, "hash": frames[0]["hash"]}})
        await client.send(*(frames[0] for _ in frames))
        await client.barrier()
        assert await server.state(student) == {"executions": 1, "duplicates": 2}


@pytest.mark.configured("probe")
async def test_keys_of_some_names_are_renamed(server: Server, student: str) -> None:
    """Hyphens of four keys at the top of an event are underscores before reducers see it; other keys stay."""
    keys = {"event-type": 1, "user-tag": 2, "unique-id": 3, "local-storage": 4, "other-key": 5}
    (frame,) = executions(1)
    async with server.introduced(student) as client:
        await client.send(frame | keys)
        await client.barrier()
    last = (await server.made_of(student, "naive"))["last"]
    assert {key: last[key] for key in last if last[key] in keys.values() and key != "seq"} == {
        "event_type": 1,
        "user_tag": 2,
        "unique_id": 3,
        "local_storage": 4,
        "other-key": 5,
    }


@pytest.mark.configured("probe")
async def test_reducers_see_the_frame_of_the_identity_and_who_sends_in_each(server: Server, student: str) -> None:
    """The frame that identifies reaches reducers as any other, and each event carries its sender and its source."""
    async with server.introduced(student) as client:
        await client.send(*executions(3))
        await client.barrier()
    made = await server.made_of(student, "naive")
    assert (made["frames"], made["executions"]) == (4, 3)
    assert made["last"]["source"] == SOURCE
    assert made["last"]["auth"] == {
        "sec": "unauthenticated",
        "user_id": f"testcase-{student}",
        "providence": "tc",
        "safe_user_id": f"tc-testcase-{student}",
    }


# -- what ends a connection --------------------------------------------------------------------------------------------

DEADLY: dict[str, str | bytes] = {
    "not JSON": "so it is",
    "a list": "[]",
    "a number": "1",
    "no event": "{}",
    "a null event": '{"event": null}',
    "lock_fields without fields": '{"event": "lock_fields"}',
    "fetch_blob without activity": '{"event": "fetch_blob"}',
    "save_blob without activity": '{"event": "save_blob", "blob": 1}',
    "save_blob without a blob": '{"event": "save_blob", "activity": "checkpoint"}',
    "an event that is a number": '{"event": 5}',
    "a client that is no object": '{"event": "x", "client": 5}',
    "nothing": "",
    "a binary frame": b'{"event": "x"}',
}


@pytest.mark.parametrize("deadly", DEADLY.values(), ids=DEADLY.keys())
async def test_a_frame_it_cannot_use_drops_the_connection(server: Server, student: str, deadly: str | bytes) -> None:
    """The connection is dropped without a word (1006); what came before is counted, what queued behind is lost."""
    before, after = executions(2)
    async with server.introduced(student) as client:
        await client.send(before)
        await client.barrier()
        await client.send_raw(deadly)
        await client.send_raw(json.dumps(after))
        assert await client.ended() == (1006, [])
    assert await server.count(student) == 1


async def test_nan_and_a_lone_surrogate_are_taken(server: Server, student: str) -> None:
    """What is not JSON by its standard, but Python's parser takes, is an event as any other."""
    first, second = executions(2)
    async with server.introduced(student) as client:
        await client.send_raw(json.dumps(first | {"odd": float("nan")}))
        await client.send_raw(json.dumps(second | {"odd": "\ud800"}))
        await client.barrier()
        assert await server.count(student) == 2


async def test_a_frame_of_almost_4_mib_is_taken(server: Server, student: str) -> None:
    """3.9 MiB are counted as any other."""
    (frame,) = executions(1)
    async with server.introduced(student) as client:
        await client.send_raw(json.dumps(frame | {"padding": "x" * int(3.9 * MIB)}))
        await client.barrier()
        assert await server.count(student) == 1


async def test_a_frame_of_more_than_4_mib_ends_the_connection(server: Server, student: str) -> None:
    """4.1 MiB are not counted, and the connection is over."""
    (frame,) = executions(1)
    async with server.introduced(student) as client:
        await client.send_raw(json.dumps(frame | {"padding": "x" * int(4.1 * MIB)}))
        code, said = await client.ended()
        assert code in {1006, 1009}  # the server says 1009 (too big) and is gone: which of them a client sees depends
        assert said == []
    assert await server.count(student) == 0


@pytest.mark.configured("probe")
async def test_in_deploy_mode_a_reducer_that_raises_is_not_heard_of(server: Server, student: str) -> None:
    """The reducers before it saw the event, those after it never do, and the barrier answers as if all were well."""
    first, second, third = executions(3)
    async with server.introduced(student) as client:
        await client.send(first, second | {"event": "exec_events_raise"}, third)
        await client.barrier()
    assert (await server.made_of(student, "naive"))["frames"] == 4
    assert (await server.made_of(student, "tally"))["executions"] == 2


@pytest.mark.configured("dev", run_mode="dev")
async def test_in_dev_mode_a_reducer_that_raises_drops_the_connection(server: Server, student: str) -> None:
    """The client sees 1006 and nothing else."""
    async with server.introduced(student) as client:
        await client.send({"event": "exec_events_raise"})
        assert await client.ended() == (1006, [])


# -- how often it counts -----------------------------------------------------------------------------------------------


async def test_what_is_sent_twice_reaches_the_reducers_twice(server: Server, student: str) -> None:
    """The server drops no copy: a reducer that knows (chain, seq) has 30 executions and 30 duplicates."""
    frames = executions(30)
    for _ in range(2):
        async with server.introduced(student) as client:
            await client.send(*frames)
            await client.barrier()
    assert await server.state(student) == {"executions": 30, "duplicates": 30}


@pytest.mark.configured("probe")
async def test_a_naive_reducer_counts_copies(server: Server, student: str) -> None:
    """30 events sent twice are 60 to a reducer that does not look."""
    frames = executions(30)
    for _ in range(2):
        async with server.introduced(student) as client:
            await client.send(*frames)
            await client.barrier()
    assert (await server.made_of(student, "naive"))["executions"] == 60


@pytest.mark.configured("shared_store", kvs="file")
async def test_two_sockets_of_one_student_lose_updates(server: Server, student: str) -> None:
    """Where a read and its write are two round trips, 1,000 events on two sockets at once are counted as fewer."""
    async with server.connected() as one, server.connected() as other:
        # What waits for its identity is processed in one go, so that the two are at it at the same time.
        for client in (one, other):
            await client.send({"event": "lock_fields", "fields": {"source": SOURCE}}, *executions(500))
            await client.introduce(student)
        await asyncio.gather(one.barrier(), other.barrier())
    assert 0 < (await server.made_of(student, "naive"))["executions"] < 1000


# -- what only the stand-in can be asked -------------------------------------------------------------------------------


async def _resume(server: Server, student: str, frames: list[Frame]) -> None:
    """Send what the checkpoint says was not processed, with a checkpoint after every 50."""
    async with server.introduced(student) as client:
        await client.send({"event": "fetch_blob", "activity": "checkpoint"})
        begin = (await client.receive())["data"] or 0
        for at in range(begin, len(frames), 50):
            batch = frames[at : at + 50]
            await client.send(*batch, {"event": "save_blob", "activity": "checkpoint", "blob": at + len(batch)})
            await client.barrier()


async def test_a_stand_in_that_is_killed_keeps_its_state_in_a_file(tmp_path: Path, student: str) -> None:
    """After kill -9 in a stream, a client that resumes at the checkpoint has sent again at most a batch, and all is counted once."""
    frames = executions(3000)
    with StandInProcess("test_learning_observer:REDUCERS", folder=tmp_path, kvs="file") as process:
        server = Server(process.url, process.url.replace("in/", "communication_protocol"))
        sending = asyncio.create_task(_resume(server, student, frames))
        while not process.states("naive").get(f"tc-testcase-{student}", {}).get("executions", 0) > 300:
            await asyncio.sleep(0.01)
        process.kill()
        with pytest.raises((ConnectionError, TypeError, AssertionError)):
            await sending
        process.start()
        await _resume(server, student, frames)
        made: dict[str, Any] = process.states("tally")[f"tc-testcase-{student}"]
    assert made["executions"] == 3000
    assert frames_resent(tmp_path) <= 50
    assert len(frames_received(tmp_path)) == 3000


async def test_a_stand_in_whose_state_is_in_memory_forgets_checkpoint_and_state_together(student: str) -> None:
    """A process that starts anew has no checkpoint either, so that a client who resumes sends all again."""
    frames = executions(100)
    with StandInProcess("test_learning_observer:REDUCERS", kvs="memory") as process:
        server = Server(process.url, process.url.replace("in/", "communication_protocol"))
        for _ in range(2):
            await _resume(server, student, frames)
            made = process.states("tally")[f"tc-testcase-{student}"]
            assert (made["executions"], made["duplicates"]) == (100, 0)
            process.kill()
            process.start()
