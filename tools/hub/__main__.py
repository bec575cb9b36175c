"""``python -m tools.hub``: JupyterHub on 127.0.0.1 until Ctrl-C, with what has to be known to log in."""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from . import accounts, software
from .errors import HubError
from .hub import HOST, Hub, bring_up_to_date, is_free, running, settings
from .place import PROXY, Place, usual_folder

USUAL_PORT = 8000
TRIED = ("ada", "ben")
_HAS_ONE = 3


def main() -> int:
    """Start it, or with ``--clean`` remove what it left; 1 where it cannot."""
    parser = argparse.ArgumentParser(prog="make hub", description=__doc__)
    parser.add_argument(
        "--users", default="", help="accounts that may log in; those that are not there are made (as root)"
    )
    parser.add_argument("--dashboard", default="", help="who sees the dashboard; by default the first of the users")
    parser.add_argument("--port", type=int, help=f"by default {USUAL_PORT}")
    parser.add_argument("--folder", type=Path, default=usual_folder(), help="where records, state and software are")
    parser.add_argument("--config", type=Path, action="append", default=[], help="more of the Hub's configuration")
    parser.add_argument("--clean", action="store_true", help="remove the accounts that were made, and the folder")
    arguments = parser.parse_args()
    # As Ctrl-C does, also where the terminal is closed: the way out is through `with`.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        if arguments.clean:
            clean(Place(arguments.folder.absolute()))
        else:
            run(arguments, Place(arguments.folder.absolute()))
    except HubError as error:
        print(f"make hub: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nnothing was started", file=sys.stderr)
    return 0


def run(arguments: argparse.Namespace, place: Place) -> None:
    """From nothing to a Hub that people use, until Ctrl-C."""
    if not PROXY.exists():
        raise HubError("JupyterHub's proxy is not here: run npm ci --prefix tools/node")
    port = arguments.port or USUAL_PORT
    refuse_two(place)
    if not is_free(port):
        raise HubError(f"something listens on port {port} already: end it, or take another with PORT={port + 1}")
    place.make()
    software.install(place.folder / "venv", say)
    users, passwords = people(arguments.users.split(), place)
    readers = arguments.dashboard.split() or users[:1]
    environment = settings(
        place,
        port=port,
        authenticator="pam" if os.getuid() == 0 else "firstuse",
        users=users,
        readers=readers,
        more=[path.absolute() for path in arguments.config],
    )
    for name, password in passwords.items():
        print(f"password of {name}: {password}", flush=True)
    if passwords:
        print("These are shown this once.\n", flush=True)
    # Without tables the dashboard ends at once, and the Hub with it.
    say("bringing the tables up to date with the records")
    bring_up_to_date(place, environment["EXEC_EVENTS_HUB_SOURCE"])
    say("starting JupyterHub, its proxy, the aggregate and the dashboard")
    with Hub(place, environment) as hub:
        try:
            hub.wait_until_ready()
            print(what_to_do(f"http://{HOST}:{port}", users, readers, place), flush=True)
            while True:
                hub.check()
                time.sleep(0.5)
        except KeyboardInterrupt:
            say("ending it, and every user's server")
    say("ended; the records are kept")


def people(names: list[str], place: Place) -> tuple[list[str], dict[str, str]]:
    """Who may log in, and passwords that were made just now."""
    if os.getuid() != 0:
        if names and names != [accounts.own()]:
            raise HubError("servers of other accounts, and accounts, take root: sudo make hub USERS=…")
        return [accounts.own()], first_password(place, accounts.own())
    accounts.let_pam_ask()
    if names:
        return names, accounts.make(names, place.folder)
    if there := accounts.ordinary():
        return there, {}
    say(f"nobody has an account on this machine: making {' and '.join(TRIED)}")
    return list(TRIED), accounts.make(list(TRIED), place.folder)


def first_password(place: Place, name: str) -> dict[str, str]:
    """A password for the only user, unless there is one."""
    password = secrets.token_urlsafe(12)
    script = Path(__file__).with_name("first_password.py")
    command = [str(place.python), "-I", str(script), str(place.state / "passwords.dbm"), name]
    done = subprocess.run(command, input=password, text=True, check=False, timeout=60)
    if done.returncode not in (0, _HAS_ONE):
        raise HubError("the first password could not be kept; the reason is above")
    return {} if done.returncode == _HAS_ONE else {name: password}


def what_to_do(url: str, users: list[str], readers: list[str], place: Place) -> str:
    """What a person who has never seen it should know now."""
    return f"""
JupyterHub is at

    {url}

1. Log in as {" or ".join(users)}, and run a cell of a notebook: it is recorded.
2. Log in as {" or ".join(readers)}, and look at {url}/services/exec-events/
3. People are pseudonyms there. Which is {users[0]}'s, says

    {place.python.with_name("exec-events")} pseudonym {users[0]} --key-file {place.state / "pseudonym.key"}

The records are in {place.records}, the log is {place.log}.
Ctrl-C ends all of it. `make hub-clean` removes the accounts that were made, the records and the software.
"""


def refuse_two(place: Place) -> None:
    """One folder is one Hub's."""
    if pid := running(place):
        raise HubError(f"a Hub runs in {place.folder} already, as process {pid}: end it with Ctrl-C first")


def clean(place: Place) -> None:
    """Remove what `make hub` made."""
    refuse_two(place)
    removed = accounts.remove_made(place.folder) if os.getuid() == 0 else []
    shutil.rmtree(place.folder, ignore_errors=True)
    say(f"removed {', '.join([*removed, str(place.folder)])}")


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
