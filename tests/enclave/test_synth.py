"""Synthetic twins: what statistics tell, that a steward has to approve them, and that a twin is made from them alone."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exec_events.cli import main
from exec_events_enclave.policy import Policy
from exec_events_enclave.policy_file import parse_policy, parse_yaml
from exec_events_enclave.query.frame import load
from exec_events_enclave.synth import Statistics, statistics_of, twin

CANARY = 987654.0


def policy_text(folder: Path) -> str:
    """The policy of a table in a folder, in which scores have no bounds."""
    return f"""
name: attainment
version: 1
data: {folder}
mode: held
queries:
  tables:
    pupils:
      file: pupils.csv
      person: pupil
      variables:
        school: {{kind: category, values: [east, north, south]}}
        town: {{kind: category}}
        score: {{kind: number}}
        age: {{kind: number, lower: 5, upper: 20}}
"""


def pupils(number: int = 100) -> pd.DataFrame:
    """Pupils, one of whom lives in a town and has a score like nobody else; thirty have no age."""
    return pd.DataFrame(
        {
            "pupil": [f"secret-{n}" for n in range(number)],
            "school": ["north" if n % 2 else "south" for n in range(number)],
            "town": ["canarytown" if n == 7 else "big" for n in range(number)],
            "score": [CANARY if n == 7 else 40 + n % 30 + 0.5 for n in range(number)],
            "age": [None if n < 30 else 10 + n % 5 for n in range(number)],
        }
    )


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    """A policy, with its file and its data beside it."""
    (tmp_path / "attainment.yaml").write_text(policy_text(tmp_path))
    pupils().to_csv(tmp_path / "pupils.csv", index=False)
    return parse_policy(policy_text(tmp_path))


def stats(policy: Policy) -> Statistics:
    """The statistics of the table as it is in its file."""
    assert policy.queries is not None
    table = policy.queries.tables["pupils"]
    return statistics_of(load(policy.data, "pupils", table, table.variables), policy, "pupils")


def enclave(*arguments: str) -> tuple[int, str]:
    """Call a verb; its exit code and all that it said."""
    done = CliRunner().invoke(main, ["enclave", *arguments])
    return done.exit_code, done.output


def test_statistics_tell_what_many_share(policy: Policy) -> None:
    """Statistics have rounded counts and bins, values that the policy names, and neither rare values nor extremes nor names."""
    found = stats(policy)
    assert found.rows == 100
    assert found.columns["school"].values == {"east": 1, "north": 50, "south": 50}
    assert found.columns["town"].values == {"big": 100}
    assert found.columns["age"].missing == 30
    assert found.columns["age"].whole
    assert found.columns["age"].edges is not None
    assert (found.columns["age"].edges[0], found.columns["age"].edges[-1]) == (5, 20)
    assert found.columns["score"].edges is not None
    assert max(found.columns["score"].edges) < 100
    text = found.as_yaml()
    assert not [word for word in ("canarytown", "987654", "secret-") if word in text]


def test_the_two_steps_make_a_twin(policy: Policy, tmp_path: Path) -> None:
    """`stats` writes a file, `synth` refuses it until a steward's name is in it, and then needs the data no more."""
    out, made = tmp_path / "stats.yaml", tmp_path / "twin.csv"
    code, said = enclave("stats", str(tmp_path / "attainment.yaml"), "pupils", str(out))
    assert (code, said) == (0, f"{out}: look at it, and fill in approved_by\n")
    code, said = enclave("synth", str(out), str(made))
    assert code == 1
    assert "no steward has approved these statistics" in said
    assert not made.exists()
    out.write_text(out.read_text().replace("approved_by: null", "approved_by: steward"))
    (tmp_path / "pupils.csv").unlink()
    code, said = enclave("synth", str(out), str(made), "--seed", "7")
    assert (code, said) == (0, f"{made}: 100 rows that nobody is in\n")
    with made.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["pupil", "school", "town", "score", "age"]
    assert {row["school"] for row in rows} <= {"east", "north", "south"}
    assert all(row["pupil"].startswith("made-up-") for row in rows)
    assert all(row["age"] == "" or 5 <= int(row["age"]) <= 20 for row in rows)


