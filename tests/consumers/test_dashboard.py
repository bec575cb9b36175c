"""The dashboard in a process of its own: who gets in, what its pages say, and that they are true."""

from __future__ import annotations

import csv
import io
import json
import random
import re
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import recount
from dashboards import SECRET, Running, first_messages, running
from logs import MINUTE_US, Log, aggregate, random_log, sqlite_url, time_at

from exec_events_consumers.dashboard.access import TokenAccess
from exec_events_consumers.dashboard.app import Dashboard, application
from exec_events_consumers.store import open_engine
from spool_files import FIRST, chain_of, execution

NASTY = "a/../b?c=<script>alert(1)</script>&\"'%2e #ü\u202e=SUM(A1)"
EVERYWHERE = ("", "person", "notebook", "cohort", "integrity", "metrics", "live", "static/dashboard.js", "nowhere")


@pytest.fixture(scope="module")
def log() -> Log:
    """Runs of four people in two notebooks, and one who chose the worst of names."""
    made = random_log(random.Random(4), 400)
    at = time_at(400 * 9 * MINUTE_US)
    times = {"time": at, "requested_at": at, "started_at": at, "finished_at": at}
    ended = {"status": "error", "error_name": "NameError", "same_code_as_last_run": False}
    names = {"subject": "=1+1", "notebook": NASTY, "cell_id": "<b>cell</b>"}
    made.add({**execution(FIRST, 7, 401), **times, **ended, **names}, chain_of(FIRST, 7))
    return made


@pytest.fixture(scope="module")
def dashboard(log: Log, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A dashboard of that log."""
    folder = tmp_path_factory.mktemp("dashboard")
    url = sqlite_url(folder)
    aggregate(url, log.records)
    with running(folder, ["dashboard", "--store", url, "--port", "0"]) as one:
        yield one


@pytest.fixture(scope="module")
def runs(log: Log) -> list[dict[str, Any]]:
    """The log's runs that count, in order, by the plain recount."""
    return recount.runs_of(log.events, {event["execution_id"]: at for at, event in enumerate(log.events)})


def test_nobody_gets_anything_without_the_token(dashboard: Running) -> None:
    """Every route there is, and one there is not, refuses whoever has no token, a wrong one, or a wrong cookie."""
    engine = open_engine("sqlite://")
    routes = {getattr(route, "path", "").strip("/") for route in Dashboard(engine).routes}
    assert routes <= {path.partition("/")[0] for path in EVERYWHERE}, "a route that this test does not ask for"
    port = httpx.URL(dashboard.base).port
    for path in EVERYWHERE:
        address = f"{dashboard.base}{path}"
        for refused in (
            httpx.get(address),
            httpx.get(address, params={"token": "wrong"}),
            httpx.get(address, params={"token": ""}),
            httpx.get(address, headers={"authorization": "Bearer wrong"}),
            httpx.get(address, headers={"cookie": f"exec-events-{port}=wrong"}),
            httpx.get(address, headers={"cookie": f"exec-events-{port}={dashboard.token}"}),
            httpx.post(address),
        ):
            assert refused.status_code == 401, path
            assert "person-" not in refused.text
            assert "set-cookie" not in refused.headers
            assert "script-src 'self'" in refused.headers["content-security-policy"]


def test_whoever_has_the_token_gets_everywhere(dashboard: Running) -> None:
    """With the token every route answers, and with the same headers."""
    for path, status in zip(EVERYWHERE, (200, 200, 404, 200, 200, 200, 200, 200, 404), strict=True):
        headers = {"authorization": f"Bearer {dashboard.token}"}
        with httpx.stream("GET", f"{dashboard.base}{path}", headers=headers, timeout=20) as answer:
            assert answer.status_code == status, path
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert "server" not in answer.headers


def test_the_token_leaves_the_url(dashboard: Running) -> None:
    """The token in the URL becomes a cookie that scripts cannot read and other sites cannot send, which then suffices."""
    with httpx.Client() as browser:
        asked = browser.get(f"{dashboard.base}person", params={"subject": "subject-1", "token": dashboard.token})
        assert asked.status_code == 303
        assert asked.headers["location"] == "./person?subject=subject-1"
        cookie = asked.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=lax" in cookie
        assert dashboard.token not in cookie
        page = browser.get(f"{dashboard.base}person", params={"subject": "subject-1"})
        assert page.status_code == 200
        assert dashboard.token not in page.text


def test_a_redirect_stays_here(dashboard: Running) -> None:
    """Whatever the path, the redirect that takes the token away leads nowhere else."""
    for path in ("/evil.example", "//evil.example/x", "javascript:alert(1)", "%0d%0aset-cookie:a=b"):
        asked = httpx.get(f"{dashboard.base}{path}", params={"token": dashboard.token})
        assert asked.headers.get("location", "./").startswith("./"), path
        assert "a" not in asked.cookies


def test_it_is_asked_by_its_own_name(dashboard: Running) -> None:
    """Under a name that is not this machine's, as after DNS rebinding, nobody gets anything, the token or not."""
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "[::1].evil.example"):
        headers = {"host": host, "authorization": f"Bearer {dashboard.token}"}
        assert httpx.get(dashboard.base, headers=headers).status_code == 421, host


