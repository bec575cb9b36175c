"""
The recorder of one server: what the taps see goes through describe, privacy and emit into the spool.

Runs on the server's event loop. No exception of its own ever reaches a kernel's user, and nothing here
waits for the disk, but for in-process requests in required mode.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import secrets
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, replace
from logging import Logger
from typing import Any

import orjson
from jsonschema import ValidationError

from .clock import now_us, rfc3339
from .consent import ConsentText, Everybody, Permissions
from .describe import Describer
from .emit import PREFIX, Emitter
from .errors import NotRecorded, SpoolError
from .hashing import commit, outputs_bytes
from .heads import heads_of
from .outputs import Outputs
from .privacy import chain_of, clean
from .seal import Content
from .spool import Spool
from .watch.execution import Execution, Identity, Status
from .watch.in_process import InProcessTap, current_user
from .watch.kernel import KernelWatch
from .watch.manager import Action, Cause, KernelTaps
from .watch.relay import RelayedTap
from .watch.websocket import LIVE_TIMEOUT_SECONDS, tapped

REQUIRED_TIMEOUT_SECONDS = 5.0
LARGE_OUTPUT_BYTES = 256 * 1024
SERVER_LABEL_LIMIT = 128


@dataclass(frozen=True, slots=True)
class Settings:
    """What the admin chose, as the recorder needs it; see the traits of `ExecEvents`."""

    required: bool = False
    contents: str = "none"
    subjects: str = "auto"
    account: str = "unknown"
    anonymous: bool = True
    heartbeat_seconds: float = 60.0
    server_label: str = ""


class Recorder:
    """Ties the taps of one server to one spool."""

    def __init__(
        self,
        settings: Settings,
        describer: Describer,
        emitter: Emitter,
        spool: Spool,
        manager: Any,
        log: Logger,
        permissions: Permissions | None = None,
    ) -> None:
        self.settings = settings
        self.recorder_id = describer.recorder_id
        self.executions = 0
        self.faults = 0
        self._describer = describer
        self._emitter = emitter
        self._spool = spool
        self._log = log
        self.permissions = permissions or Everybody()
        self._asks = permissions is not None
        self._taps = KernelTaps(manager, self, log)
        self._in_process: InProcessTap | None = None
        self._notebooks: dict[str, str] = {}
        self._early: list[Callable[[], None]] | None = []
        self._hashing: dict[asyncio.Future[Any], Execution] = {}

    # Start and stop, called by the extension.

    def tap_manager(self) -> None:
        """Watch the kernel manager; can be done before the loop runs."""
        self._taps.install()

    def tap_clients(self, web_settings: dict[str, Any]) -> None:
        """Watch websockets and in-process clients, once every extension has chosen its classes."""
        base = web_settings["kernel_websocket_connection_class"]
        if not getattr(base, "exec_events_tap", False):
            web_settings["kernel_websocket_connection_class"] = tapped(base, self)
        self._in_process = InProcessTap(self, self._taps.find)
        self._in_process.install()

    def started(self, previous: list[dict[str, Any]], versions: dict[str, str], configuration_digest: str) -> None:
        """Seal the first record of this recorder's chain; what waited for it follows."""
        chosen = {"versions": versions, "configuration_digest": configuration_digest}
        self.say("started", previous=previous, **chosen, **self._expected())
        early, self._early = self._early or [], None
        for event in early:
            event()

    async def stop(self) -> None:
        """Close what is open, and seal the last record of the chain."""
        if self._in_process is not None:
            self._in_process.remove()
        self._taps.drain_all()
        self._taps.remove()
        for tap in self._taps.taps.values():
            tap.watch.close("recorder_stopped")
        if self._hashing:
            await asyncio.wait(self._hashing, timeout=10)
        try:
            await asyncio.wait_for(asyncio.wrap_future(self._spool.flush()), 10)
            self.say("stopped", cause="stop", heads=heads_of(self._spool), **self._counts())
            closed_at = rfc3339(now_us())
            closing = self._spool.call(lambda file: file.set_meta("closed_at", closed_at), barrier=True)
            await asyncio.wait_for(asyncio.wrap_future(closing), 10)
        except (SpoolError, TimeoutError) as error:
            self._log.error("exec-events: the end is not on disk; the next start closes this record: %s", error)

    def say(self, action: str, **more: Any) -> None:
        """Seal a recorder event in the recorder's own chain."""
        self._send("recorder", self._describer.recorder(action, now_us(), **more), self.recorder_id)

    def heartbeat(self) -> None:
        """Seal that the recorder is alive, and where its chains stand."""
        if self._early is None:
            self.say("heartbeat", heads=heads_of(self._spool), **self._counts(), **self._expected())

    def pending(self) -> int:
        """How many executions are under way."""
        return sum(len(tap.watch.pending) for tap in self._taps.taps.values())

    async def written(self, timeout: float) -> None:
        """Wait, within bounds, until what was recorded so far is on disk."""
        with contextlib.suppress(SpoolError, TimeoutError):
            await asyncio.wait_for(asyncio.wrap_future(self._spool.flush()), timeout)

    def session_named(self, kernel_id: str, path: str) -> None:
        """A session says which notebook a kernel serves."""
        self._notebooks[kernel_id] = path
        if (watch := self._taps.watch(kernel_id)) is not None:
            watch.notebook = path

    def _expected(self) -> dict[str, Any]:
        """When the next word is due, and of which server: so that somebody else can tell its silence."""
        label = clean(self.settings.server_label, SERVER_LABEL_LIMIT)
        return {"heartbeat_us": round(self.settings.heartbeat_seconds * 1_000_000), "server": label or None}

    def _counts(self) -> dict[str, int]:
        state = self._spool.state()
        return {"executions": self.executions, "open_executions": state.open_executions, "lost": state.lost}

    # Observer of kernels' watches.

    def begun(self, watch: KernelWatch, execution: Execution) -> None:
        """An execution was requested: note it on disk."""
        try:
            if watch.notebook is None:
                watch.notebook = self._notebooks.get(watch.kernel_id)
            self._taps.hurry()
            request = execution.request
            if self._asks and not self._agreed(request.identity or watch.owner, request.received_us):
                execution.unrecorded = True
                return
            execution.base = self._describer.begun(watch, execution, now_us())
            execution.chain = chain_of(self.recorder_id, execution.base["subject"])
            if not self.settings.required or execution.request.client == "direct":
                self._spool.begin(execution.execution_id, orjson.dumps(execution.base))
        except Exception:
            self.trouble("a request")

    def finished(self, watch: KernelWatch, execution: Execution, status: Status) -> None:
        """An execution is over: its event goes out, large outputs being hashed on another thread first."""
        if not self._may_record(execution):
            return
        self.executions += 1
        at = now_us()
        if execution.outputs.size + execution.raw_bytes <= LARGE_OUTPUT_BYTES:
            self._finish(watch, execution, status, at)
            return
        large = replace(execution)
        execution.raw, execution.outputs = [], Outputs(limit=0)
        execution.outputs.overflow = True
        future = asyncio.get_running_loop().run_in_executor(None, self._describe, watch, large, status, at)
        self._hashing[future] = execution
        future.add_done_callback(self._hashed)

    def _finish(self, watch: KernelWatch, execution: Execution, status: Status, at: int) -> None:
        try:
            described = self._describe(watch, execution, status, at)
        except Exception:
            self.trouble("an execution's outputs")
            return
        self._finished(execution, *described)

    def _hashed(self, future: asyncio.Future[Any]) -> None:
        execution = self._hashing.pop(future)
        if not self._may_record(execution):  # withdrawn meanwhile
            return
        try:
            self._finished(execution, *future.result())
        except Exception:
            self.trouble("an execution's large outputs")

    def _describe(
        self, watch: KernelWatch, execution: Execution, status: Status, at: int
    ) -> tuple[dict[str, Any], tuple[Content, ...]]:
        outputs = execution.folded()
        data = self._describer.finished(watch, execution, outputs, status, at)
        contents = self._contents(execution, outputs, data) if self.settings.contents != "none" else ()
        return data, contents

    def _finished(self, execution: Execution, data: dict[str, Any], contents: tuple[Content, ...]) -> None:
        self._send("cell_execution", data, execution.chain, closes=execution.execution_id, contents=contents)

    def late(self, watch: KernelWatch, execution: Execution) -> None:
        """Outputs came after their execution was over."""
        if not self._may_record(execution):
            return
        try:
            data = self._describer.late(watch, execution, now_us())
        except Exception:
            self.trouble("late outputs")
            return
        self._send("late_output", data, execution.chain)

    def _contents(self, execution: Execution, outputs: Outputs, data: dict[str, Any]) -> tuple[Content, ...]:
        """The bodies the site keeps; their commitments go into ``data``."""
        kept = []
        code = execution.request.code if execution.request.code is not None else execution.input_code
        if code is not None:
            kept.append(("code", code.encode("utf-8", "surrogatepass")))
        if self.settings.contents == "code+outputs" and not outputs.overflow:
            kept.append(("outputs", outputs_bytes(outputs.nbformat())))
        contents = []
        for kind, body in kept:
            nonce = secrets.token_bytes(32)
            commitment = data[f"{kind}_commitment"] = commit(nonce, body)
            contents.append(Content(commitment, data["subject"], kind, nonce, body))
        return tuple(contents)

    # What people decide.

    def subject(self, identity: Identity) -> str:
        """What stands for somebody in events."""
        return self._describer.subject(identity)

    def consented(self, identity: Identity, text: ConsentText, at: int) -> None:
        """Seal that somebody agreed to be recorded."""
        self._of_subject("consent", self._describer.consent(identity, "given", text, at))

    def withdrew(self, identity: Identity, text: ConsentText) -> None:
        """Drop what runs of somebody who is to be recorded no more, and seal that as their chain's last word."""
        subject = self._describer.subject(identity)
        for execution in self._under_way():
            if execution.base.get("subject") == subject:
                self._drop(execution)
        self._of_subject("consent", self._describer.consent(identity, "withdrawn", text, now_us()))

    def running(self, subject: str, notebook: str) -> set[str]:
        """The cells of a notebook that are being executed for ``subject`` and recorded (both as events name them)."""
        return {
            base["cell_id"]
            for base in (execution.base for execution in self._under_way())
            if base.get("subject") == subject and base.get("notebook") == notebook and "cell_id" in base
        }

    def browser_said(self, event: dict[str, Any]) -> None:
        """Seal an event that came from a browser, into the chain of its subject."""
        try:
            self._spool.append(event, chain_of(self.recorder_id, event["subject"]))
        except Exception:
            self.trouble("a browser's event")

    def _under_way(self) -> list[Execution]:
        pending = [execution for tap in self._taps.taps.values() for execution in tap.watch.pending.values()]
        return [*pending, *self._hashing.values()]

    def _of_subject(self, name: str, data: dict[str, Any]) -> None:
        self._send(name, data, chain_of(self.recorder_id, data["subject"]))

    def _agreed(self, identity: Identity, at: int) -> bool:
        return self.permissions.covers(self._describer.subject(identity), rfc3339(at))

    def _may_record(self, execution: Execution) -> bool:
        """Whether its subject had agreed when it was requested, and has not withdrawn since; if not, it is dropped."""
        if self._asks and not execution.unrecorded:
            subject, at = execution.base.get("subject", ""), execution.base.get("requested_at", "")
            if not self.permissions.covers(subject, at):
                self._drop(execution)
        return not execution.unrecorded

    def _drop(self, execution: Execution) -> None:
        execution.unrecorded = True
        execution.base = {}
        self._spool.forget(execution.execution_id)

    # Observer of kernels' lives.

    def new_watch(self, kernel_id: str, kernel_name: str, language: str, owner: Identity) -> KernelWatch:
        """A watch for a new kernel."""
        watch = KernelWatch(
            kernel_id,
            kernel_name,
            language,
            owner,
            self,
            clock=now_us,
            loop_time=time.monotonic,
            new_id=lambda: str(uuid.uuid4()),
        )
        watch.notebook = self._notebooks.get(kernel_id)
        return watch

    def who_asks(self) -> Identity | None:
        """The user of the request that is being answered now, or None outside one."""
        user = current_user()
        if user is None:
            return None
        identity = self.identity(user)
        if identity is not None and identity.origin == "request":
            return Identity(identity.name, "kernel_starter")
        return self.server_account()

    def server_account(self) -> Identity:
        """The account the server runs under."""
        return Identity(self.settings.account, "server_account")

    def lifecycle(self, watch: KernelWatch, action: Action, cause: Cause, identity: Identity | None) -> None:
        """Something became of a kernel."""
        if action == "shut_down":
            self._notebooks.pop(watch.kernel_id, None)
        if self._asks and not self._agreed(identity or watch.owner, now_us()):
            return
        try:
            data = self._describer.lifecycle(watch, action, cause, identity, now_us())
        except Exception:
            self.trouble("a kernel's life")
            return
        send = functools.partial(self._send, "kernel_lifecycle", data, self.recorder_id)
        if self._early is not None:
            self._early.append(send)
        else:
            send()

    # Gate of the taps.

    @property
    def required(self) -> bool:
        """Whether what cannot be recorded must not run."""
        return self.settings.required

    def watch(self, kernel_id: str) -> KernelWatch | None:
        """The watch of a kernel."""
        return self._taps.watch(kernel_id)

    def relay(self, kernel_id: str) -> RelayedTap | None:
        """Where iopub messages go that only websockets carry."""
        return self._taps.relay(kernel_id)

    def now_us(self) -> int:
        """The server's clock."""
        return now_us()

    def identity(self, user: Any) -> Identity | None:
        """Who the server's current user is; the server's account where its users are anonymous."""
        if self.settings.subjects == "account" or (self.settings.subjects == "auto" and self.settings.anonymous):
            return self.server_account()
        name = getattr(user, "username", None)
        return Identity(str(name), "request") if name else None

    def must_wait(self, kernel_id: str) -> bool:
        """Whether a request for this kernel has to be held back."""
        return self.settings.required or not self._taps.is_live(kernel_id)

    async def until_live(self, kernel_id: str) -> None:
        """Wait, within bounds, until the kernel's iopub is heard."""
        await self._taps.until_live(kernel_id, LIVE_TIMEOUT_SECONDS)

    async def require(self, watch: KernelWatch | None, execution: Execution | None) -> None:
        """In required mode, return once the execution is on disk; raises NotRecorded when it cannot be."""
        if not self.settings.required or _nobody_asks_for(execution):
            return
        future = self._begin_durably(execution)
        try:
            await asyncio.wait_for(asyncio.wrap_future(future), REQUIRED_TIMEOUT_SECONDS)
        except (SpoolError, TimeoutError) as error:
            raise self._refused(watch, execution, error) from error

    def require_now(self, watch: KernelWatch, execution: Execution | None) -> None:
        """As `require`, for a caller that cannot wait; blocks for one commit."""
        if _nobody_asks_for(execution):
            return
        future = self._begin_durably(execution)
        try:
            future.result(REQUIRED_TIMEOUT_SECONDS)
        except (SpoolError, FutureTimeout) as error:
            raise self._refused(watch, execution, error) from error

    def _begin_durably(self, execution: Execution | None) -> Future[None]:
        if execution is None or not execution.base:
            raise NotRecorded("the recorder could not look at this request; see the server's log")
        return self._spool.begin_durably(execution.execution_id, orjson.dumps(execution.base))

    def _refused(self, watch: KernelWatch | None, execution: Execution | None, error: BaseException) -> NotRecorded:
        self.withdraw(watch, execution)
        reason = str(error) or "the spool did not answer in time"
        return NotRecorded(f"this server runs only what it can record, and cannot now: {reason}")

    def withdraw(self, watch: KernelWatch | None, execution: Execution | None) -> None:
        """Take back a request that was noted and will not reach its kernel."""
        if watch is not None and execution is not None:
            watch.withdrawn(execution)
            self._spool.forget(execution.execution_id)

    def trouble(self, where: str) -> None:
        """Report an exception of the recorder's own, which must not reach anybody's kernel."""
        self.faults += 1
        if self.faults <= 10 or self.faults % 1000 == 0:
            self._log.exception("exec-events: fault %d, while looking at %s", self.faults, where)

    # The way out.

    def _send(
        self,
        name: str,
        data: dict[str, Any],
        chain: str,
        *,
        closes: str | None = None,
        contents: tuple[Content, ...] = (),
    ) -> None:
        try:
            event = self._emitter.send(f"{PREFIX}{name}/v1", data)
            self._spool.append(event, chain, closes=closes, contents=contents)
        except ValidationError as error:
            self.faults += 1
            self._log.error("exec-events: fault %d: a %s event breaks its schema: %s", self.faults, name, error.message)
        except Exception:
            self.trouble(f"a {name} event")


def _nobody_asks_for(execution: Execution | None) -> bool:
    """Whether an execution need not be recorded, since its subject has not agreed to that."""
    return execution is not None and execution.unrecorded
