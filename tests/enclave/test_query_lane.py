"""Declared queries through the real worker and acro: what is answered, suppressed, left to a steward, debited and kept."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exec_events_enclave.budgets import EPSILON_MICRO, QUERIES, BudgetLedger
from exec_events_enclave.commitments import commitment
from exec_events_enclave.errors import BudgetSpent, QueryError, QueryUnavailable
from exec_events_enclave.policy import Policy
from exec_events_enclave.policy_file import parse_policy
from exec_events_enclave.query.asked import AskedQueries
from exec_events_enclave.query.lane import Outcome, QueryLane
from exec_events_enclave.query.process import ask_worker
from exec_events_enclave.query.worker import result_of
from exec_events_schemas.catalogue import load
from exec_events_schemas.parse import parse

NOON_US = 1_793_620_800_000_000
DAY_US = 86_400_000_000
DATA_DIGEST = "sha256:" + "d" * 64
ABOUT = {
    "time": "2026-11-02T12:00:00.000000Z",
    "recorder_id": "6513270e-269e-4d37-b2a7-4de452e6b438",
    "trust": "enclave",
    "subject": "ada",
    "subject_from": "request",
}
COUNT = {"table": "pupils", "statistic": "count", "rows": ["school"]}
MEAN = {"table": "pupils", "statistic": "mean", "value": "score", "rows": ["school"]}
SMALL_SCHOOL = {"variable": "school", "equals": ["tiny"]}


def policy_of(folder: Path, epsilon: float | None = None, queries: int = 50) -> Policy:
    """A policy of the table of pupils in a folder."""
    more = f"epsilon_per_query: {epsilon}" if epsilon else "round_to: 5"
    granted = f", epsilon: {2 * epsilon}, epsilon_total: {3 * epsilon}" if epsilon else ""
    return parse_policy(f"""
name: attainment
version: 1
data: {folder}
mode: held
budgets: {{queries: {queries}{granted}}}
queries:
  {more}
  tables:
    pupils:
      file: pupils.csv
      person: pupil
      variables:
        school: {{kind: category, values: [north, south]}}
        year: {{kind: category, values: ["07", "08"]}}
        town: {{kind: category, values: [big, tiny]}}
        score: {{kind: number, lower: 0, upper: 100}}
        change: {{kind: number, lower: -100, upper: 100}}
        same: {{kind: number, lower: 0, upper: 100}}
