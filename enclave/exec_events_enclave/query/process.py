"""A job goes in, is done by a worker process of its own, and its result comes out."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

WALL_SECONDS = 180.0

# Small numbers of threads: many workers share a machine.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}


def ask_worker(job: dict[str, Any], timeout: float = WALL_SECONDS) -> dict[str, Any]:
    """The result of a job; where the worker ends without one, ``failed`` with how it ended."""
    command = [sys.executable, "-I", "-m", "exec_events_enclave.query.worker"]
    try:
        done = subprocess.run(
            command,
            input=json.dumps(job).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_ENVIRONMENT,
            cwd="/",
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"failed": "timeout"}
    if done.returncode != 0:
        return {"failed": f"exit {done.returncode}"}
    result: dict[str, Any] = json.loads(done.stdout)
    return result
