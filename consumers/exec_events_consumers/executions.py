"""An execution, decoded, in; its row in the table of executions, which measures are made of, out (pure)."""

from __future__ import annotations

from .decode import Decoded
from .measures import Row, microseconds


def execution_row(decoded: Decoded) -> Row:
    """The row of one execution."""
    event = decoded.event
    outputs = event["outputs"]
    get = event.get
    return {
        "chain": decoded.chain,
        "seq": decoded.seq,
        "record_hash": decoded.hash,
        "execution_id": event["execution_id"],
        "subject": event["subject"],
        "subject_from": event["subject_from"],
        "notebook": get("notebook", ""),
        "cell_id": get("cell_id", ""),
        "kernel_id": event["kernel_id"],
        "kernel_name": event["kernel_name"],
        "recorder_id": event["recorder_id"],
        "client": event["client"],
        "trust": event["trust"],
        "status": event["status"],
        "error_name": get("error_name"),
        "execution_count": get("execution_count"),
        "requested_at": event["requested_at"],
        "started_at": get("started_at"),
        "finished_at": event["finished_at"],
        "requested_us": microseconds(event["requested_at"]),
        "finished_us": microseconds(event["finished_at"]),
        "queued_us": get("queued_us"),
        "duration_us": get("duration_us"),
        "code_hash": get("code_hash"),
        "code_ast_hash": get("code_ast_hash"),
        "code_bytes": get("code_bytes"),
        "code_lines": get("code_lines"),
        "lines_added": get("lines_added"),
        "lines_removed": get("lines_removed"),
        "same_code": get("same_code_as_last_run"),
        "outputs_hash": get("outputs_hash"),
        "outputs": sum(output["count"] for output in outputs),
        "outputs_bytes": sum(output["bytes"] for output in outputs),
        "silent": event["silent"],
        "complete": event["iopub_seen"] and event["reply_seen"] and not event["overflow"],
    }