""")


def pupils() -> pd.DataFrame:
    """120 pupils of two schools and years; one of them lives in the tiny town, and one has a singular score."""
    return pd.DataFrame(
        {
            "pupil": [f"p{n}" for n in range(120)],
            "school": ["north" if n % 2 else "south" for n in range(120)],
            "year": ["07" if n % 4 < 2 else "08" for n in range(120)],
            "town": ["tiny" if n == 60 else "big" for n in range(120)],
            "score": [40 + n % 21 + 0.123456 for n in range(120)],
            "change": [(n % 21) - 10 for n in range(120)],
            "same": [7.0] * 120,
        }
    )


class Site:
    """A lane with its files, on a folder of data."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.budgets = BudgetLedger(folder / "budgets.db")
        self.asked = AskedQueries(folder / "queries.db")
        self.lane = QueryLane(self.asked, self.budgets)
        self.number = 0

    def ask(self, policy: Policy, query: Any, person: str = "ada", now_us: int = NOON_US) -> Outcome:
        """Ask as the gateway does."""
        self.number += 1
        return self.lane.answer(
            policy,
            person,
            json.dumps(query).encode(),
            data_digest=DATA_DIGEST,
            query_id=f"q-{self.number:016x}",
            nonce=bytes([self.number % 256]) * 32,
            now_us=now_us + self.number,
        )


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A site with the pupils in a CSV file."""
    pupils().to_csv(tmp_path / "pupils.csv", index=False)
    made = Site(tmp_path)
    with closing(made.budgets), closing(made.asked):
        yield made


def cells(outcome: Outcome) -> list[dict[str, Any]]:
    """The cells of an answer."""
    assert outcome.outcome == "answered"
    assert outcome.answer is not None
    found: list[dict[str, Any]] = json.loads(outcome.answer)["cells"]
    return found


def test_a_safe_table_is_answered_rounded(site: Site) -> None:
    """A crosstab of counts comes back with every cell, rounded to 5, and a mean with 3 significant digits."""
    policy = policy_of(site.folder)
    by_year = cells(site.ask(policy, {**COUNT, "columns": ["year"]}))
    assert by_year[0] == {"at": {"school": "north", "year": "07"}, "count": 30}
    assert [cell["at"] for cell in by_year] == [
        {"school": s, "year": y} for s in ("north", "south") for y in ("07", "08")
    ]
    frame = pupils()
    expected = {school: float(f"{group.score.mean():.3g}") for school, group in frame.groupby("school")}
    assert {cell["at"]["school"]: cell["mean"] for cell in cells(site.ask(policy, MEAN))} == expected


def test_the_grand_total_and_filters_are_answered(site: Site) -> None:
    """A table of no variables is one cell, and a filter on categories and bounds lets through whom it says."""
    policy = policy_of(site.folder)
    where = [{"variable": "year", "equals": ["07"]}, {"variable": "score", "at_least": 45, "below": 60}]
    frame = pupils()
    number = len(frame[(frame.year == "07") & (frame.score >= 45) & (frame.score < 60)])
    (cell,) = cells(site.ask(policy, {"table": "pupils", "statistic": "count", "where": where}))
    assert cell == {"at": {}, "count": (number + 2) // 5 * 5}


@pytest.mark.parametrize(
    "query",
    [
        pytest.param({**COUNT, "rows": ["town"]}, id="threshold"),
        pytest.param({**COUNT, "where": [{"variable": "town", "equals": ["tiny"]}]}, id="one person"),
        pytest.param({**COUNT, "rows": ["school", "town"]}, id="empty cell"),
        pytest.param({**MEAN, "value": "same"}, id="all the same"),
        pytest.param({**COUNT, "where": [{"variable": "score", "below": 0}]}, id="nobody"),
    ],
)
def test_what_is_not_safe_is_suppressed_without_a_word(site: Site, query: Any) -> None:
    """A table that breaks a rule is suppressed whole: no number, no commitment, no reason, and the same words for each."""
    outcome = site.ask(policy_of(site.folder), query)
    assert (outcome.outcome, outcome.answer, outcome.nonce, outcome.overlaps) == ("suppressed", None, None, None)
    assert outcome.query_answered().keys() == {
        "dataset",
        "policy_digest",
        "query_id",
        "query_hash",
        "data_digest",
        "outcome",
    }


@pytest.mark.parametrize("value", ["score", "change"])
def test_a_dominant_value_is_suppressed(site: Site, value: str) -> None:
    """A mean that one person's value makes is suppressed, also where values are negative, and answered without that person."""
    policy = policy_of(site.folder)
    frame = pupils()
    frame[value] = frame[value].astype(float)
    frame.loc[0, value] = 1e9
    frame.to_csv(site.folder / "pupils.csv", index=False)
    assert site.ask(policy, {**MEAN, "value": value}).outcome == "suppressed"
    pupils().to_csv(site.folder / "pupils.csv", index=False)
    assert ask_worker_for(policy, {**MEAN, "value": value}).keys() == {"cells"}


def ask_worker_for(policy: Policy, query: Any, others: Any = ()) -> dict[str, Any]:
    """What the worker says, without the lane."""
    return ask_worker({"policy": policy.model_dump(mode="json"), "query": query, "others": list(others)})


def test_another_filter_on_the_same_variables_goes_to_a_steward(site: Site) -> None:
    """A table and the same without one person are not both answered, whoever asks the second, until the window is over."""
    policy = policy_of(site.folder)
    first = site.ask(policy, COUNT)
    assert first.outcome == "answered"
    without = {**COUNT, "where": [{"variable": "town", "equals": ["big"]}]}
    for person in ("ada", "ben"):
        second = site.ask(policy, without, person)
        assert (second.outcome, second.overlaps, second.answer) == ("review", first.query_id, None)
    assert site.ask(policy, without, now_us=NOON_US + 31 * DAY_US).outcome == "answered"


