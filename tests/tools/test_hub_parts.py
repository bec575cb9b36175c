"""What `make hub` does before there is a Hub: accounts, a Python for all, and what it refuses."""

from __future__ import annotations

import os
import pwd
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.hub import accounts
from tools.hub.errors import HubError
from tools.hub.place import PROXY, Place
from tools.hub.software import can_be_run_by_all

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Path]:
    """A folder whose accounts are gone at the end."""
    yield tmp_path
    accounts.remove_made(tmp_path)


def test_accounts_are_made_once_and_removed_again(made: Path) -> None:
    """A name gets an account with a closed home and a random password; a second time neither; removal takes only its own."""
    name = f"ada{secrets.token_hex(3)}"
    passwords = accounts.make([name], made)
    assert len(passwords[name]) >= 16
    home = Path(pwd.getpwnam(name).pw_dir)
    assert home.stat().st_mode & 0o777 == 0o700
    assert name in accounts.ordinary()
    assert accounts.make([name], made) == {}
    assert accounts.remove_made(made / "another") == []
    assert accounts.remove_made(made) == [name]
    assert name not in accounts.ordinary()
    assert not home.exists()


def test_who_has_no_password_cannot_log_in(made: Path) -> None:
    """An account whose password is locked is none of those that the Hub lets in by itself."""
    name = f"ada{secrets.token_hex(3)}"
    accounts.make([name], made)
    subprocess.run(["passwd", "--quiet", "--lock", name], check=True, timeout=30)
    assert name not in accounts.ordinary()


@pytest.mark.parametrize("name", ["root", "daemon", "-x", "a b", "../ada", "Ada", "", "a:b", "a\nb"])
def test_no_other_accounts_are_made(made: Path, name: str) -> None:
    """An account of the system, and what is no name, are refused before anything is made."""
    with pytest.raises(HubError, match=r"choose another|is no name"):
        accounts.make(["ada", name], made)
    assert accounts.remove_made(made) == []


def test_a_python_that_is_roots_alone_is_passed_over(tmp_path: Path) -> None:
    """A program below a folder that others may not enter is told from one that everybody gets to."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    program = closed / "python"
    program.touch(mode=0o755)
    assert not can_be_run_by_all(program)
    assert not can_be_run_by_all(tmp_path / "missing")
    assert can_be_run_by_all(Path("/bin/sh"))


def test_it_says_which_port_is_taken(tmp_path: Path) -> None:
    """Where somebody listens on the port it ends at once, says so, and names another; no account was made."""
    assert PROXY.exists(), "JupyterHub's proxy is not installed; run npm ci --prefix tools/node"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [
            sys.executable,
            "-m",
            "tools.hub",
            "--folder",
            str(tmp_path),
            "--port",
            str(port),
            "--users",
            "tobenobody",
        ]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert f"PORT={port + 1}" in done.stderr
    assert "tobenobody" not in {one.pw_name for one in pwd.getpwall()}


def test_one_folder_is_one_hubs(tmp_path: Path) -> None:
    """A folder on which a Hub runs is neither used by a second one nor removed."""
    place = Place(tmp_path / "hub")
    place.make()
    (place.state / "jupyterhub.pid").write_text(str(os.getpid()))
    for more in ([], ["--clean"]):
        command = [sys.executable, "-m", "tools.hub", "--folder", str(place.folder), *more]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 1
        assert f"as process {os.getpid()}" in done.stderr
    assert place.state.exists()
