"""Executions in, event data out: hashes, sizes, timings, and what changed since the cell's last run (pure)."""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import Any

from .clock import microseconds, rfc3339
from .consent import ConsentText
from .hashing import Hasher
from .outputs import Outputs
from .privacy import Pseudonyms, clean, error_name
from .watch.execution import Execution, Identity
from .watch.kernel import KernelWatch

LAST_RUNS = 2000
LAST_RUNS_CHARACTERS = 4_000_000


class LastRuns:
    """The code of each cell's last run, the least recently run forgotten first."""

    def __init__(self) -> None:
        self._code: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._characters = 0

    def compare(self, place: str, cell_id: str | None, code: str) -> dict[str, Any]:
        """What changed since the cell last ran, as event fields; {} for a first run. Remembers ``code``."""
        if cell_id is None:
            return {}
        key = (place, cell_id)
        last = self._code.pop(key, None)
        self._code[key] = code
        self._characters += len(code) - (len(last) if last is not None else 0)
        while self._code and (len(self._code) > LAST_RUNS or self._characters > LAST_RUNS_CHARACTERS):
            _, forgotten = self._code.popitem(last=False)
            self._characters -= len(forgotten)
        if last is None:
            return {}
        if last == code:
            return {"same_code_as_last_run": True, "lines_added": 0, "lines_removed": 0}
        now, then = Counter(code.splitlines()), Counter(last.splitlines())
        return {
            "same_code_as_last_run": False,
            "lines_added": (now - then).total(),
            "lines_removed": (then - now).total(),
        }


