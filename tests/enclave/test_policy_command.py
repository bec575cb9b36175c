"""`exec-events enclave policy check`, as a person calls it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from exec_events.cli import main
from exec_events_enclave.policy_file import parse_policy
from exec_events_enclave.policy_words import in_words
from policies import FULL, MINIMAL, changed


def check(*arguments: str) -> tuple[int, str, str]:
    """Its exit code, what it printed and what it complained of."""
    done = CliRunner().invoke(main, ["enclave", "policy", "check", *arguments])
    return done.exit_code, done.stdout, done.stderr


def test_check_says_what_a_policy_means(tmp_path: Path) -> None:
    """A good file is told with its digest and in plain words, and the exit code is 0."""
    file = tmp_path / "attainment.yaml"
    file.write_text(FULL)
    code, said, complained = check(str(file))
    assert (code, complained) == (0, "")
    assert said.startswith(f"attainment, version 3: {parse_policy(FULL).digest}\n")
    assert "held until two stewards release it" in said
    assert "100 cells, 20 declared queries, 1 MB released" in said
    assert "epsilon 0.1 each, 1 a day and 5 for ever" in said
    assert check("--quiet", str(file))[1] == said.partition("\n")[0] + "\n"


def test_check_says_every_wrong_line_of_every_file(tmp_path: Path) -> None:
    """Of several files each wrong line is told, the good ones are told too, and the exit code is 1."""
    for name, text in (("a", changed("stewards: 2", "stewards: 3")), ("b", MINIMAL), ("c", MINIMAL + "x: 1\n")):
        (tmp_path / f"{name}.yaml").write_text(text)
    code, said, complained = check(*(str(tmp_path / f"{name}.yaml") for name in "abc"))
    assert code == 1
    assert said.startswith("attainment, version 1: sha256:")
    assert f"{tmp_path}/a.yaml:5: stewards: Input should be 1 or 2" in complained
    assert f"{tmp_path}/c.yaml:5: x: unknown key. Allowed here: " in complained


def test_check_needs_a_file() -> None:
    """Without a file it says that one is needed."""
    code, _, complained = check()
    assert code == 2
    assert "Missing argument 'FILE...'" in complained


@pytest.mark.parametrize("mode", ["synthetic", "held", "batch"])
def test_each_mode_has_words(mode: str) -> None:
    """Each mode is told in words of its own, and without declared queries it is said that there are none."""
    words = "\n".join(in_words(parse_policy(MINIMAL.replace("held", mode))))
    assert f"Mode {mode}: " in words
    assert ("two things, whether it failed" in words) == (mode == "held")
    assert "No declared queries" in words


def test_rules_without_noise_have_words() -> None:
    """Where no epsilon is set the rules of suppression are told with their figures."""
    text = changed("  epsilon_per_query: 0.1\n", "").replace(", epsilon: 1.0, epsilon_total: 5", "")
    words = "\n".join(in_words(parse_policy(text)))
    assert "fewer than 10 people or 10 degrees of freedom, its 2 largest values make more than 90% of it" in words
    assert "noise" not in words


def test_check_imports_nothing_heavy() -> None:
    """Checking a policy imports neither pandas, acro nor opendp, nor a Jupyter server."""
    program = (
        "import sys; from exec_events_enclave.cli.policy import check; "
        "print([name for name in ('pandas', 'acro', 'opendp', 'jupyter_server') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"
