"""
Where a Hub on this machine keeps what it has, and who may read it.

FOLDER/venv     the software of the Hub and of users' servers: read by all, written by who starts the Hub
FOLDER/state    the Hub's database, secrets, log and tables: nobody else's
FOLDER/records  a folder of each user, of which they own their spool: theirs alone, and the Hub's where it is root
FOLDER/keys     a copy of the key of notebooks' pseudonyms for each user
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIG = REPOSITORY / "docker" / "jupyterhub_config.py"
LOCAL_CONFIG = Path(__file__).with_name("local_config.py")
PROXY = REPOSITORY / "tools/node/node_modules/.bin/configurable-http-proxy"
FOLDER_OF_ROOT = Path("/opt/exec-events-hub")


@dataclass(frozen=True, slots=True)
class Place:
    """The folder of one Hub."""

    folder: Path

    @property
    def python(self) -> Path:
        """What the Hub and users' servers run with."""
        return self.folder / "venv/bin/python"

    @property
    def state(self) -> Path:
        """The Hub's own."""
        return self.folder / "state"

    @property
    def records(self) -> Path:
        """Users' spools."""
        return self.folder / "records"

    @property
    def keys(self) -> Path:
        """Users' copies of the key of notebooks."""
        return self.folder / "keys"

    @property
    def log(self) -> Path:
        """What the Hub and its services say."""
        return self.state / "hub.log"

    @property
    def store(self) -> str:
        """The tables."""
        return f"sqlite:///{self.state / 'tables.db'}"

    def make(self) -> None:
        """Make the folders, and see that only those may read them who should."""
        for path, mode in ((self.folder, 0o755), (self.state, 0o700), (self.records, 0o711), (self.keys, 0o711)):
            path.mkdir(mode=mode, parents=True, exist_ok=True)
            path.chmod(mode)


def usual_folder() -> Path:
    """Root's is where every account can get to; anybody else's is in the checkout."""
    return FOLDER_OF_ROOT if os.getuid() == 0 else REPOSITORY / ".hub"
