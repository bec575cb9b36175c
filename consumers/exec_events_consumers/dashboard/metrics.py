"""The dashboard's figures as Prometheus reads them: every name is written here, once. Nobody is named in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from sqlalchemy import Connection

from . import queries
from .silence import REASONS
from .watching import Alarms, recorder_states

SILENT_SERVERS = "exec_events_silent_servers"
RUNNING_SERVERS = "exec_events_running_servers"
RUNNING_SERVERS_KNOWN = "exec_events_running_servers_known"
RECORDERS = "exec_events_recorders"
CHAINS = "exec_events_chains"
RECORDS = "exec_events_chain_records"
MISSING = "exec_events_chain_missing"
FORKS = "exec_events_chain_forks"
DEAD_LETTERS = "exec_events_dead_letters"
TOPIC_LETTERS = "exec_events_topic_dead_letters"
WAITING = "exec_events_waiting_records"
NEWEST = "exec_events_newest_event_seconds"
CONTENT_TYPE = CONTENT_TYPE_LATEST


def exposition(
    connection: Connection, alarms: Alarms, waiting: int | None, letters: int | None, now: datetime
) -> bytes:
    """One reading."""
    metrics = list(_metrics(connection, alarms, waiting, letters, now))
    registry = CollectorRegistry()
    registry.register(_Read(metrics))
    return generate_latest(registry)


class _Read(Collector):
    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _metrics(
    connection: Connection, alarms: Alarms, waiting: int | None, letters: int | None, now: datetime
) -> Iterable[Metric]:
    known = alarms.servers is not None
    yield GaugeMetricFamily(RUNNING_SERVERS_KNOWN, "1 when the Hub says which servers run.", value=int(known))
    if alarms.servers is not None:
        yield GaugeMetricFamily(RUNNING_SERVERS, "Servers that the Hub says run.", value=alarms.servers)
        yield _by("reason", SILENT_SERVERS, "Of these, those whose recorder is silent.", _reasons(alarms))
    yield _by("state", RECORDERS, "Recorders, by what they do.", recorder_states(connection, now))
    sums = queries.chain_sums(connection)
    yield GaugeMetricFamily(CHAINS, "Chains.", value=sums["chains"])
    yield GaugeMetricFamily(RECORDS, "Records in them.", value=sums["records"])
    yield GaugeMetricFamily(MISSING, "Records that are missing in them.", value=sums["missing"])
    yield GaugeMetricFamily(FORKS, "Records that have the place of another.", value=sums["forks"])
    yield GaugeMetricFamily(DEAD_LETTERS, "Dead letters in the tables.", value=queries.dead_letter_count(connection))
    if letters is not None:
        yield GaugeMetricFamily(TOPIC_LETTERS, "Dead letters on their topic, not replayed.", value=letters)
    if waiting is not None:
        yield GaugeMetricFamily(WAITING, "Records the tables do not have yet.", value=waiting)
    newest = queries.newest(connection)
    if newest is not None:
        age = (now - datetime.fromisoformat(newest)).total_seconds()
        yield GaugeMetricFamily(NEWEST, "Age of the newest event in the tables.", value=max(0.0, age))


def _reasons(alarms: Alarms) -> dict[str, int]:
    return {**dict.fromkeys(REASONS, 0), **Counter(one.reason for one in alarms.silent)}


def _by(label: str, name: str, about: str, values: Mapping[Any, int]) -> Metric:
    family = GaugeMetricFamily(name, about, labels=[label])
    for value, count in values.items():
        family.add_metric([value.replace(" ", "_")], count)
    return family
