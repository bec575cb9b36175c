"""
The topics of docker/compose.yaml and who may do what with them, told to Kafka by its admin; again, it changes nothing.

A recorder may add records, and can neither read, change nor delete any, nor make a topic. Bodies (contents) are
not its to write, for it could erase anybody's: see docs/docker.md before that is changed.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator

from kafka import KafkaAdminClient
from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePattern,
    ResourceType,
)

from exec_events.sinks.kafka_topics import TopicSettings, ensure_topics
from exec_events_schemas.kafka_settings import SETTINGS_FILE, read_settings
from exec_events_schemas.topics import Topics, kafka_address

# The Hub's own events have topics of their own.
PREFIXES = {"recorder": "exec-events", "hub": "jupyterhub"}
WRITE, READ, DESCRIBE = ACLOperation.WRITE, ACLOperation.READ, ACLOperation.DESCRIBE


def rights(topics: dict[str, Topics]) -> Iterator[ACL]:
    """Who may do what."""
    for writer, theirs in topics.items():
        for topic in (theirs.events, theirs.dead_letters):
            yield from _may(writer, topic, WRITE)
        for topic in theirs:
            yield from _may(writer, topic, DESCRIBE)
    for theirs in topics.values():
        yield from _may("reader", theirs.events, READ, DESCRIBE)
        yield from _may("reader", theirs.dead_letters, READ, WRITE, DESCRIBE)
    group = ResourcePattern(ResourceType.GROUP, f"{PREFIXES['recorder']}.", ACLResourcePatternType.PREFIXED)
    yield _acl("reader", READ, group)


def _may(user: str, topic: str, *operations: ACLOperation) -> Iterator[ACL]:
    for operation in operations:
        yield _acl(user, operation, ResourcePattern(ResourceType.TOPIC, topic))


def _acl(user: str, operation: ACLOperation, what: ResourcePattern) -> ACL:
    return ACL(f"User:{user}", "*", operation, ACLPermissionType.ALLOW, what)


def main(server: str, settings_file: str) -> None:
    """Make the topics and grant the rights."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("kafka").setLevel(logging.WARNING)
    addresses = {user: kafka_address(f"kafka://{server}/{prefix}") for user, prefix in PREFIXES.items()}
    settings = read_settings({SETTINGS_FILE: settings_file})
    connection = {"bootstrap_servers": [server], "api_version": (4, 0), **settings}
    log = logging.getLogger("exec-events")
    for address in addresses.values():
        ensure_topics(address, TopicSettings(), connection, log)
    admin = KafkaAdminClient(**connection)
    try:
        granted = admin.create_acls(list(rights({user: address.topics for user, address in addresses.items()})))
    finally:
        admin.close()
    if granted["failed"]:
        raise SystemExit(f"Kafka did not grant {granted['failed']}")
    log.info("kafka: %d rights granted", len(granted["succeeded"]))


if __name__ == "__main__":
    main(*sys.argv[1:])
