"""Apache Kafka for the tests that ask for it: started once, at the first of them, or one that is named in the environment."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from typing import Any, Protocol

import pytest

from tools.kafka_broker import Broker

# host:port[,host:port…] of a plain listener; topics stay behind there.
EXISTING = "EXEC_EVENTS_TEST_KAFKA"


class RunningKafka(Protocol):
    """What tests may ask of the broker they share, which is not theirs to stop."""

    @property
    def servers(self) -> str:
        """As ``127.0.0.1:9092``."""

    @property
    def settings(self) -> dict[str, Any]:
        """kafka-python's settings for a client."""

    def admin(self) -> Any:
        """A KafkaAdminClient; the caller closes it."""


class ExistingKafka:
    """A broker that was there before the tests."""

    def __init__(self, servers: str) -> None:
        self.servers = servers
        self.settings: dict[str, Any] = {"bootstrap_servers": servers.split(",")}

    def admin(self) -> Any:
        """A KafkaAdminClient; the caller closes it."""
        from kafka import KafkaAdminClient

        return KafkaAdminClient(**self.settings)


@pytest.fixture(scope="session")
def kafka() -> Iterator[RunningKafka]:
    """One broker for the whole run; tests keep apart by a ``kafka_prefix`` each."""
    if servers := os.environ.get(EXISTING):
        yield ExistingKafka(servers)
    else:
        with Broker() as broker:
            yield broker


@pytest.fixture
def kafka_prefix() -> str:
    """A prefix of topics (and groups) that no other test has."""
    return f"test-{uuid.uuid4().hex[:12]}"