def test_neither_token_nor_environment_is_shown(dashboard: Running) -> None:
    """The token is neither in the arguments nor in what it logs, and no answer has anything of its environment."""
    for path in (*EVERYWHERE[:6], "nowhere", "person?since=x", "?format=x", "person?subject=nobody"):
        text = dashboard.get(path).text
        assert SECRET not in text
        assert dashboard.token not in text
    assert dashboard.token not in dashboard.errors
    arguments = Path(f"/proc/{dashboard.process.pid}/cmdline")
    if arguments.exists():
        assert dashboard.token.encode() not in arguments.read_bytes()


def test_now_is_a_recount(dashboard: Running, runs: list[dict[str, Any]]) -> None:
    """The figures of everybody, and who ran most, are those of the log."""
    figures = dashboard.figures(since="all")
    counted = recount.counts(runs)
    assert figures["facts"]["runs"] == counted["runs"]
    assert figures["facts"]["errors"] == counted["errors"]
    assert figures["facts"]["error-rate"] == round(100 * counted["errors"] / counted["runs"], 1)
    people = {row["subject"]: {k: v for k, v in row.items() if k != "subject"} for row in figures["tables"]["people"]}
    assert people == {
        subject: recount.counts(theirs) for (subject,), theirs in recount.grouped(runs, "subject").items()
    }
    assert sum(row["runs"] for row in figures["tables"]["activity"]) == counted["runs"]
    latest = sorted(runs, key=lambda run: run["finished_at"])[-1]
    assert figures["tables"]["latest"][0]["finished_at"] == latest["finished_at"]


def test_a_span_is_a_recount(dashboard: Running, runs: list[dict[str, Any]]) -> None:
    """With since and until, each page counts the runs that were asked for between, and no others."""
    since, until = time_at(400 * MINUTE_US), time_at(1500 * MINUTE_US)
    within = [run for run in runs if since <= run["requested_at"] <= until]
    assert 0 < len(within) < len(runs)
    span = {"since": since, "until": until}
    for (subject,), theirs in recount.grouped(within, "subject").items():
        facts = dashboard.figures("person", subject=subject, **span)["facts"]
        assert {name: facts[name] for name in ("runs", "ok", "errors")} == {
            name: recount.counts(theirs)[name] for name in ("runs", "ok", "errors")
        }
    for notebook in ("notebook-0", "notebook-1"):
        found = dashboard.figures("cohort", notebook=notebook, **span)
        assert_cohort(found, [run for run in within if run["notebook"] == notebook])