@dataclass(frozen=True, slots=True)
class Describer:
    """
    Makes event data for one recorder.

    ``recorder_id`` and ``trust`` go into every event; ``pseudonyms`` and ``hasher`` are the site's.
    """

    recorder_id: str
    trust: str
    pseudonyms: Pseudonyms
    hasher: Hasher
    last_runs: LastRuns

    def subject(self, identity: Identity) -> str:
        """What stands for somebody in events."""
        return self.pseudonyms.subject(identity.name)

    def begun(self, watch: KernelWatch, execution: Execution, now_us: int) -> dict[str, Any]:
        """What is known at the request; it is what the execution's event is made of, also after a crash."""
        request = execution.request
        identity = request.identity or watch.owner
        data: dict[str, Any] = {
            "recorder_id": self.recorder_id,
            "trust": self.trust,
            "execution_id": execution.execution_id,
            **self._subject(identity),
            "kernel_id": watch.kernel_id,
            "kernel_name": clean(watch.kernel_name, 128),
            "client": request.client,
            "channel": request.channel,
            "status": "recorder_stopped",
            "requested_at": rfc3339(request.received_us),
            "outputs": [],
            "silent": request.silent,
            "store_history": request.store_history,
            "iopub_seen": False,
            "reply_seen": False,
            "msg_id_reused": execution.msg_id_reused,
            "overflow": False,
        }
        if request.subshell:
            data["subshell"] = True
        notebook = request.notebook or watch.notebook
        if notebook:
            data["notebook"] = self.pseudonyms.notebook(notebook)
        if request.cell_id:
            data["cell_id"] = clean(request.cell_id, 128)
        if request.user_expressions:
            data["user_expressions_hash"] = self._expressions(request.user_expressions)
        code = request.code if request.code is not None else execution.input_code
        if code is not None:
            data |= self._code(watch, code, notebook or watch.kernel_id, data.get("cell_id"))
        return data

    def finished(
        self, watch: KernelWatch, execution: Execution, outputs: Outputs, status: str, now_us: int
    ) -> dict[str, Any]:
        """The cell_execution event: how it ended and what came of it; takes time with the size of ``outputs``."""
        request = execution.request
        data = dict(execution.base)
        data["time"] = rfc3339(now_us)
        data["status"] = status
        data["iopub_seen"] = execution.iopub_seen
        data["reply_seen"] = execution.reply_seen
        data["outputs"] = outputs.counts()
        if request.code is None and execution.input_code is not None and "code_hash" not in data:
            data |= self._code(watch, execution.input_code, "", None)
        if request.code is not None and execution.input_code not in (None, request.code):
            data["code_mismatch"] = True
        if execution.execution_count is not None and 0 <= execution.execution_count < 2**53:
            data["execution_count"] = execution.execution_count
        if status in ("error", "interrupted") and (name := error_name(execution.error_name)):
            data["error_name"] = name
        if execution.iopub_missed:
            data["iopub_missed"] = execution.iopub_missed
        if outputs.overflow:
            data["overflow"] = True
        else:
            data["outputs_hash"] = self.hasher.outputs(outputs.nbformat())
        return data | _times(request.received_us, execution, now_us)

    def late(self, watch: KernelWatch, execution: Execution, now_us: int) -> dict[str, Any]:
        """The late_output event of an execution that is over."""
        base, late = execution.base, execution.late
        assert late is not None, "only executions with late outputs are described as late"
        kept = ("recorder_id", "trust", "execution_id", "subject", "subject_from", "kernel_id", "kernel_name")
        data = {key: base[key] for key in (*kept, "notebook", "cell_id") if key in base}
        data |= {
            "time": rfc3339(now_us),
            "cause": execution.late_cause,
            "outputs": late.counts(),
            "overflow": late.overflow,
        }
        if not late.overflow:
            data["late_hash"] = self.hasher.outputs(late.nbformat())
        if not execution.outputs.overflow:
            data["outputs_hash"] = self.hasher.outputs(execution.outputs.nbformat())
        return data

    def lifecycle(
        self, watch: KernelWatch, action: str, cause: str, identity: Identity | None, now_us: int
    ) -> dict[str, Any]:
        """The kernel_lifecycle event."""
        data: dict[str, Any] = {
            "time": rfc3339(now_us),
            "recorder_id": self.recorder_id,
            "trust": self.trust,
            "kernel_id": watch.kernel_id,
            "kernel_name": clean(watch.kernel_name, 128),
            "action": action,
            "cause": cause,
            **self._subject(identity or watch.owner),
        }
        if watch.notebook:
            data["notebook"] = self.pseudonyms.notebook(watch.notebook)
        return data

    def recorder(self, action: str, now_us: int, **more: Any) -> dict[str, Any]:
        """A recorder event; what is None or empty in ``more`` is left out."""
        data = {"time": rfc3339(now_us), "recorder_id": self.recorder_id, "trust": self.trust, "action": action}
        return data | {key: value for key, value in more.items() if value is not None and value != []}

    def consent(self, identity: Identity, action: str, text: ConsentText, now_us: int) -> dict[str, Any]:
        """The consent event."""
        about = self._about(identity, self.trust, now_us)
        return about | {"action": action, "text_version": text.version, "text_hash": text.hash}

    def notebook_action(self, identity: Identity, asked: dict[str, Any], now_us: int) -> dict[str, Any]:
        """The notebook_action event that a browser asked for; of its claims only what was done and where is taken."""
        data = self._about(identity, "browser", now_us)
        data |= {"action": asked["action"], "notebook": self.pseudonyms.notebook(asked["notebook"])}
        if "cell_id" in asked:
            data["cell_id"] = clean(asked["cell_id"], 128)
        if "cells" in asked:
            data["cells"] = asked["cells"]
        return data

    def _expressions(self, expressions: dict[str, Any]) -> str:
        try:
            return self.hasher.json(expressions)
        except ValueError:  # nested too deeply to have a canonical form; it is recorded that there were some
            return self.hasher.text(repr(expressions))

    def _subject(self, identity: Identity) -> dict[str, str]:
        return {"subject": self.subject(identity), "subject_from": identity.origin}

    def _about(self, identity: Identity, trust: str, now_us: int) -> dict[str, Any]:
        return {
            "time": rfc3339(now_us),
            "recorder_id": self.recorder_id,
            "trust": trust,
            **self._subject(identity),
        }

    def _code(self, watch: KernelWatch, code: str, place: str, cell_id: str | None) -> dict[str, Any]:
        code_hash = self.hasher.code(code)
        data: dict[str, Any] = {
            "code_hash": code_hash,
            "code_bytes": len(code.encode("utf-8", "surrogatepass")),
            "code_lines": len(code.splitlines()),
            **self.last_runs.compare(place, cell_id, code),
        }
        if watch.language in ("", "python") and (syntax := self.hasher.ast_of(code, code_hash)) is not None:
            data["code_ast_hash"] = syntax
        return data


def _times(received_us: int, execution: Execution, now_us: int) -> dict[str, Any]:
    started, finished = microseconds(execution.busy_date), microseconds(execution.idle_date)
    data: dict[str, Any] = {"finished_at": rfc3339(finished if finished is not None else now_us)}
    if started is not None:
        data["started_at"] = rfc3339(started)
        if execution.request.client != "direct":
            data["queued_us"] = max(0, started - received_us)
        data["duration_us"] = max(0, (finished if finished is not None else now_us) - started)
    return data


def closed_by_crash(note: dict[str, Any], now_us: int) -> dict[str, Any]:
    """The event of an execution whose recorder died while it ran, from the note made at its request."""
    return {**note, "time": rfc3339(now_us), "finished_at": rfc3339(now_us), "status": "recorder_stopped"}
