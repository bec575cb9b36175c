"""Who is silent: recorders' words, servers that run and a time in, alarms out; and what the Hub says of servers."""

from __future__ import annotations

import threading
import urllib.error
from datetime import UTC, datetime, timedelta
from email.message import Message
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exec_events_consumers.dashboard.hub_servers import HubServers, running_servers
from exec_events_consumers.dashboard.repeated import pause_after, repeated
from exec_events_consumers.dashboard.silence import INTERVALS, RunningServer, Word, silences, state_of
from exec_events_schemas.errors import LabelKeyError
from exec_events_schemas.server_label import label_key, server_label

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
KEY = b"k" * 64


def ago(seconds: float) -> datetime:
    """So long before the moment of these tests."""
    return NOW - timedelta(seconds=seconds)


def server(user: str = "ada", started: float = 3600, ready: float | None = None) -> RunningServer:
    """A running server of a user."""
    return RunningServer(user, "", f"label of {user}", ago(started), ago(started if ready is None else ready))


def word(seconds: float, user: str = "ada", ended: bool = False, interval: timedelta | None = MINUTE) -> Word:
    """What the recorder of a user's server said last."""
    return Word(f"label of {user}", ago(seconds), ended, interval)


def reasons(words: list[Word], *servers: RunningServer) -> list[tuple[str, str]]:
    """Whose servers raise an alarm, and why."""
    return [(one.user, one.reason) for one in silences(words, servers, MINUTE, NOW)]


@pytest.mark.parametrize(
    ("words", "running", "reason"),
    [
        ([word(179)], server(), None),
        ([word(181)], server(), "fell silent"),
        ([word(181), word(5)], server(), None),
        ([word(179, ended=True)], server(), None),
        ([word(181, ended=True)], server(), "stopped"),
        ([], server(started=179), None),
        ([], server(started=181), "never spoke"),
        ([], server(started=600, ready=179), None),
        ([word(4000, ended=True)], server(), "never spoke"),
        ([word(4000, ended=True)], server(started=100), None),
        ([word(10, user="ben")], server(), "never spoke"),
        ([word(5, interval=timedelta(seconds=1))], server(), "fell silent"),
        ([word(181, interval=timedelta(days=1))], server(), "fell silent"),
        ([word(179, interval=None)], server(), None),
        ([word(-181)], server(), "never spoke"),
        ([word(-100)], server(), None),
        ([Word(None, NOW, False, MINUTE)], server(), "never spoke"),
    ],
)
def test_a_server_whose_recorder_is_silent_is_an_alarm(
    words: list[Word], running: RunningServer, reason: str | None
) -> None:
    """A server raises an alarm once its recorder has said nothing for three intervals, and the alarm says how that came."""
    assert reasons(words, running) == ([] if reason is None else [("ada", reason)])


USERS = st.sampled_from(["ada", "ben", "cleo"])
WORDS = st.lists(
    st.builds(
        word,
        st.integers(-400, 8000),
        USERS,
        st.booleans(),
        st.one_of(st.none(), st.integers(1, 200).map(lambda seconds: timedelta(seconds=seconds))),
    )
)
SERVERS = st.lists(st.builds(server, USERS, st.integers(0, 8000), st.integers(0, 8000)), unique_by=lambda one: one.user)


@given(WORDS, SERVERS)
def test_an_alarm_is_for_a_server_that_runs_and_was_not_heard_of(
    words: list[Word], servers: list[RunningServer]
) -> None:
    """Whatever was said when, there is one alarm for each running server of which three intervals heard nothing, no other."""
    alarms = silences(words, servers, MINUTE, NOW)
    assert len({alarm.user for alarm in alarms}) == len(alarms)
    silent = {alarm.user for alarm in alarms}
    for running in servers:
        heard = [
            running.ready,
            *(w.at for w in words if w.server == running.label and w.at <= NOW + INTERVALS * MINUTE),
        ]
        if NOW - max(heard) > INTERVALS * MINUTE:
            assert running.user in silent
        if running.user in silent:
            assert max(heard) < NOW
    assert silent <= {running.user for running in servers}


@given(WORDS, SERVERS, st.randoms())
def test_the_order_in_which_words_come_makes_no_difference(
    words: list[Word], servers: list[RunningServer], rng: Any
) -> None:
    """The same words in another order raise the same alarms, but for two words of one moment."""
    words = list({(w.server, w.at): w for w in words}.values())
    shuffled = rng.sample(words, len(words))
    assert silences(words, servers, MINUTE, NOW) == silences(shuffled, servers, MINUTE, NOW)