def assert_cohort(found: Any, theirs: list[dict[str, Any]]) -> None:
    """A cohort's cells, progress, errors and shared code, against their definitions in docs/dashboard.md."""
    people = {run["subject"] for run in theirs}
    by_cell = recount.grouped(theirs, "cell_id")
    assert found["facts"]["people"] == len(people)
    cells = {row["cell_id"]: row for row in found["tables"]["cells"]}
    assert set(cells) == {cell for (cell,), runs in by_cell.items() if len({r["subject"] for r in runs}) > 1}
    place = {cell: row["place"] for cell, row in cells.items()}
    furthest = {who: max(place[r["cell_id"]] for r in theirs if r["subject"] == who) for who in people}
    for (cell,), runs in by_cell.items():
        who = {name: {r["subject"] for r in runs if r["status"] == name} for name in ("ok", "error")}
        assert cells[cell]["ran"] == len({r["subject"] for r in runs})
        assert cells[cell]["right"] == len(who["ok"])
        assert cells[cell]["failed"] == len(who["error"])
        assert cells[cell]["reached"] == sum(far >= place[cell] for far in furthest.values())
        assert (cells[cell]["runs"], cells[cell]["errors"]) == (len(runs), recount.counts(runs)["errors"])
    right = sorted(len({r["cell_id"] for r in theirs if r["subject"] == p and r["status"] == "ok"}) for p in people)
    median = right[-(-len(right) // 2) - 1]
    assert found["facts"]["progress-median"] == round(100 * median / len(cells), 1)
    for row in found["tables"]["errors"]:
        same = [r for r in by_cell[row["cell_id"],] if r["status"] == "error" and r["error_name"] == row["error_name"]]
        assert (row["times"], row["people"]) == (len(same), len({r["subject"] for r in same}))
    for row in found["tables"]["shared-code"]:
        same = [r for r in theirs if r["code_ast_hash"] == row["code_ast_hash"]]
        assert (row["runs"], row["people"]) == (len(same), len({r["subject"] for r in same}))


def test_a_cohort_is_a_recount(dashboard: Running, runs: list[dict[str, Any]]) -> None:
    """Per cell how many reached it, ran it and got it right, and who is stuck, are those of the log."""
    for notebook in ("notebook-0", "notebook-1"):
        theirs = [run for run in runs if run["notebook"] == notebook]
        found = dashboard.figures("cohort", notebook=notebook)
        assert_cohort(found, theirs)
        stuck = {}
        for (subject, cell), of_cell in recount.grouped(theirs, "subject", "cell_id").items():
            streaks = recount.streaks(of_cell)
            if streaks and streaks[-1][-1]["status"] == "error" and len(streaks[-1]) >= 3:
                stuck[subject, cell] = len(streaks[-1])
        rows = found["tables"]["stuck"]
        assert {(row["subject"], row["cell_id"]): row["errors_in_a_row"] for row in rows} == stuck


def test_a_notebook_is_a_recount(dashboard: Running, runs: list[dict[str, Any]]) -> None:
    """A notebook's timeline has its runs in order, with how they ended and whether the code was edited."""
    theirs = [run for run in runs if (run["subject"], run["notebook"]) == ("subject-1", "notebook-0")]
    figures = dashboard.figures("notebook", subject="subject-1", notebook="notebook-0")
    told = [
        (row["requested_at"], row["cell_id"], row["status"], row["edited"]) for row in figures["tables"]["timeline"]
    ]
    order = sorted(told)
    assert (
        sorted((run["requested_at"], run["cell_id"], run["status"], not run["same_code_as_last_run"]) for run in theirs)
        == order
    )
    assert [row[0] for row in told] == sorted(row[0] for row in told)
    assert figures["facts"]["cells"] == len(recount.ranks(theirs))


@pytest.mark.parametrize("path", ["person", "notebook", "cohort"])
def test_any_name_is_a_name(dashboard: Running, path: str) -> None:
    """A person and a notebook of any name have their pages, reached by links, on which the name is text and no markup."""
    names = {"subject": "=1+1", "notebook": NASTY}
    wanted = {
        key: value
        for key, value in names.items()
        if path == "notebook" or key == {"person": "subject"}.get(path, "notebook")
    }
    answer = dashboard.get(path, **wanted)
    assert answer.status_code == 200
    assert "<script>alert" not in answer.text
    assert "<b>cell" not in answer.text
    assert not re.search(r"<script(?![^>]* src=)|\son\w+=\"|\sstyle=", answer.text), "inline, which the policy forbids"
    assert quote(NASTY, safe="").replace("%20", "+") in dashboard.get("", since="all").text


def test_csv_says_what_json_says(dashboard: Running) -> None:
    """Each table is to be had as CSV by its id, with the values of the JSON; what a spreadsheet would run is quoted."""
    for path, query in (("", {"since": "all"}), ("cohort", {"notebook": "notebook-0"}), ("integrity", {})):
        figures = dashboard.figures(path, **query)
        for table, rows in figures["tables"].items():
            answer = dashboard.get(path, **query, format="csv", table=table)
            assert answer.headers["content-type"].startswith("text/csv")
            read = list(csv.DictReader(io.StringIO(answer.text)))
            assert len(read) == len(rows)
            for one, other in zip(read, rows, strict=True):
                told = {key: "" if value is None else str(value) for key, value in other.items()}
                assert {key: value.removeprefix("'") for key, value in one.items()} == told
                assert not any(value.startswith("=") for value in one.values())
    assert dashboard.get("", format="csv", table="nothing").status_code == 404


def test_what_cannot_be_answered_is_said(dashboard: Running) -> None:
    """A time range, a format, a person that there are not is answered with what there is."""
    assert (dashboard.get(since="yesterday").status_code, dashboard.get(until="5").status_code) == (400, 400)
    assert "15m" in dashboard.get(since="yesterday").text
    assert dashboard.get(since="1h", until="2h").status_code == 400
    assert dashboard.get(since="999999w").status_code == 400
    assert dashboard.get(format="xml").status_code == 400
    assert dashboard.get("person", subject="nobody").status_code == 404


def test_pages_are_for_everybody(dashboard: Running) -> None:
    """Each page has one heading, a language, a skip link to what it leads to, and tables with captioned headers."""
    for path, query in (("", {}), ("person", {}), ("cohort", {"notebook": "notebook-0"}), ("integrity", {})):
        text = dashboard.get(path, **query).text
        assert text.count("<h1") == 1
        assert '<html lang="en">' in text
        assert '<a class="skip" href="#main">' in text
        assert '<main id="main"' in text
        ids = re.findall(r'\sid="([^"]+)"', text)
        assert len(ids) == len(set(ids))
        for label in re.findall(r'aria-labelledby="([^"]+)"', text):
            assert label in ids
        assert text.count("<th ") == text.count('<th scope="col"')
    assert 'aria-live="polite"' in dashboard.get().text


def test_integrity_says_what_is_missing(tmp_path: Path) -> None:
    """A gap, a copy and a poison message are on the integrity page."""
    made = random_log(random.Random(6), 60, subjects=1)
    records = [*made.records[:20], *made.records[23:], made.records[3], (b"{poison", None)]
    url = sqlite_url(tmp_path)
    aggregate(url, records)
    with running(tmp_path, ["dashboard", "--store", url, "--port", "0"]) as one:
        figures = one.figures("integrity")
    assert {name: figures["facts"][name] for name in ("missing", "duplicates", "dead-letters", "forks")} == {
        "missing": 3,
        "duplicates": 1,
        "dead-letters": 1,
        "forks": 0,
    }
    (chain,) = figures["tables"]["chains"]
    assert json.loads(chain["gaps"]) == [[20, 22]]
    assert figures["tables"]["dead-letters"][0]["bytes"] == len(b"{poison")


def test_a_finished_run_shows(tmp_path: Path) -> None:
    """Every viewer, of whatever span, is told of a new row soon, without asking again."""
    made = Log()
    made.run(1, 0)
    url = sqlite_url(tmp_path)
    aggregate(url, made.records)
    with running(tmp_path, ["dashboard", "--store", url, "--port", "0"]) as one:
        headers = {"authorization": f"Bearer {one.token}"}
        with (
            httpx.stream("GET", f"{one.base}live?since=all", headers=headers, timeout=10) as everything,
            httpx.stream("GET", f"{one.base}live?since=2026-01-01", headers=headers, timeout=10) as lately,
        ):
            streams = [first_messages(answer.iter_lines()) for answer in (everything, lately)]
            assert [next(stream)["facts"]["runs"] for stream in streams] == ["1", "1"]
            for number in range(2, 5):
                made.run(1, number * MINUTE_US)
                aggregate(url, made.records)
                began = time.monotonic()
                for stream in streams:
                    assert next(m for m in stream if m["facts"]["runs"] == str(number))["tables"]["latest"]
                assert time.monotonic() - began < 10


def test_it_reads_and_never_writes(tmp_path: Path) -> None:
    """The store is byte for byte what it was, and where there is none there is none after."""
    url = sqlite_url(tmp_path)
    aggregate(url, random_log(random.Random(7), 20).records)
    file = tmp_path / "tables.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = file.read_bytes()
    with running(tmp_path, ["dashboard", "--store", url, "--port", "0"]) as one:
        assert one.get().status_code == 200
    assert file.read_bytes() == before


def test_the_token_is_kept_from_others(tmp_path: Path) -> None:
    """The token is in a file of its user's alone; a --token-file is read again, and refused where others can read it."""
    url = sqlite_url(tmp_path)
    aggregate(url, random_log(random.Random(7), 20).records)
    arguments = ["dashboard", "--store", url, "--port", "0"]
    with running(tmp_path, arguments) as one:
        (kept,) = (tmp_path / "data").rglob("dashboard.token")
        assert kept.read_text().strip() == one.token
        assert kept.stat().st_mode & 0o777 == 0o600
        code, _ = one.end(signal.SIGTERM)
        assert code == 0
        first = one.token
    file = tmp_path / "mine"
    tokens = []
    for _ in range(2):
        with running(tmp_path, [*arguments, "--token-file", str(file)]) as one:
            tokens.append(one.token)
    assert tokens[0] == tokens[1] != first
    file.chmod(0o640)
    with pytest.raises(AssertionError, match="chmod 600"), running(tmp_path, [*arguments, "--token-file", str(file)]):
        pass


def test_only_a_hubs_service_can_ask_a_hub(tmp_path: Path) -> None:
    """With the key of a Hub's servers and no Hub it ends, and says what to leave away; so it does where others can read the key."""
    url = sqlite_url(tmp_path)
    aggregate(url, random_log(random.Random(7), 20).records)
    key = tmp_path / "servers.key"
    arguments = ["dashboard", "--store", url, "--port", "0", "--server-key-file", str(key)]
    with pytest.raises(AssertionError, match="leave --server-key-file away"), running(tmp_path, arguments):
        pass
    key.write_text("k" * 64)
    key.chmod(0o644)
    hub = {"JUPYTERHUB_API_URL": "http://127.0.0.1:9/hub/api", "JUPYTERHUB_API_TOKEN": "t" * 32}
    with pytest.raises(AssertionError, match="chmod 600"), running(tmp_path, arguments, hub):
        pass


def test_a_long_name_and_a_proxy_prefix_work(tmp_path: Path) -> None:
    """Under a prefix, as a Hub's proxy leaves it in the path, pages and what they need are found."""
    import asyncio

    url = sqlite_url(tmp_path)
    aggregate(url, random_log(random.Random(7), 20).records)
    engine = open_engine(url, read_only=True)
    app = application(Dashboard(engine), TokenAccess("t" * 20, 1), ["hub.example"], "/services/runs/")

    async def asked() -> list[int]:
        headers = {"authorization": f"Bearer {'t' * 20}"}
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://hub.example", headers=headers) as client:
            paths = ("/services/runs/", "/services/runs/person", "/services/runs/static/dashboard.css", "/person")
            return [(await client.get(path)).status_code for path in paths]

    assert asyncio.run(asked()) == [200, 200, 200, 404]
    engine.dispose()