def test_people_who_differ_by_few_go_to_a_steward(site: Site) -> None:
    """Tables of other variables whose filters differ by fewer people than the threshold are not both answered."""
    policy = policy_of(site.folder)
    first = site.ask(policy, {"table": "pupils", "statistic": "mean", "value": "score", "rows": ["school"]})
    small = {
        "table": "pupils",
        "statistic": "count",
        "rows": ["year"],
        "where": [{"variable": "town", "equals": ["big"]}],
    }
    large = {
        "table": "pupils",
        "statistic": "count",
        "rows": ["year"],
        "where": [{"variable": "school", "equals": ["north"]}],
    }
    assert site.ask(policy, small).overlaps == first.query_id
    assert site.ask(policy, large).outcome == "answered"


def test_the_same_query_has_the_same_answer(site: Site) -> None:
    """Asked again, by its person or another, a query is no overlap with itself, gets the same bytes, and costs a query."""
    policy = policy_of(site.folder)
    answers = [site.ask(policy, COUNT, person).answer for person in ("ada", "ada", "ben")]
    assert len(set(answers)) == 1
    assert site.budgets.left(policy, "ada", NOON_US)[QUERIES] == 48


def test_a_query_is_debited_before_it_is_answered(site: Site) -> None:
    """With no query left none is answered; a query that is refused as none costs nothing; a suppressed one costs one."""
    policy = policy_of(site.folder, queries=1)
    with pytest.raises(QueryError):
        site.ask(policy, {**COUNT, "rows": ["name"]})
    assert site.budgets.left(policy, "ada", NOON_US)[QUERIES] == 1
    assert site.ask(policy, {**COUNT, "rows": ["town"]}).outcome == "suppressed"
    with pytest.raises(BudgetSpent, match="queries has 0 left"):
        site.ask(policy, COUNT)


def test_the_events_are_what_their_schemas_say(site: Site) -> None:
    """query_answered and budget_debited of each outcome are valid, hold no answer, and commit to the answer's bytes."""
    policy = policy_of(site.folder)
    outcomes = [site.ask(policy, query) for query in (COUNT, {**COUNT, "rows": ["town"]})]
    outcomes.append(site.ask(policy, {**COUNT, "where": [{"variable": "year", "equals": ["07"]}]}))
    assert [outcome.outcome for outcome in outcomes] == ["answered", "suppressed", "review"]
    for outcome in outcomes:
        events = [("query_answered", outcome.query_answered())]
        events += [("budget_debited", event) for event in outcome.budgets_debited()]
        for name, data in events:
            assert (data.keys() | ABOUT.keys()) <= load(name)["properties"].keys()
            schema = {"__schema__": load(name)["$id"], "__schema_version__": "1"}
            assert parse({**ABOUT, **data, **schema})
    answered = outcomes[0]
    assert answered.nonce is not None
    assert answered.answer is not None
    assert answered.query_answered()["commitment"] == commitment(answered.nonce, answered.answer)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    people=st.lists(
        st.tuples(
            st.sampled_from(["north", "south", None]), st.sampled_from(["07", "08"]), st.floats(-100, 100) | st.none()
        ),
        max_size=70,
    ),
    heap=st.integers(0, 30),
    query=st.sampled_from(
        [COUNT, MEAN, {**COUNT, "columns": ["year"]}, {**MEAN, "rows": []}, {**MEAN, "columns": ["year"]}]
    ),
    where=st.sampled_from([[], [{"variable": "year", "equals": ["07"]}], [{"variable": "score", "at_least": 0}]]),
)
def test_no_released_cell_is_under_the_threshold(
    tmp_path: Path, people: list[tuple[Any, ...]], heap: int, query: dict[str, Any], where: list[Any]
) -> None:
    """Whatever the data, a released cell has at least the threshold of people and is rounded; a suppressed answer has no number."""
    people = people + [("north", "07", float(n)) for n in range(heap)] + [("south", "07", n + 0.5) for n in range(heap)]
    frame = pd.DataFrame(people, columns=["school", "year", "score"])
    frame.insert(0, "pupil", range(len(frame)))
    frame.assign(town="big", change=0, same=1).to_csv(tmp_path / "pupils.csv", index=False)
    policy = policy_of(tmp_path)
    found = result_of({"policy": policy.model_dump(mode="json"), "query": {**query, "where": where}, "others": []})
    if "cells" not in found:
        assert found == {"suppressed": True}
        return
    kept = frame[(frame.year == "07")] if where and where[0]["variable"] == "year" else frame
    kept = kept[kept.score >= 0] if where and where[0]["variable"] == "score" else kept
    kept = kept[kept.score.notna()] if query["statistic"] == "mean" else kept
    for cell in found["cells"]:
        group = kept
        for name, value in cell["at"].items():
            group = group[group[name] == value]
        assert len(group) >= 10
        if "count" in cell:
            assert cell["count"] % 5 == 0
            assert abs(cell["count"] - len(group)) <= 2
        else:
            assert cell["mean"] == float(f"{cell['mean']:.3g}")
            assert math.isclose(cell["mean"], group.score.mean(), rel_tol=0.006, abs_tol=1e-9)


