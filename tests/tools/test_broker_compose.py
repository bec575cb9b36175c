"""docker/broker.yaml, without Docker: valid, of one version with the jars, and its settings start that Kafka."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from tools.kafka_broker import fetch
from tools.kafka_broker.node import Node
from tools.kafka_broker.ports import free_ports

REPOSITORY = Path(__file__).parents[2]
COMPOSE = REPOSITORY / "docker" / "broker.yaml"
POM = REPOSITORY / "tools" / "kafka_broker" / "pom.xml"
NOT_PROPERTIES = {"CLUSTER_ID", "KAFKA_HEAP_OPTS"}


@pytest.fixture
def service() -> dict[str, Any]:
    """The broker, as the file has it."""
    loaded: dict[str, Any] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]["broker"]
    return loaded


def property_of(variable: str) -> str:
    """The broker setting that the image makes of a variable: ``_`` a dot, ``__`` an underscore, ``___`` a dash."""
    signs = {1: ".", 2: "_", 3: "-"}
    return re.sub("_+", lambda found: signs[len(found[0])], variable.removeprefix("KAFKA_")).lower()


def test_is_valid() -> None:
    """The file follows the compose specification."""
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_has_the_version_that_tests_use(service: dict[str, Any]) -> None:
    """The image is pinned to the version of the jars."""
    version = ElementTree.parse(POM).findtext(".//{*}kafka.version")
    assert service["image"] == f"apache/kafka:{version}"


def test_is_reached_from_this_machine_alone(service: dict[str, Any]) -> None:
    """The port is bound to the loopback address, which is the one that clients are told."""
    assert service["ports"] == ["127.0.0.1:9092:9092"]
    assert "HOST://127.0.0.1:9092" in service["environment"]["KAFKA_ADVERTISED_LISTENERS"]


def test_keeps_its_log_on_the_volume(service: dict[str, Any]) -> None:
    """The log is where the volume is."""
    assert [volume.partition(":")[2] for volume in service["volumes"]] == [service["environment"]["KAFKA_LOG_DIRS"]]


def test_settings_start_a_broker(service: dict[str, Any], tmp_path: Path) -> None:
    """Kafka starts with the file's whole set of variables, ports, host and folder aside."""
    environment: dict[str, str] = service["environment"]
    node = Node(1, tmp_path, fetch(), heap_mb=512)
    (ports,) = free_ports(1)
    here = {
        "//broker:": "//127.0.0.1:",
        "@broker:": "@127.0.0.1:",
        "//:": "//127.0.0.1:",
        ":19092": f":{ports.internal}",
        ":9092": f":{ports.client}",
        ":29093": f":{ports.controller}",
        environment["KAFKA_LOG_DIRS"]: str(node.data),
    }
    lines = []
    for variable, value in environment.items():
        if variable not in NOT_PROPERTIES:
            for there, mine in here.items():
                value = value.replace(there, mine)
            lines.append(f"{property_of(variable)}={value}\n")
    node.settings_file.write_text("".join(lines))
    try:
        node.formatted(node.format(environment["CLUSTER_ID"], []))
        node.start()
        node.wait_until_started(time.monotonic() + 60)
        assert "Unknown" not in node.log
    finally:
        node.kill()
