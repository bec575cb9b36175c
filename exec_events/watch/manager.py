"""
The kernel manager's side: kernels come, restart, are interrupted, die and go.

Its methods are wrapped on the instance: the event bus is open to anyone who may POST to it, so nothing
is concluded from events there.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from logging import Logger
from typing import Any, Literal, Protocol

from jupyter_core.utils import ensure_async
from jupyter_server.gateway.managers import GatewayMappingKernelManager

from .execution import Identity
from .iopub import IopubTap
from .kernel import KernelWatch
from .relay import RelayedTap

Action = Literal["started", "restarted", "died", "shut_down", "interrupted"]
Cause = Literal["request", "autorestart", "server", "kernel"]

PENDING_TICK_SECONDS = 0.030
IDLE_TICK_SECONDS = 0.100


class LifecycleObserver(Protocol):
    """Who is told what became of kernels: the recorder."""

    def new_watch(self, kernel_id: str, kernel_name: str, language: str, owner: Identity) -> KernelWatch:
        """A watch for a new kernel."""

    def who_asks(self) -> Identity | None:
        """The user of the request that is being answered now, or None outside one."""

    def server_account(self) -> Identity:
        """Who a kernel belongs to that nobody asked for."""

    def lifecycle(self, watch: KernelWatch, action: Action, cause: Cause, identity: Identity | None) -> None:
        """Something became of a kernel."""

    def trouble(self, where: str) -> None:
        """Report an exception of the recorder's own."""