@given(WORDS, SERVERS)
def test_one_more_word_ends_the_alarm(words: list[Word], servers: list[RunningServer]) -> None:
    """A server whose recorder speaks now is no alarm, whatever was said before."""
    spoken = [Word(running.label, NOW, False, MINUTE) for running in servers]
    assert silences([*(w for w in words if w.at < NOW), *spoken], servers, MINUTE, NOW) == []


def test_a_recorder_without_a_hub_is_silent_by_its_own_interval() -> None:
    """Without any server to compare with, a recorder speaks, is silent, or has ended."""
    assert state_of(word(179), NOW) == "speaks"
    assert state_of(word(181), NOW) == "silent"
    assert state_of(word(10, interval=timedelta(seconds=1)), NOW) == "silent"
    assert state_of(word(9999, ended=True), NOW) == "ended"


def model(name: str, **servers: dict[str, Any]) -> dict[str, Any]:
    """A user as the Hub describes them."""
    plain = {"name": "", "ready": True, "pending": None, "started": "2026-11-24T11:00:00.000000Z"}
    return {"name": name, "servers": {at: {**plain, **more} for at, more in servers.items()}}


def pages(*users: dict[str, Any], size: int = 1) -> Any:
    """A Hub that gives its users a page at a time."""

    def ask(path: str) -> Any:
        offset = int(parse_qs(urlsplit(path).query)["offset"][0])
        following = {"offset": offset + size} if offset + size < len(users) else None
        return {"items": users[offset : offset + size], "_pagination": {"next": following}}

    return ask


def test_servers_are_those_that_are_ready() -> None:
    """Over all pages of the Hub's users, servers count that are ready and neither start nor stop, each with its own label."""
    ask = pages(
        model("ada", default={}, second={"name": "second"}),
        model("ben", default={"pending": "stop", "ready": False}),
        model("cleo", default={"ready": False, "pending": "spawn"}, other={"pending": "stop"}),
        model("dan", default={}),
    )
    found = list(running_servers(ask, KEY, {}, NOW))
    assert [(one.user, one.name) for one in found] == [("ada", ""), ("ada", "second"), ("dan", "")]
    assert [one.label for one in found] == [server_label(KEY, one.user, one.name) for one in found]
    assert len({one.label for one in found}) == 3
    assert not any(one.user in one.label for one in found)
    known = {(found[0].label, found[0].started): ago(7)}
    assert [one.ready for one in running_servers(ask, KEY, known, NOW)] == [ago(7), NOW, NOW]


def test_a_hub_that_does_not_answer_raises_no_alarm() -> None:
    """What the Hub said is believed for as long as no alarm can come of it, and what is wrong with it is said."""
    at = 0.0
    answers: list[Any] = [pages(model("ada", default={}))]

    def ask(path: str) -> Any:
        if isinstance(answers[0], Exception):
            raise answers[0]
        return answers[0](path)

    hub = HubServers(ask, KEY, 180, lambda: at)
    assert hub.watched().servers is None
    assert hub.look()
    assert len(hub.watched().servers or ()) == 1
    for error, words in (
        (OSError("refused"), "refused"),
        (ValueError("no JSON"), "no JSON"),
        (urllib.error.HTTPError("http://hub", 403, "Forbidden", Message(), None), "list:users"),
    ):
        answers[0] = error
        assert not hub.look()
        assert words in hub.watched().problem
        assert len(hub.watched().servers or ()) == 1
    at += 181
    assert hub.watched().servers is None
    answers[0] = pages({"name": "ada"})
    assert not hub.look()
    assert "read:servers" in hub.watched().problem


def test_who_does_not_answer_is_asked_more_seldom() -> None:
    """It is asked again and again, after twice the time each time it fails, up to a minute, and as ever once it answers."""
    pauses = [10.0]
    for is_well in (True, False, False, False, False, True):
        pauses.append(pause_after(is_well, pauses[-1], 10.0))
    assert pauses[1:] == [10, 20, 40, 60, 60, 10]
    asked = threading.Semaphore(0)

    def look() -> bool:
        asked.release()
        return True

    with repeated(look, 0.01):
        assert all(asked.acquire(timeout=10) for _ in range(3))


def test_the_key_of_the_labels_is_made_once_and_for_one_account(tmp_path: Any) -> None:
    """The key is made where there is none, kept, and refused where others can read it or it is short."""
    path = tmp_path / "labels.key"
    assert label_key(path) == label_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o640)
    with pytest.raises(LabelKeyError, match="chmod 600"):
        label_key(path)
    path.write_text("short")
    path.chmod(0o600)
    with pytest.raises(LabelKeyError, match="shorter"):
        label_key(path)
    with pytest.raises(LabelKeyError, match="made"):
        label_key(tmp_path / "nowhere" / "labels.key")
