"""This machine as it would be if nobody had an account on it: what is done there to accounts and homes is done to copies."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from made_hub import REPOSITORY

PEOPLE = range(1000, 60000)
IN_ITS_PLACE = 'mount --bind "$0/etc" /etc && mount --bind "$0/home" /home && exec "$@"'


@dataclass(frozen=True, slots=True)
class Machine:
    """Its own /etc and /home, and the folder of its Hub."""

    folder: Path

    @property
    def hub(self) -> Path:
        """The Hub's folder."""
        return self.folder / "hub"

    def command(self, *command: str) -> list[str]:
        """The command as it is started there."""
        return ["unshare", "--mount", "sh", "-c", IN_ITS_PLACE, str(self.folder), *command]

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """What came of a command there."""
        whole = self.command(*command)
        return subprocess.run(whole, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False)

    def state(self) -> dict[str, str | bytes]:
        """What is in its /etc and its /home, but for the copies that programs keep of what they change."""
        files = (path for name in ("etc", "home") for path in (self.folder / name).rglob("*"))
        return {
            str(path.relative_to(self.folder)): path.read_bytes() if path.is_file() and not path.is_symlink() else ""
            for path in files
            if not path.name.endswith("-")
        }


@contextmanager
def machine_without_people(installed: Path) -> Iterator[Machine]:
    """Such a machine, with the Hub's software in its place, until the end of the block."""
    # Beside the software, of which it has links: not in pytest's own folder, which is root's alone.
    folder = Path(tempfile.mkdtemp(prefix="machine-", dir=installed.parent))
    try:
        folder.chmod(0o755)
        (folder / "home").mkdir()
        subprocess.run(["cp", "--archive", "/etc", folder / "etc"], check=True, timeout=120)
        # A Hub that runs here, or ran, may have left it.
        (folder / "etc/pam.d/jupyterhub").unlink(missing_ok=True)
        people = {
            line.split(":")[0]
            for line in (folder / "etc/passwd").read_text().splitlines()
            if int(line.split(":")[2]) in PEOPLE
        }
        for name in ("passwd", "shadow"):
            file = folder / "etc" / name
            lines = file.read_text().splitlines(keepends=True)
            file.write_text("".join(line for line in lines if line.split(":")[0] not in people))
        # What runs under the accounts that are made there runs here too, where others have the usual numbers.
        with (folder / "etc/login.defs").open("a") as settings:
            settings.write("UID_MIN 30000\nGID_MIN 30000\n")
        machine = Machine(folder)
        machine.hub.mkdir()
        subprocess.run(["cp", "--archive", "--link", installed, machine.hub / "venv"], check=True, timeout=120)
        yield machine
    finally:
        shutil.rmtree(folder)
