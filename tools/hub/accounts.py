"""Names in, accounts of this machine out that can log in; those that were made here are marked, and removed again."""

from __future__ import annotations

import os
import pwd
import re
import secrets
import subprocess
from pathlib import Path

from .errors import HubError

MARK = "made by exec-events for"
PAM_SERVICE = Path("/etc/pam.d/jupyterhub")
PAM_LINES = f"# {MARK} make hub\nauth required pam_unix.so\naccount required pam_unix.so\n"
SHADOW = Path("/etc/shadow")
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,30}\Z")
_ORDINARY = range(1000, 60000)
_NO_SHELLS = {"nologin", "false", "sync"}


def ordinary() -> list[str]:
    """Accounts of people, who can log in: by their numbers, shells and passwords. Needs root."""
    people = [one.pw_name for one in pwd.getpwall() if one.pw_uid in _ORDINARY and _has_shell(one)]
    return [name for name in people if name in _with_password()]


def own() -> str:
    """The account that this process runs under."""
    return pwd.getpwuid(os.getuid()).pw_name


def make(names: list[str], folder: Path) -> dict[str, str]:
    """Make the accounts that are not there yet, for the Hub of that folder; the passwords of those. Needs root."""
    if wrong := [name for name in names if not _NAME.fullmatch(name)]:
        raise HubError(f"{wrong[0]!r} is no name of an account: take small letters, digits, - and _, a letter first")
    known = {one.pw_name: one for one in pwd.getpwall()}
    for name in names:
        if name in known and known[name].pw_uid not in _ORDINARY:
            raise HubError(f"{name} is an account of the system: choose another name")
    passwords = {name: secrets.token_urlsafe(12) for name in names if name not in known}
    for name, password in passwords.items():
        about = ["--shell", "/bin/bash", "--comment", _mark(folder)]
        _run(["useradd", "--create-home", "--key", "HOME_MODE=0700", *about, name])
        _run(["chpasswd"], f"{name}:{password}\n")
    return passwords


def remove_made(folder: Path) -> list[str]:
    """Remove the accounts that were made for the Hub of that folder, with their homes; their names."""
    names = [one.pw_name for one in pwd.getpwall() if one.pw_gecos == _mark(folder)]
    for name in names:
        _run(["userdel", "--remove", name])
    is_last = not any(one.pw_gecos.startswith(MARK) for one in pwd.getpwall())
    if is_last and PAM_SERVICE.is_file() and PAM_SERVICE.read_text() == PAM_LINES:
        PAM_SERVICE.unlink()
    return names


def let_pam_ask() -> None:
    """See that PAM has a service of the Hub's."""
    if not PAM_SERVICE.exists():
        try:
            PAM_SERVICE.write_text(PAM_LINES)
        except OSError as error:
            raise HubError(f"cannot write {PAM_SERVICE} ({error.strerror}): is PAM installed?") from error


def _mark(folder: Path) -> str:
    return f"{MARK} {folder}"


def _has_shell(account: pwd.struct_passwd) -> bool:
    return Path(account.pw_shell).name not in _NO_SHELLS


def _with_password() -> set[str]:
    lines = (line.split(":") for line in SHADOW.read_text().splitlines())
    return {name for name, password, *_ in lines if password and password[0] not in "!*"}


def _run(command: list[str], given: str = "") -> None:
    try:
        done = subprocess.run(command, input=given, text=True, capture_output=True, check=False, timeout=60)
    except FileNotFoundError as error:
        raise HubError(f"{command[0]} is not here: apt-get install passwd") from error
    # Debian's userdel says that there was no mail, and removes the account all the same.
    if done.returncode and not (command[0] == "userdel" and done.returncode == 12):
        raise HubError(f"{command[0]} failed: {done.stderr.strip()}")
