"""Policy files: what is accepted, what is refused with which words, and what a digest depends on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from exec_events_enclave.errors import PolicyError
from exec_events_enclave.policy import Budgets, Checker, Limits, Policy, Queries, Table, Variable, micro
from exec_events_enclave.policy_file import load_policies, load_policy, parse_policy
from policies import FULL, MINIMAL, changed


def test_a_minimal_policy_has_strict_defaults() -> None:
    """Four keys make a policy: no queries are declared, one steward is asked, and every limit and budget is set."""
    policy = parse_policy(MINIMAL)
    assert (policy.stewards, policy.queries, policy.budgets.epsilon) == (1, None, None)
    assert all(value > 0 for value in policy.limits.model_dump().values())


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (MINIMAL + "owner: me\n", 5, "owner: unknown key. Allowed here: budgets, checker, data, grid_seconds"),
        (changed("cpu_seconds", "cpu"), 7, "limits.cpu: unknown key. Allowed here: cpu_seconds, file_bytes"),
        (changed("kind: number,", "kind: number, min: 1,"), 19, "unknown key. Allowed here: kind, lower, upper, values"),
        (changed("n: 2,", "n: 2, m: 2,"), 11, "queries.nk.m: unknown key. Allowed here: k, n"),
        (changed("threshold: 10", "threshold: 2"), 10, "queries.threshold: Input should be greater than or equal to 3"),
        (changed("threshold: 10", "threshold: '10'"), 10, "queries.threshold: Input should be a valid integer"),
        (changed("threshold: 10", "threshold: true"), 10, "queries.threshold: Input should be a valid integer"),
        (changed("k: 0.9", "k: .nan"), 11, "queries.nk.k: Input should be a finite number"),
        (changed("mode: held", "mode: open"), 4, "mode: Input should be 'synthetic', 'held' or 'batch'"),
        (changed("stewards: 2", "stewards: 3"), 5, "stewards: Input should be 1 or 2"),
        (changed("name: attainment", "name: ../x"), 1, "name: a name is up to 63 lower-case letters"),
        (changed("/srv/attainment", "srv"), 3, "data: give the data folder as an absolute path"),
        (changed("/srv/attainment", "/srv/../etc"), 3, "data: give the data folder as an absolute path"),
        (changed("file: pupils.csv", "file: ../pupils.csv"), 15, "queries.tables.pupils.file: give a .csv or .parquet"),
        (changed("file: pupils.csv", "file: /etc/x.csv"), 15, "queries.tables.pupils.file: give a .csv or .parquet"),
        (changed("file: pupils.csv", "file: pupils.pickle"), 15, "queries.tables.pupils.file: give a .csv or .parquet"),
        (changed("person: pupil", "person: score"), 14, "score says whose row it is; it cannot be a variable"),
        (changed("lower: 0, upper: 100", "lower: 9, upper: 1"), 19, "lower must be less than upper"),
        (changed("lower: 0, upper: 100", "lower: 9"), 19, "give both lower and upper, or neither"),
        (changed("values: [north, south]", "lower: 0, upper: 1"), 18, "a category has values"),
        (changed("[north, south]", "[north, north]"), 18, "a value is listed twice"),
        (changed(", values: [north, south]", ""), 1, "what pupils.school can be: give it values"),
        (changed("epsilon_per_query: 0.1", "epsilon_per_query: 2"), 1, "may not exceed budgets.epsilon"),
        (changed(", epsilon_total: 5", ""), 1, "set budgets.epsilon and budgets.epsilon_total, too"),
        (changed("  epsilon_per_query: 0.1\n", ""), 1, "queries.epsilon_per_query, which is not set"),
        (MINIMAL.replace("version: 1\n", ""), 1, "version: is missing"),
        (MINIMAL + "mode: batch\n", 5, "mode is there twice: remove one"),
        (MINIMAL + "limits: &a {files: 16}\nbudgets: *a\n", 6, "the file has no aliases"),
        (MINIMAL + "limits: [1\n", 6, "no YAML"),
        (MINIMAL + "when: !!python/object:os.system {}\n", 5, "no YAML"),
        ("- a\n", 1, "the file is a mapping with the keys name, version, data, mode"),
        ("", 1, "the file is a mapping"),
        ("? [a]\n: 1\n", 1, "no YAML"),
        ("[" * 5000, 1, "not nested deeper than 20 levels"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_line(text: str, line: int, words: str) -> None:
    """A policy that cannot be used is refused with the file, the line, the place and what would be right."""
    with pytest.raises(PolicyError) as caught:
        parse_policy(text, "attainment.yaml")
    assert str(caught.value).startswith(f"attainment.yaml:{line}: ")
    assert words in str(caught.value)


def test_everything_wrong_is_told_at_once() -> None:
    """Two mistakes are two lines, in the order of the file."""
    with pytest.raises(PolicyError) as caught:
        parse_policy(changed("stewards: 2", "stewards: 3").replace("cpu_seconds", "cpu"), "p")
    assert [line.split(" ")[0] for line in str(caught.value).splitlines()] == ["p:5:", "p:7:"]


def test_a_policy_cannot_be_changed() -> None:
    """A validated policy is frozen, its parts, too."""
    policy = parse_policy(FULL)
    with pytest.raises(ValidationError, match="frozen"):
        policy.stewards = 1  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        policy.limits.files = 1  # type: ignore[misc]


def test_the_digest_is_of_the_meaning() -> None:
    """Comments, order and defaults that are written out leave the digest as it is; it is not what another value has."""
    policy = parse_policy(FULL)
    reordered = yaml.safe_dump(yaml.safe_load(FULL), sort_keys=True)
    assert parse_policy("# a comment\n" + reordered).digest == policy.digest
    assert parse_policy(MINIMAL + "stewards: 1\n").digest == parse_policy(MINIMAL).digest
    assert parse_policy(changed("threshold: 10", "threshold: 11")).digest != policy.digest
    assert policy.digest.startswith("sha256:")


def test_the_digest_of_one_policy_is_written_down() -> None:
    """The digest of a given policy is the one that was published, so that no release changes what it is over."""
    assert parse_policy(MINIMAL).digest == "sha256:6d76fd678dafa1f1e9fe0d29e8a391939b577e342ac9136e93265577c0f9b087"


def _leaves(value: Any, *before: str) -> list[tuple[str, ...]]:
    if not isinstance(value, dict):
        return [before]
    return [leaf for key, inner in value.items() for leaf in _leaves(inner, *before, str(key))]


@settings(deadline=None)
@given(st.sampled_from(_leaves(yaml.safe_load(FULL))), st.text(min_size=1, max_size=5))
def test_any_other_key_anywhere_is_refused(place: tuple[str, ...], key: str) -> None:
    """An unknown key beside any key of a policy is refused, save where names are the site's own."""
    if place[-1] == "file" or len(place) < 1 or "variables" in place[-2:-1]:
        return
    value = yaml.safe_load(FULL)
    inner = value
    for step in place[:-1]:
        inner = inner[step]
    inner[f"x{key}"] = 1
    with pytest.raises(PolicyError, match=r"unknown key\. Allowed here"):
        parse_policy(yaml.safe_dump(value))


