"""Processes whose parents have ended become ours (Linux), and end with us: the proxy of a Hub that crashed, say."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from pathlib import Path

PATIENCE_SECONDS = 10.0
_PR_SET_CHILD_SUBREAPER = 36


def adopt() -> None:
    """From now on; on other systems than Linux nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end() -> None:
    """End every child that is left, and theirs as they become ours."""
    until = time.monotonic() + PATIENCE_SECONDS
    while left := children():
        how = signal.SIGTERM if time.monotonic() < until else signal.SIGKILL
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, how)
        time.sleep(0.1)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def children() -> list[int]:
    """Of this process."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # A name may hold anything but ends with the last parenthesis; the parent is the second field after it.
            if int(status.read_text(errors="replace").rpartition(")")[2].split()[1]) == os.getpid():
                found.append(int(status.parent.name))
    return found
