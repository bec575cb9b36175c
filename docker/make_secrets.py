"""
The secrets of docker/compose.yaml: made where they are not there yet, each in the volumes of those who need it alone.

A volume is a folder below the one that is given. Files have mode 0400 and the account that reads them in its
container. What is there stays: a new password in one place would be wrong in another.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path

# Accounts in the containers: the images' own, but for our own images, whose Dockerfile says so.
ROOT, BROKER, DATABASE, PROXY, READER, USER = 0, 1000, 999, 65534, 10001, 1000
NAMES = (
    "kafka-admin",
    "kafka-hub",
    "kafka-reader",
    "kafka-recorder",
    "database",
    "database-dashboard",
    "proxy",
    "dashboard-token",
    "pseudonym-key",
    "notebook-key",
    "server-key",
)
KAFKA = """security_protocol = "SASL_PLAINTEXT"
sasl_mechanism = "PLAIN"
sasl_plain_username = "{name}"
sasl_plain_password_file = "/run/secrets/kafka-{name}"
"""

# Volume, file: who reads it, and what is in it.
Files = Mapping[tuple[str, str], tuple[int, str]]


def files(made: Mapping[str, str]) -> Files:
    """What goes where, of the secrets by their names."""
    users = ("admin", "hub", "reader", "recorder")
    return {
        ("kafka-admin", "kafka-admin"): (READER, made["kafka-admin"]),
        ("kafka-admin", "kafka.toml"): (READER, KAFKA.format(name="admin")),
        ("broker", "passwords.properties"): (BROKER, "".join(f"{name}={made[f'kafka-{name}']}\n" for name in users)),
        ("database", "owner"): (DATABASE, made["database"]),
        ("database", "dashboard"): (DATABASE, made["database-dashboard"]),
        ("proxy", "token"): (PROXY, made["proxy"]),
        ("hub", "proxy"): (ROOT, made["proxy"]),
        ("hub", "dashboard-token"): (ROOT, made["dashboard-token"]),
        ("hub", "server-key"): (ROOT, made["server-key"]),
        ("hub", "pseudonym-key"): (ROOT, made["pseudonym-key"]),
        ("hub", "kafka-hub"): (ROOT, made["kafka-hub"]),
        ("readers", "kafka-reader"): (READER, made["kafka-reader"]),
        ("readers", "kafka.toml"): (READER, KAFKA.format(name="reader")),
        ("readers", "pgpass"): (READER, f"database:5432:exec_events:exec_events:{made['database']}\n"),
        ("dashboard", "pgpass"): (READER, f"database:5432:exec_events:dashboard:{made['database-dashboard']}\n"),
        ("dashboard", "kafka-reader"): (READER, made["kafka-reader"]),
        ("dashboard", "kafka.toml"): (READER, KAFKA.format(name="reader")),
        ("dashboard", "token"): (READER, made["dashboard-token"]),
        ("dashboard", "server-key"): (READER, made["server-key"]),
        ("recorder", "kafka-recorder"): (USER, made["kafka-recorder"]),
        ("recorder", "notebook-key"): (USER, made["notebook-key"]),
    }


def make(folder: Path) -> int:
    """Make what is not there; returns how many files that were."""
    own = folder / "all"
    own.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = {name: _kept(own / name) for name in NAMES}
    count = 0
    for (volume, name), (account, text) in files(made).items():
        file = folder / volume / name
        if not file.exists():
            file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            _write(file, text, account)
            count += 1
    return count


def _kept(file: Path) -> str:
    if not file.exists():
        _write(file, secrets.token_hex(32), ROOT)
    return file.read_text()


def _write(file: Path, text: str, account: int) -> None:
    """Whole, or not at all."""
    draft = file.with_name(f".{file.name}")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400), "w") as opened:
        opened.write(text)
        os.fchown(opened.fileno(), account, account)
    draft.rename(file)


if __name__ == "__main__":
    print(f"secrets: {make(Path(sys.argv[1]))} made")
