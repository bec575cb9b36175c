"""The recorder's figures on the server's ``/metrics``: every name is written here, once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence

from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from .deliver import DeliveryState
from .health import Health

SPOOLED = "exec_events_spooled"
LOST = "exec_events_lost"
HELD = "exec_events_held"
OPEN = "exec_events_open_executions"
SPOOL_BYTES = "exec_events_spool_bytes"
HEALTHY = "exec_events_healthy"
FAULTS = "exec_events_faults"
DELIVERED = "exec_events_delivered"
DELIVERY_LAG = "exec_events_delivery_lag"
DELIVERY_LAG_BYTES = "exec_events_delivery_lag_bytes"
DELIVERY_OLDEST = "exec_events_delivery_oldest_seconds"
DELIVERY_RETRIES = "exec_events_delivery_retries"
DELIVERY_ERRORS = "exec_events_delivery_errors"
LISTENER_FAILURES = "exec_events_listener_failures"


class RecorderCollector(Collector):
    """Asks the recorder for its state whenever somebody reads the metrics."""

    def __init__(self, health: Callable[[], Health | None]) -> None:
        self._health = health

    def register(self) -> None:
        """Show them."""
        REGISTRY.register(self)

    def unregister(self) -> None:
        """Show them no more; a second time changes nothing."""
        with contextlib.suppress(KeyError):
            REGISTRY.unregister(self)

    def describe(self) -> Iterable[Metric]:
        """Nothing beforehand, so that registering asks nobody."""
        return []

    def collect(self) -> Iterable[Metric]:
        """One reading."""
        health = self._health()
        if health is None:
            yield GaugeMetricFamily(HEALTHY, "1 when nothing is wrong with the recorder.", value=0)
            return
        spool = health.spool
        yield CounterMetricFamily(SPOOLED, "Records sealed and committed.", value=spool.records)
        yield CounterMetricFamily(LOST, "Events given up because the spool could not be written.", value=spool.lost)
        yield GaugeMetricFamily(HELD, "Events in memory, not yet on disk.", value=spool.held)
        yield GaugeMetricFamily(OPEN, "Executions begun and not over.", value=spool.open_executions)
        yield GaugeMetricFamily(SPOOL_BYTES, "Size of the spool file and its journal.", value=spool.size_bytes)
        yield GaugeMetricFamily(HEALTHY, "1 when nothing is wrong with the recorder.", value=int(not health.problems))
        yield CounterMetricFamily(FAULTS, "Exceptions of the recorder's own.", value=health.faults)
        yield from _deliveries(health.sinks)
        failures = CounterMetricFamily(LISTENER_FAILURES, "Calls of a listener that failed.", labels=["listener"])
        for listener in health.listeners:
            failures.add_metric([listener.name], listener.failed + listener.timed_out + listener.dropped)
        yield failures


def _deliveries(deliveries: Sequence[DeliveryState]) -> Iterable[Metric]:
    """What each sink has taken, and what it has not."""
    counters: list[tuple[str, str, Callable[[DeliveryState], float]]] = [
        (DELIVERED, "Records a sink has taken.", lambda state: state.delivered),
        (DELIVERY_RETRIES, "Batches that had to be offered to a sink again.", lambda state: state.retries),
        (DELIVERY_ERRORS, "Batches a sink did not take, and what it refused for good.", lambda state: state.errors),
    ]
    gauges: list[tuple[str, str, Callable[[DeliveryState], float]]] = [
        (DELIVERY_LAG, "Records a sink has not taken yet.", lambda state: state.lag),
        (DELIVERY_LAG_BYTES, "Bytes of the records a sink has not taken yet.", lambda state: state.lag_bytes),
        (DELIVERY_OLDEST, "Age of the oldest record a sink has not taken yet.", lambda state: state.oldest_seconds),
    ]
    for name, help_text, of in counters:
        counter = CounterMetricFamily(name, help_text, labels=["sink"])
        for state in deliveries:
            counter.add_metric([state.sink], of(state))
        yield counter
    for name, help_text, of in gauges:
        gauge = GaugeMetricFamily(name, help_text, labels=["sink"])
        for state in deliveries:
            gauge.add_metric([state.sink], of(state))
        yield gauge