class KernelTaps:
    """All taps of one server's kernels, and the timer that drains them."""

    def __init__(self, manager: Any, observer: LifecycleObserver, log: Logger) -> None:
        self.manager = manager
        self.taps: dict[str, IopubTap | RelayedTap] = {}
        self._kernels: dict[str, Any] = {}
        self._observer = observer
        self._log = log
        self._live: dict[str, asyncio.Event] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._next_tick = 0.0
        self._stopped = False
        self._originals: dict[str, Callable[..., Any]] = {}
        self._is_gateway = isinstance(manager, GatewayMappingKernelManager)

    def install(self) -> None:
        """Wrap the manager's methods."""
        for name, wrapper in {
            "start_watching_activity": self._start_watching,
            "stop_watching_activity": self._stop_watching,
            "restart_kernel": self._restart,
            "shutdown_kernel": self._shutdown,
            "interrupt_kernel": self._interrupt,
        }.items():
            original = getattr(self.manager, name, None)
            if original is None:
                continue
            self._originals[name] = original
            setattr(self.manager, name, functools.wraps(original)(functools.partial(wrapper, original)))

    def remove(self) -> None:
        """Unwrap them, and drain no more."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        for name, original in self._originals.items():
            setattr(self.manager, name, original)

    def watch(self, kernel_id: str) -> KernelWatch | None:
        """The watch of one kernel, None when it is not watched."""
        tap = self.taps.get(kernel_id)
        return tap.watch if tap else None

    def relay(self, kernel_id: str) -> RelayedTap | None:
        """Where messages of a kernel behind a gateway go; None for a kernel of this server's own."""
        if self._is_gateway and kernel_id not in self.taps and kernel_id in self.manager:
            try:
                kernel = self.manager.get_kernel(kernel_id)
                watch, owner = self._new_watch(kernel_id, kernel)
                self._add(kernel_id, kernel, RelayedTap(watch), owner)
                self.hurry()
            except Exception:
                self._observer.trouble("a kernel behind a gateway")
        tap = self.taps.get(kernel_id)
        return tap if isinstance(tap, RelayedTap) else None

    def find(self, client: Any) -> KernelWatch | None:
        """The watch of the kernel that a jupyter_client client is connected to."""
        for kernel_id, kernel in self._kernels.items():
            if client.parent is kernel or (
                client.shell_port and (client.shell_port, client.ip) == (kernel.shell_port, kernel.ip)
            ):
                return self.watch(kernel_id)
        return None

    def is_live(self, kernel_id: str) -> bool:
        """Whether the kernel's iopub is known to be heard."""
        tap = self.taps.get(kernel_id)
        return tap is None or tap.live

    async def until_live(self, kernel_id: str, timeout: float) -> None:
        """Wait until the kernel's iopub is heard, at most ``timeout`` seconds."""
        event = self._live.get(kernel_id)
        if event is None or event.is_set():
            return
        self.hurry()
        try:
            await asyncio.wait_for(event.wait(), timeout)
        except TimeoutError:
            self._log.warning(
                "exec-events: kernel %s was not heard within %.0f s; its next execution may be recorded incompletely.",
                kernel_id,
                timeout,
            )
            event.set()

    def hurry(self) -> None:
        """Something is pending: the next tick comes soon."""
        loop = asyncio.get_running_loop()
        soon = loop.time() + PENDING_TICK_SECONDS
        if self._timer is None or self._next_tick > soon:
            self._schedule(loop, PENDING_TICK_SECONDS)

    def drain_all(self) -> None:
        """Look at everything all kernels have published."""
        for tap in list(self.taps.values()):
            tap.drain_all()

    def _schedule(self, loop: asyncio.AbstractEventLoop, delay: float) -> None:
        if self._stopped:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._next_tick = loop.time() + delay
        self._timer = loop.call_later(delay, self._tick)

    def _tick(self) -> None:
        self._timer = None
        more = pending = False
        for tap in list(self.taps.values()):
            try:
                more |= tap.drain()
                pending |= bool(tap.watch.pending) or not tap.live
            except Exception:
                self._observer.trouble("the messages of a kernel")
        if self.taps:
            delay = 0.001 if more else PENDING_TICK_SECONDS if pending else IDLE_TICK_SECONDS
            self._schedule(asyncio.get_running_loop(), delay)

    # The wrapped methods; each gets the original first.

    def _start_watching(self, original: Callable[[str], Any], kernel_id: str) -> Any:
        kernel = self.manager.get_kernel(kernel_id)
        try:
            tap = self._attach(kernel_id, kernel)
        except Exception:
            self._observer.trouble("a new kernel")
            return original(kernel_id)
        kernel.connect_iopub = lambda *_, **__: tap.connect(kernel)
        try:
            return original(kernel_id)
        finally:
            del kernel.connect_iopub
            self.hurry()

    def _attach(self, kernel_id: str, kernel: Any) -> IopubTap:
        if isinstance(known := self.taps.get(kernel_id), IopubTap):
            return known
        watch, owner = self._new_watch(kernel_id, kernel)
        tap = IopubTap(watch, self._log, self._live.setdefault(kernel_id, asyncio.Event()).set)
        self._add(kernel_id, kernel, tap, owner)
        kernel.add_restart_callback(functools.partial(self._died, kernel_id, True), "restart")
        kernel.add_restart_callback(functools.partial(self._died, kernel_id, False), "dead")
        return tap

    def _new_watch(self, kernel_id: str, kernel: Any) -> tuple[KernelWatch, Identity | None]:
        owner = self._observer.who_asks()
        spec = getattr(kernel, "kernel_spec", None)
        language = str(getattr(spec, "language", "") or "").lower()
        name = str(kernel.kernel_name)
        return self._observer.new_watch(kernel_id, name, language, owner or self._observer.server_account()), owner

    def _add(self, kernel_id: str, kernel: Any, tap: IopubTap | RelayedTap, owner: Identity | None) -> None:
        self.taps[kernel_id] = tap
        self._kernels[kernel_id] = kernel
        self._observer.lifecycle(tap.watch, "started", "request" if owner else "server", owner)

    def _stop_watching(self, original: Callable[[str], Any], kernel_id: str) -> Any:
        # Closing the stream drains it. A changed port stops and starts watching: the watch stays.
        return original(kernel_id)

    async def _restart(self, original: Callable[..., Any], kernel_id: str, *args: Any, **kwargs: Any) -> Any:
        tap = self.taps.get(kernel_id)
        if tap is None:
            return await ensure_async(original(kernel_id, *args, **kwargs))
        tap.drain_all()
        doomed = tap.watch.doom("kernel_restarted")
        self._expect_another(kernel_id, tap)
        identity = self._observer.who_asks()
        try:
            result = await ensure_async(original(kernel_id, *args, **kwargs))
        finally:
            tap.drain_all()
            tap.watch.close("kernel_restarted", doomed)
        self._observer.lifecycle(tap.watch, "restarted", "request" if identity else "server", identity)
        return result

    async def _shutdown(self, original: Callable[..., Any], kernel_id: str, *args: Any, **kwargs: Any) -> Any:
        tap = self.taps.get(kernel_id)
        identity = self._observer.who_asks()
        if tap is not None:
            tap.drain_all()
            tap.watch.doom("kernel_shut_down")
        try:
            return await ensure_async(original(kernel_id, *args, **kwargs))
        finally:
            if tap is not None and kernel_id not in self.manager:
                tap.watch.close("kernel_shut_down")
                self._detach(kernel_id)
                self._observer.lifecycle(tap.watch, "shut_down", "request" if identity else "server", identity)

    async def _interrupt(self, original: Callable[..., Any], kernel_id: str, *args: Any, **kwargs: Any) -> Any:
        tap = self.taps.get(kernel_id)
        if tap is not None:
            tap.drain_all()
            tap.watch.interrupt()
            identity = self._observer.who_asks()
            self._observer.lifecycle(tap.watch, "interrupted", "request" if identity else "server", identity)
        return await ensure_async(original(kernel_id, *args, **kwargs))

    def _died(self, kernel_id: str, restarts: bool) -> None:
        """The restarter found the kernel dead; it restarts it next, or gives up."""
        tap = self.taps.get(kernel_id)
        if tap is None:
            return
        try:
            tap.drain_all()
            tap.watch.close("kernel_died")
            self._observer.lifecycle(tap.watch, "died", "kernel", None)
            if restarts:
                self._expect_another(kernel_id, tap)
                self._observer.lifecycle(tap.watch, "restarted", "autorestart", None)
        except Exception:
            self._observer.trouble("a dead kernel")

    def _expect_another(self, kernel_id: str, tap: IopubTap | RelayedTap) -> None:
        tap.expect_welcome()
        if (event := self._live.get(kernel_id)) is not None:
            event.clear()
        self.hurry()

    def _detach(self, kernel_id: str) -> None:
        for table in (self.taps, self._kernels, self._live):
            table.pop(kernel_id, None)