def test_a_twin_can_be_asked_as_the_data_is(policy: Policy, tmp_path: Path) -> None:
    """A twin, as CSV and as Parquet, is a table that the same policy loads with the same columns and kinds."""
    assert policy.queries is not None
    table = policy.queries.tables["pupils"]
    real = load(policy.data, "pupils", table, table.variables)
    approved = stats(policy).model_copy(update={"approved_by": "steward"})
    (tmp_path / "stats.yaml").write_text(approved.as_yaml())
    for name in ("twin.csv", "twin.parquet"):
        code, said = enclave("synth", str(tmp_path / "stats.yaml"), str(tmp_path / name), "--rows", "500")
        assert code == 0, said
        made = load(tmp_path, "pupils", table.model_copy(update={"file": name}), table.variables)
        assert len(made) == 500
        assert dict(made.dtypes) == dict(real.dtypes)


def test_a_seed_makes_the_same_twin(policy: Policy) -> None:
    """The same statistics and seed make the same rows, and another seed makes others."""
    approved = stats(policy).model_copy(update={"approved_by": "steward"})
    assert twin(approved, 1) == twin(approved, 1)
    assert twin(approved, 1) != twin(approved, 2)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rows": 0}, "rows: Input should be greater than or equal to 1"),
        ({"rows": 10**9}, "rows: Input should be less than or equal to 1000000"),
        ({"code": "print(1)"}, "code: unknown key. Allowed here: approved_by, columns, dataset"),
        ({"columns": {"a": {"kind": "category", "missing": 0, "edges": [1, 2]}}}, "a category has values, and a number has edges"),
        ({"columns": {"a": {"kind": "category", "missing": 0, "values": {"x": 0}}}}, "give at least one value a weight"),
        ({"columns": {"a": {"kind": "number", "missing": 0, "edges": [2, 1]}}}, "edges rise"),
        ({"columns": {"a": {"kind": "number", "missing": 0, "edges": [2]}}}, "edges"),
        ({"approved_by": ""}, "approved_by"),
    ],
)  # fmt: skip
def test_statistics_that_were_edited_wrongly(
    policy: Policy, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    """A file of statistics that is wrong is refused with its line and what would be right."""
    value = yaml.safe_load(stats(policy).as_yaml()) | {"approved_by": "steward"} | change
    file = tmp_path / "stats.yaml"
    file.write_text(yaml.safe_dump(value))
    code, said = enclave("synth", str(file), str(tmp_path / "twin.csv"))
    assert code == 1
    assert f"{file}:" in said
    assert words in said


def test_what_the_verbs_refuse(policy: Policy, tmp_path: Path) -> None:
    """A table that is not declared, a file that is there already, another kind of file, and too few people are refused."""
    file, out = str(tmp_path / "attainment.yaml"), tmp_path / "stats.yaml"
    assert "has no table teachers" in enclave("stats", file, "teachers", str(out))[1]
    out.write_text("edited")
    assert "is there already: a steward may have changed it" in enclave("stats", file, "pupils", str(out))[1]
    assert "name a .csv or a .parquet file" in enclave("synth", str(out), str(tmp_path / "twin.xlsx"))[1]
    pupils(15).to_csv(tmp_path / "pupils.csv", index=False)
    code, said = enclave("stats", file, "pupils", str(tmp_path / "few.yaml"))
    assert code == 1
    assert "too few people for statistics" in said


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.sampled_from("abcdefghij"), st.integers(-1000, 1000) | st.none()), min_size=20, max_size=80)
)
def test_no_rare_value_and_no_small_count_is_told(tmp_path: Path, people: list[tuple[str, int | None]]) -> None:
    """Whatever the data, a category that fewer than the threshold have is not named, and counts are multiples of 5."""
    frame = pd.DataFrame(people, columns=["town", "score"])
    frame.insert(0, "pupil", [f"secret-{n}" for n in range(len(frame))])
    frame.assign(school="north", age=7).to_csv(tmp_path / "pupils.csv", index=False)
    found = stats(parse_policy(policy_text(tmp_path)))
    counts = frame.town.value_counts()
    named = found.columns["town"].values
    assert named is not None
    assert all(counts[value] >= 10 and weight % 5 == 0 for value, weight in named.items() if value != "other")
    assert found.columns["score"].missing in {0, *range(10, 85, 5)}
    again = parse_yaml(found.as_yaml(), Statistics, "stats")
    assert again == found
    assert len(twin(again.model_copy(update={"approved_by": "steward"}), 1)["score"]) == found.rows


def test_a_verb_without_its_libraries_says_what_to_install(
    policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where pandas is not installed `stats` says which extra brings it."""
    monkeypatch.setitem(sys.modules, "pandas", None)
    monkeypatch.delitem(sys.modules, "exec_events_enclave.query.frame")
    code, said = enclave("stats", str(tmp_path / "attainment.yaml"), "pupils", str(tmp_path / "stats.yaml"))
    assert code == 1
    assert "pip install 'exec-events[enclave]'" in said