def test_noise_is_paid_for(site: Site) -> None:
    """With an epsilon each answer costs it, asking again is free and the same, and when it is spent nothing is answered."""
    policy = policy_of(site.folder, epsilon=1.0)
    first = site.ask(policy, COUNT)
    assert first.epsilon_micro == 1_000_000
    again = site.ask(policy, COUNT)
    assert (again.epsilon_micro, again.answer) == (0, first.answer)
    assert site.ask(policy, MEAN).outcome == "answered"
    assert site.budgets.left(policy, "ada", NOON_US)[EPSILON_MICRO] == 0
    with pytest.raises(BudgetSpent, match="epsilon_micro has 0 left"):
        site.ask(policy, {**COUNT, "columns": ["year"]})


def test_noisy_answers_are_near_and_differ(tmp_path: Path) -> None:
    """Noisy counts and means are near the truth with much epsilon, within the bounds, and not always the same with little."""
    pupils().to_csv(tmp_path / "pupils.csv", index=False)
    sure, unsure = policy_of(tmp_path, epsilon=50.0), policy_of(tmp_path, epsilon=0.05)

    def ask(policy: Policy, query: Any) -> dict[str, Any]:
        return result_of({"policy": policy.model_dump(mode="json"), "query": query, "others": []})

    assert [cell["count"] for cell in ask(sure, COUNT)["cells"]] == [60, 60]
    truth = pupils().groupby("school").score.mean()
    for cell in ask(sure, MEAN)["cells"]:
        assert abs(cell["mean"] - truth[cell["at"]["school"]]) < 1
    seen = {json.dumps(ask(unsure, COUNT)) for _ in range(12)}
    assert len(seen) > 1


