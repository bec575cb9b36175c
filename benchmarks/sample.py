"""An event of ordinary size (1 KB as a record), different each time."""

from __future__ import annotations

from typing import Any
from uuid import UUID

SCHEMA_ID = "https://exec-events.org/schemas/cell_execution/v1"
RECORDER_ID = "0f6d2f4e-3c1b-4b6e-9c58-6a8f1e2d3c4b"
SUBJECT = "subject:6b1f0a9d5c3e7f2481d6a0b9c8e7f6d5"
CHAIN = f"{RECORDER_ID}/{SUBJECT}"


def cell_execution(number: int) -> dict[str, Any]:
    """Data of a cell_execution event, without schema and seal."""
    digest = f"{number:064x}"
    time = f"2026-01-01T00:{number // 60 % 60:02d}:{number % 60:02d}.{number % 1_000_000:06d}Z"
    return {
        "time": time,
        "recorder_id": RECORDER_ID,
        "trust": "server",
        "execution_id": str(UUID(int=number)),
        "subject": SUBJECT,
        "subject_from": "request",
        "kernel_id": "7c0b6f5e-7a53-4d4b-8c49-1f6d6d1f2a3b",
        "kernel_name": "python3",
        "notebook": "notebook:0d9c8b7a6f5e4d3c2b1a09f8e7d6c5b4",
        "cell_id": "c3f1e2d4",
        "client": "websocket",
        "channel": "shell",
        "status": "ok",
        "execution_count": number,
        "requested_at": time,
        "started_at": time,
        "finished_at": time,
        "queued_us": 900,
        "duration_us": 41_000,
        "code_hash": f"sha256:{digest}",
        "code_bytes": 180,
        "code_lines": 7,
        "outputs_hash": f"sha256:{digest}",
        "outputs": [{"kind": "stream", "mime": "stdout", "count": 1, "bytes": 120}],
        "silent": False,
        "store_history": True,
        "iopub_seen": True,
        "reply_seen": True,
        "msg_id_reused": False,
        "overflow": False,
    }
