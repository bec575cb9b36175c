"""PostgreSQL's programs in, a server of one's own out: an ordinary user's, on a socket in a temporary folder."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from .kafka_broker.guard import Guard

# Where Debian keeps what it does not put on the PATH.
DEBIAN = Path("/usr/lib/postgresql")
USER = "postgres"
START_SECONDS = 60.0
INSTALL = "run tools/install_system.sh as root, or `apt-get install postgresql`"


class PostgresError(RuntimeError):
    """A server that cannot be had; the text says what to do."""


class Postgres:
    """
    One server, reached over a socket alone; ``with`` starts it, waits until it answers, and ends it.

    ``settings`` are more lines of postgresql.conf. Its data are gone with it.
    """

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        self._settings = dict(settings or {})
        self._programs = programs()
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None
        self._guard: Guard | None = None

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="pg-"))
        self._guard = Guard(self._folder)
        try:
            self._start(self._folder)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process all others of the server descend from."""
        assert self._process is not None
        return self._process.pid

    def url(self, database: str = "postgres") -> str:
        """SQLAlchemy's URL of a database."""
        return f"postgresql+psycopg://{USER}@/{database}?host={self._folder}"

    def database(self) -> str:
        """The URL of a new database that nobody else has."""
        import psycopg

        name = f"test_{uuid.uuid4().hex[:12]}"
        with psycopg.connect(host=str(self._folder), user=USER, dbname="postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self.url(name)

    def stop(self) -> None:
        """End it, without putting in order what is thrown away."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)
            self._process = None
        if self._guard is not None:
            self._guard.watch([])
            self._guard.close()
            self._guard = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self, folder: Path) -> None:
        assert self._guard is not None
        data = folder / "data"
        owner = _ordinary_user(folder)
        made = subprocess.run(
            [self._programs / "initdb", "-D", data, "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"],
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
            cwd=folder,
            **owner,
        )
        if made.returncode:
            raise PostgresError(f"initdb failed: {made.stderr}")
        settings = {"listen_addresses": "", "unix_socket_directories": str(folder), **self._settings}
        more = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        log = folder / "log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", data, *more], stdout=output, stderr=output, cwd=folder, **owner
            )
        self._guard.watch([self._process.pid])
        until = time.monotonic() + START_SECONDS
        while subprocess.run([self._programs / "pg_isready", "-q", "-h", folder], check=False, timeout=10).returncode:
            if self._process.poll() is not None or time.monotonic() > until:
                raise PostgresError(f"PostgreSQL did not start: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)


def programs() -> Path:
    """The folder of PostgreSQL's programs: that of the PATH, or Debian's newest."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    versions = [one for one in DEBIAN.glob("*/bin") if (one / "initdb").exists()]
    if not versions:
        raise PostgresError(f"there is no PostgreSQL here: {INSTALL}")
    return max(versions, key=lambda one: float(one.parent.name))


def _ordinary_user(folder: Path) -> dict[str, Any]:
    """PostgreSQL does not run as root: as whom then, and the folder is theirs."""
    if os.getuid() != 0:
        return {}
    known = {one.pw_name: one for one in pwd.getpwall()}
    user = known.get(USER) or known["nobody"]
    os.chown(folder, user.pw_uid, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