def test_a_folder_of_policies(tmp_path: Path) -> None:
    """A folder's policies come by name; a name that two files have, and a file that is none, are refused."""
    (tmp_path / "a.yaml").write_text(MINIMAL)
    (tmp_path / "b.yaml").write_text(FULL.replace("name: attainment", "name: other"))
    assert list(load_policies(tmp_path)) == ["attainment", "other"]
    (tmp_path / "c.yaml").write_text(FULL)
    with pytest.raises(PolicyError, match=r"c\.yaml: another file of this folder has the policy of attainment"):
        load_policies(tmp_path)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file, one that is no text and one that is too large are told as such."""
    with pytest.raises(PolicyError, match="cannot be read"):
        load_policy(tmp_path / "missing.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(PolicyError, match="cannot be read"):
        load_policy(tmp_path / "bytes.yaml")
    (tmp_path / "large.yaml").write_text("#" * 1_000_001)
    with pytest.raises(PolicyError, match="not larger than"):
        load_policy(tmp_path / "large.yaml")


def test_epsilon_is_told_in_millionths() -> None:
    """An epsilon becomes a whole number of millionths."""
    assert [micro(value) for value in (0.1, 1.0, 0.000001, 0.3)] == [100_000, 1_000_000, 1, 300_000]


def test_a_model_takes_what_it_dumps() -> None:
    """A policy's own JSON is a policy with the same digest."""
    policy = parse_policy(FULL)
    again = Policy.model_validate(policy.model_dump(mode="json"))
    assert again.digest == policy.digest


def test_every_key_is_documented() -> None:
    """The page on policies names each key that a policy can have."""
    page = (Path(__file__).parents[2] / "docs/enclave-policy.md").read_text(encoding="utf-8")
    models = [Policy, Limits, Budgets, Queries, Table, Variable, Checker]
    keys = {key for model in models for key in model.model_fields}
    assert [key for key in sorted(keys) if f"`{key}`" not in page] == []
