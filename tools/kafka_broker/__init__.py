"""
Apache Kafka on 127.0.0.1 without Docker, for tests, benchmarks and `make broker`.

    with Broker(nodes=3) as broker:
        producer = KafkaProducer(**broker.settings)
        broker.kill(0)
        broker.restart(0)
"""

from __future__ import annotations

from .broker import Broker
from .errors import BrokerError
from .jars import fetch
from .security import unsecured_token

__all__ = ["Broker", "BrokerError", "fetch", "unsecured_token"]
