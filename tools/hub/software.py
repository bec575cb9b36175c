"""A checkout in, an installation out that users' servers can run and not change."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from .errors import HubError
from .place import REPOSITORY

PACKAGES = (
    "exec_events",
    "schemas/exec_events_schemas",
    "consumers/exec_events_consumers",
    "enclave/exec_events_enclave",
    "jupyter-config",
)
NEEDED = "a Python 3.11 or later with venv that every account can run: make hub PYTHON=/path/to/it"
_IS_GOOD = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))"


def install(folder: Path, say: Callable[[str], None]) -> None:
    """Make the virtual environment, or bring it up to date where the checkout has changed."""
    stamp, wanted = folder / ".installed", digest()
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    if not (folder / "bin/python").exists():
        say(f"making {folder} (once)")
        _run([_python_for_all(), "-m", "venv", str(folder)])
    say("installing JupyterHub, JupyterLab and exec-events there (a minute or two)")
    # What is installed is everybody's to read, whatever the umask here.
    _run([str(folder / "bin/python"), "-m", "pip", "install", "--quiet", "--upgrade", f"{REPOSITORY}[hub]"])
    stamp.write_text(wanted)


def digest() -> str:
    """Of all that is installed from the checkout."""
    whole = hashlib.sha256((REPOSITORY / "pyproject.toml").read_bytes())
    for package in PACKAGES:
        for path in sorted((REPOSITORY / package).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                whole.update(f"{path.relative_to(REPOSITORY)}\0".encode() + path.read_bytes())
    return whole.hexdigest()


def _python_for_all() -> str:
    is_root = os.getuid() == 0
    candidates = [sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"] if is_root else [sys.executable]
    for candidate in candidates:
        if (can_be_run_by_all(Path(candidate)) or not is_root) and _is_good(candidate):
            return candidate
    raise HubError(f"there is none of {', '.join(candidates)} that is {NEEDED}; Debian has python3 and python3-venv")


def _is_good(python: str) -> bool:
    command = [python, "-I", "-c", _IS_GOOD]
    return subprocess.run(command, check=False, timeout=30, stderr=subprocess.DEVNULL).returncode == 0


def can_be_run_by_all(program: Path) -> bool:
    """Whether every account gets to a program, along its whole path."""
    try:
        real = program.resolve(strict=True)
        return all(part.stat().st_mode & 0o001 for part in (real, *real.parents))
    except OSError:
        return False


def _run(command: list[str]) -> None:
    done = subprocess.run(command, cwd=REPOSITORY, check=False, umask=0o022, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise HubError(f"`{' '.join(command[:5])} …` failed; the reason is above")