def test_noisy_tables_have_the_cells_of_the_policy(tmp_path: Path) -> None:
    """Which cells there are is the policy's word: a value nobody has is a cell, and one that the policy has not is none."""
    frame = pupils()
    frame.loc[frame.school == "south", "school"] = "west"
    frame.to_csv(tmp_path / "pupils.csv", index=False)
    policy = policy_of(tmp_path, epsilon=50.0)
    low = (
        policy.model_copy(update={"queries": policy.queries.model_copy(update={"threshold": -1000})})
        if policy.queries
        else policy
    )
    from exec_events_enclave.query.model import Query
    from exec_events_enclave.query.noise import noisy

    assert low.queries is not None
    found = noisy(frame, Query.model_validate(COUNT), low.queries.tables["pupils"], low.queries, 50.0)
    assert found is not None
    assert [cell["at"]["school"] for cell in found] == ["north", "south"]
    assert found[1]["count"] <= 5


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda frame: frame.drop(columns="score"), "cannot be read: ValueError"),
        (lambda frame: frame.assign(pupil="p0"), "one row for each pupil"),
        (lambda frame: frame.assign(pupil=None), "one row for each pupil"),
        (None, "cannot be read: FileNotFoundError"),
    ],
)
def test_a_dataset_that_is_not_what_the_policy_says(site: Site, spoil: Any, words: str) -> None:
    """A missing file or column, or two rows for one person, is told as the site's to correct, with nothing of the data."""
    path = site.folder / "pupils.csv"
    spoil(pupils()).to_csv(path, index=False) if spoil else path.unlink()
    with pytest.raises(QueryUnavailable) as caught:
        site.ask(policy_of(site.folder), MEAN)
    assert words in str(caught.value)
    assert str(site.folder) not in str(caught.value)


def test_a_file_that_leads_outside_is_not_opened(site: Site, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A link out of the data folder is refused."""
    outside = tmp_path_factory.mktemp("outside") / "pupils.csv"
    pupils().to_csv(outside, index=False)
    (site.folder / "pupils.csv").unlink()
    (site.folder / "pupils.csv").symlink_to(outside)
    with pytest.raises(QueryUnavailable, match="leads out of the data folder"):
        site.ask(policy_of(site.folder), COUNT)


def test_a_parquet_file_is_read_alike(site: Site) -> None:
    """The same table as Parquet has the same answer."""
    policy = policy_of(site.folder)
    pupils().to_parquet(site.folder / "pupils.parquet")
    text = policy.model_dump(mode="json")
    text["queries"]["tables"]["pupils"]["file"] = "pupils.parquet"
    from_parquet = ask_worker({"policy": text, "query": {**COUNT, "columns": ["year"]}, "others": []})
    assert from_parquet == ask_worker_for(policy, {**COUNT, "columns": ["year"]})


def test_a_worker_that_fails_is_a_suppressed_answer(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """Where the worker ends without a result its person sees a suppressed answer, the log how it ended, and asking again helps."""
    lane = QueryLane(site.asked, site.budgets, ask=lambda job: ask_worker(job, timeout=0.001))
    site.lane = lane
    assert site.ask(policy_of(site.folder), COUNT).outcome == "suppressed"
    assert re.search(r"the worker failed on q-0+1 of attainment: timeout", caplog.text)
    assert ask_worker({"policy": {}}) == {"failed": "ValidationError"}
    site.lane = QueryLane(site.asked, site.budgets)
    assert site.ask(policy_of(site.folder), COUNT).outcome == "answered"


def test_what_a_crash_left_undecided_counts_as_asked(site: Site) -> None:
    """Killed between the question and the answer, the lane comes back with the query counted and debited, and answers no overlap."""
    policy = policy_of(site.folder)
    program = (
        "import sys, time; from pathlib import Path; sys.path[:0] = sys.argv[2:]; import test_query_lane as t; "
        "site = t.Site(Path(sys.argv[1])); site.lane._ask = lambda job: (print('asked', flush=True), time.sleep(60)); "
        "site.ask(t.policy_of(site.folder), t.COUNT)"
    )
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    command = [sys.executable, "-c", program, str(site.folder), *folders]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == "asked\n"
        os.kill(killed.pid, signal.SIGKILL)
    assert site.budgets.left(policy, "ada", NOON_US)[QUERIES] == 49
    site.number = 1
    assert site.ask(policy, {**COUNT, "where": [{"variable": "town", "equals": ["big"]}]}).overlaps == f"q-{1:016x}"
    assert site.ask(policy, COUNT).outcome == "answered"


def test_a_lane_imports_nothing_heavy() -> None:
    """The process that takes queries imports neither pandas, acro nor opendp: the worker does."""
    program = (
        "import sys; import exec_events_enclave.query.lane; "
        "print([name for name in ('pandas', 'acro', 'opendp', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"
