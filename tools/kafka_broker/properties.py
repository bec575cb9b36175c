"""A node's number, ports and listener in, its server.properties out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

HOST = "127.0.0.1"

# Clients' listener, when it is not a plain one, is beside the plain one of brokers and of Broker.admin().
INTERNAL = "INTERNAL"
CLIENT = "CLIENT"
CONTROLLER = "CONTROLLER"


@dataclass(frozen=True, slots=True)
class Ports:
    """Where one node listens: for clients, for the other brokers, for the quorum of controllers."""

    client: int
    internal: int
    controller: int


def node_properties(
    number: int,
    ports: Sequence[Ports],
    *,
    protocol: str,
    data: Path,
    secured: Mapping[str, str],
    given: Mapping[str, str],
) -> str:
    """
    The server.properties of node ``number`` (from 1) of as many as there are ``ports``.

    ``secured`` are the settings that the clients' ``protocol`` needs; ``given`` win over everything.
    """
    own = ports[number - 1]
    listeners = {CLIENT: own.client, INTERNAL: own.internal, CONTROLLER: own.controller}
    addresses = {name: f"{name}://{HOST}:{port}" for name, port in listeners.items()}
    voters = ",".join(f"{node}@{HOST}:{each.controller}" for node, each in enumerate(ports, start=1))
    written = {
        "process.roles": "broker,controller",
        "node.id": str(number),
        "controller.quorum.voters": voters,
        "controller.listener.names": CONTROLLER,
        "inter.broker.listener.name": INTERNAL,
        "listeners": ",".join(addresses.values()),
        "advertised.listeners": f"{addresses[CLIENT]},{addresses[INTERNAL]}",
        "listener.security.protocol.map": f"{CONTROLLER}:PLAINTEXT,{INTERNAL}:PLAINTEXT,{CLIENT}:{protocol}",
        "log.dirs": str(data),
        **_replication(len(ports)),
        **SMALL,
        **secured,
        **given,
    }
    return "".join(f"{name}={_escaped(value)}\n" for name, value in written.items())


# Sized for a laptop and a test: little memory, few threads, no waits for members that may still come.
SMALL = {
    "auto.create.topics.enable": "false",
    "num.partitions": "3",
    "offsets.topic.num.partitions": "3",
    "transaction.state.log.num.partitions": "3",
    "share.coordinator.state.topic.num.partitions": "3",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "log.segment.bytes": "16777216",
    "log.cleaner.dedupe.buffer.size": "16777216",
    "num.network.threads": "2",
    "num.io.threads": "4",
    "background.threads": "4",
}


def _replication(nodes: int) -> dict[str, str]:
    """Each partition on every node of up to three, and a majority of those needed for a write."""
    factor = min(nodes, 3)
    fewest = factor // 2 + 1
    return {
        "default.replication.factor": str(factor),
        "min.insync.replicas": str(fewest),
        "offsets.topic.replication.factor": str(factor),
        "transaction.state.log.replication.factor": str(factor),
        "transaction.state.log.min.isr": str(fewest),
        "share.coordinator.state.topic.replication.factor": str(factor),
        "share.coordinator.state.topic.min.isr": str(fewest),
        # A killed broker is noticed after this, and its partitions get other leaders.
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "500",
        "replica.lag.time.max.ms": "5000",
        "controller.quorum.election.timeout.ms": "500",
        "controller.quorum.fetch.timeout.ms": "1000",
    }


def _escaped(value: str) -> str:
    """A value as java.util.Properties reads it back."""
    return value.replace("\\", "\\\\").replace("\n", "\\n")
