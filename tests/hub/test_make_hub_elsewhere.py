"""`make hub` where nobody has an account, and without root; `make hub-clean` after it."""

from __future__ import annotations

import asyncio
import pwd
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from hub_people import Person, run
from hub_process import until
from made_hub import REPOSITORY, Site, running
from own_machine import machine_without_people

from tools.hub import accounts
from tools.hub.hub import free_ports
from tools.hub.software import can_be_run_by_all

NOT_COPIED = shutil.ignore_patterns(
    ".git", ".venv", ".kafka", ".hub", ".demo", "node_modules", "__pycache__", "*_cache", ".hypothesis"
)


def runs_by_person(person: Person, site: Site) -> dict[str, int]:
    """How many runs the dashboard shows of whom."""
    answer = person.browser.get(site.dashboard, params={"format": "json", "since": "all"})
    rows: list[dict[str, Any]] = answer.json()["tables"]["people"]
    return {row["subject"]: int(row["runs"]) for row in rows}


@pytest.mark.timeout(400)
def test_where_nobody_can_log_in_two_are_made_and_removed_again(installed: Path) -> None:
    """Without accounts ada and ben are made, log in and are on the dashboard; cleaning takes them, their records and the software, and nothing else."""
    with machine_without_people(installed) as machine:
        folder = f"ARGS=--folder {machine.hub}"
        # She has no password, so she cannot log in.
        assert machine.run("useradd", "--create-home", "--shell", "/bin/bash", "cleo").returncode == 0
        before = machine.state()
        with running(machine.hub, machine.command("make", "hub", folder), REPOSITORY) as site:
            assert "nobody has an account on this machine: making ada and ben" in site.printed
            assert site.names == ("ada", "ben")
            with site.person(0) as ada, site.person(1) as ben:
                asyncio.run(run(ada.start_server(), "6 * 7"))
                asyncio.run(run(ben.start_server(), "1", "2"))
                until(lambda: sorted(runs_by_person(ada, site).values()) == [1, 2], site)
            early = machine.run("make", "hub-clean", folder)
            assert "end it with Ctrl-C first" in early.stderr
            assert site.spool("ada").is_dir()
        assert machine.state() != before
        cleaned = machine.run("make", "hub-clean", folder)
        assert (cleaned.returncode, cleaned.stderr) == (0, f"removed ada, ben, {machine.hub}\n")
        assert not machine.hub.exists()
        assert machine.state() == before
    assert not {"ada", "ben", "cleo"} & {one.pw_name for one in pwd.getpwall()}
    assert can_be_run_by_all(installed / "bin/python")


@dataclass(frozen=True, slots=True)
class Account:
    """An ordinary account of this machine with a checkout of its own."""

    name: str
    checkout: Path

    def command(self, *command: str) -> list[str]:
        """The command as that account starts it."""
        about = pwd.getpwnam(self.name)
        who = ["setpriv", f"--reuid={about.pw_uid}", f"--regid={about.pw_gid}", "--clear-groups"]
        return [*who, "env", "-i", f"HOME={about.pw_dir}", "PATH=/usr/local/bin:/usr/bin:/bin", *command]

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """What came of a command of that account's."""
        whole = self.command(*command)
        return subprocess.run(whole, cwd=self.checkout, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def account(installed: Path, tmp_path: Path) -> Iterator[Account]:
    """Somebody who has built what a checkout needs, and has the Hub's software; they are gone at the end."""
    name = f"ada{secrets.token_hex(3)}"
    subprocess.run(["make", "tools/node/node_modules/.installed", "labextension"], cwd=REPOSITORY, check=True)
    accounts.make([name], tmp_path)
    checkout = Path(pwd.getpwnam(name).pw_dir) / "exec-events"
    try:
        shutil.copytree(REPOSITORY, checkout, ignore=NOT_COPIED)
        shutil.copytree(REPOSITORY / "tools/node/node_modules", checkout / "tools/node/node_modules", symlinks=True)
        (checkout / "labextension/node_modules").mkdir()
        shutil.copy2(REPOSITORY / "labextension/node_modules/.installed", checkout / "labextension/node_modules")
        (checkout / ".hub").mkdir()
        (checkout / ".hub/venv").symlink_to(installed)
        subprocess.run(["chown", "--recursive", "--no-dereference", f"{name}:", checkout], check=True, timeout=60)
        yield Account(name, checkout)
    finally:
        for left in psutil.process_iter(["username"]):
            if left.info["username"] == name:
                left.kill()
        accounts.remove_made(tmp_path)


@pytest.mark.timeout(400)
def test_without_root_it_serves_who_starts_it_and_nobody_else(account: Account) -> None:
    """An ordinary account gets a Hub for itself, with a password that is printed at the first start alone; others are refused, and cleaning takes the folder."""
    name, folder = account.name, account.checkout / ".hub"
    refused = account.run("make", "hub", f"USERS={name} root", f"PORT={free_ports(1)[0]}")
    assert refused.returncode == 2
    assert "take root: sudo make hub" in refused.stderr
    with running(folder, account.command("make", "hub"), account.checkout) as site:
        (password,) = site.passwords.values()
        assert site.passwords == {name: password}
        assert Person(site.url, name, "not the password").log_in().status_code == 403
        assert Person(site.url, "root", password).log_in().status_code == 403
        with Person(site.url, name, password) as person:
            asyncio.run(run(person.start_server(), "6 * 7"))
            until(lambda: list(runs_by_person(person, site).values()) == [1], site)
        assert (folder / "state").stat().st_mode & 0o077 == 0
    with running(folder, account.command("make", "hub"), account.checkout) as site:
        assert site.passwords == {}
        assert Person(site.url, name, password).log_in().status_code == 302
    assert account.run("make", "hub-clean").returncode == 0
    assert not folder.exists()
    assert (account.checkout / "Makefile").exists()
    assert name in {one.pw_name for one in pwd.getpwall()}
