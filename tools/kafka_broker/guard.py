"""Process ids and a folder in; both gone when the process that named them is, however it ended."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path

# Reads the ids that live now, a line for each change, until the writing end of its stdin is closed: by
# `close`, or by the kernel when the process that started it is dead.
_SCRIPT = """
pids=
while read -r line; do pids=$line; done
[ -z "$pids" ] || kill -9 $pids 2>/dev/null
[ -z "$1" ] || rm -rf -- "$1"
"""


class Guard:
    """A small shell that outlives its starter just long enough to clean up after it."""

    def __init__(self, temporary: Path | None) -> None:
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", _SCRIPT, "kafka-guard", str(temporary or "")],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            # Signals of the terminal are for the starter.
            start_new_session=True,
        )

    def watch(self, pids: Iterable[int]) -> None:
        """From now on these are the ones to kill, and no others."""
        assert self._shell.stdin is not None
        self._shell.stdin.write(" ".join(map(str, pids)) + "\n")
        self._shell.stdin.flush()

    def close(self) -> None:
        """Kill what is still watched, remove the folder, and be done."""
        assert self._shell.stdin is not None
        self._shell.stdin.close()
        self._shell.wait(timeout=60)
