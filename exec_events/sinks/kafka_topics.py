"""
The topics a record is delivered to: made on first use as the site says, or found missing, with what to do.

Events are kept for ever and their bodies compacted, unless the site says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from logging import Logger
from typing import Any

from kafka import KafkaAdminClient
from kafka.errors import (
    AuthorizationError,
    InvalidReplicationFactorError,
    PolicyViolationError,
    TopicAlreadyExistsError,
)

from exec_events.errors import SinkError
from exec_events_schemas.topics import KafkaAddress

# So many from the start: more later would move subjects to other partitions, and break their order.
PARTITIONS = 12
BROKER_DEFAULT = -1
FOR_EVER = -1
# A recorder's last word may name ten thousand chains, and a body may be as large as outputs are kept.
MAX_MESSAGE_BYTES = 8 * 1024 * 1024
_MILLISECONDS_A_DAY = 86_400_000
# A server whose clock is wrong must not have its events refused.
_ANY_TIME = str(2**63 - 1)


@dataclass(frozen=True, slots=True)
class TopicSettings:
    """
    How topics are made where they are missing; never applied to those that exist.

    ``replication_factor`` -1 is the cluster's own default, ``retention_days`` -1 is for ever.
    """

    create: bool = True
    partitions: int = PARTITIONS
    replication_factor: int = BROKER_DEFAULT
    retention_days: float = FOR_EVER
    max_message_bytes: int = MAX_MESSAGE_BYTES

    def options(self, name: str, address: KafkaAddress) -> dict[str, Any]:
        """The options of one topic, as `KafkaAdminClient.create_topics` takes them."""
        keyed = name in (address.topics.events, address.topics.contents)
        return {
            "num_partitions": self.partitions if keyed else 1,
            "replication_factor": self.replication_factor,
            "configs": self._configuration(compacted=name == address.topics.contents),
        }

    def _configuration(self, *, compacted: bool) -> dict[str, str]:
        limits = {"max.message.bytes": str(self.max_message_bytes), "message.timestamp.after.max.ms": _ANY_TIME}
        if compacted:
            return {"cleanup.policy": "compact", **limits}
        kept = FOR_EVER if self.retention_days < 0 else int(self.retention_days * _MILLISECONDS_A_DAY)
        return {"cleanup.policy": "delete", "retention.ms": str(kept), "retention.bytes": "-1", **limits}


class _Admin(KafkaAdminClient):  # type: ignore[misc]
    """An admin client that ends its thread when it cannot connect, which kafka-python 3.0 leaves running."""

    def __init__(self, **settings: Any) -> None:
        try:
            super().__init__(**settings)
        except BaseException:
            if hasattr(self, "_net"):
                self._closed = False
                self.close()
            raise


def ensure_topics(address: KafkaAddress, settings: TopicSettings, connection: dict[str, Any], log: Logger) -> None:
    """
    Make what is missing of the four topics.

    Blocks, for as long as ``connection`` allows. Raises SinkError where topics are missing and may not be made,
    and KafkaError where the cluster cannot be asked.
    """
    admin = _Admin(**connection)
    try:
        missing = sorted(set(address.topics) - set(admin.list_topics()))
        wanted = {name: settings.options(name, address) for name in missing}
        if not wanted:
            return
        if not settings.create:
            raise SinkError(_advice(wanted, "this server may not make them (create_topics is off)"))
        _create(admin, wanted, settings)
        log.info("exec-events: made the Kafka topics %s", ", ".join(missing))
    finally:
        admin.close()


def _create(admin: KafkaAdminClient, wanted: dict[str, dict[str, Any]], settings: TopicSettings) -> None:
    for name, options in wanted.items():
        try:
            admin.create_topics({name: options})
        except TopicAlreadyExistsError:
            continue  # another server was faster
        except (AuthorizationError, PolicyViolationError) as error:
            reason = f"the cluster does not let this server make them ({type(error).__name__})"
            raise SinkError(_advice(wanted, reason)) from error
        except InvalidReplicationFactorError as error:
            what = f"the cluster has too few brokers for replication_factor {settings.replication_factor}"
            raise SinkError(f"the Kafka topic {name} cannot be made: {what}") from error
    admin.wait_for_topics(list(wanted))


def _advice(wanted: dict[str, dict[str, Any]], reason: str) -> str:
    topics = "; ".join(
        f"{name}: {options['num_partitions']} partitions, "
        + ", ".join(f"{key}={value}" for key, value in options["configs"].items())
        for name, options in wanted.items()
    )
    return f"topics are missing in Kafka, and {reason}. Have them made ({topics})"
