"""docker/compose.yaml and what it runs, without Docker: valid files, who may reach whom, and what Kafka lets them do."""

from __future__ import annotations

import re
import runpy
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from dockerspawner import DockerSpawner
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ACL, ACLOperation, ACLPermissionType, NewTopic, ResourcePattern, ResourceType
from kafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    KafkaError,
    TopicAuthorizationFailedError,
)
from sqlalchemy import create_engine
from sqlalchemy.exc import ProgrammingError
from test_broker_compose import NOT_PROPERTIES, POM, property_of
from traitlets.config import Config

from exec_events.privacy import Pseudonyms, read_key
from exec_events_consumers.dashboard.serve import reading_engine
from exec_events_consumers.store import Store
from exec_events_schemas.kafka_settings import SETTINGS_FILE, read_settings
from exec_events_schemas.server_label import label_key, server_label
from tools.kafka_broker import fetch
from tools.kafka_broker.node import Node
from tools.kafka_broker.ports import free_ports
from tools.postgres import Postgres, programs

DOCKER = Path(__file__).parents[2] / "docker"
COMPOSE = DOCKER / "compose.yaml"
LOADED: dict[str, Any] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = LOADED["services"]
ONCE = {"secrets", "kafka-rights", "user-image"}


def done(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """What came of a program."""
    return subprocess.run([str(one) for one in arguments], capture_output=True, text=True, timeout=120, check=False)


def test_the_files_are_valid() -> None:
    """The compose file follows its specification, and hadolint finds nothing in the Dockerfile."""
    compose = done(sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE)
    assert compose.returncode == 0, compose.stdout + compose.stderr
    dockerfile = done(Path(sys.executable).with_name("hadolint"), DOCKER / "Dockerfile")
    assert dockerfile.returncode == 0, dockerfile.stdout + dockerfile.stderr


def test_the_wheel_is_made_of_what_images_get(tmp_path: Path) -> None:
    """What .dockerignore lets through, with the extension that another stage has built, is enough for the wheel; what tsc remembers stays out."""
    repository, source = DOCKER.parent, tmp_path / "source"
    source.mkdir()
    lines = (repository / ".dockerignore").read_text().splitlines()
    left_out = shutil.ignore_patterns(*(line.removeprefix("**/") for line in lines if line.startswith("**/")))
    for line in lines:
        if line.startswith("!"):
            one = repository / line[1:]
            copy = shutil.copytree if one.is_dir() else shutil.copy
            copy(one, source / one.name, **({"ignore": left_out} if one.is_dir() else {}))
    assert (source / "exec_events/labextension/package.json").is_file(), "make labextension builds it"
    # With it, tsc takes for built in the image what was built here.
    assert list(repository.glob("labextension/build/*.tsbuildinfo"))
    assert not list(source.rglob("*.tsbuildinfo"))
    wheel = done(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, source)
    assert wheel.returncode == 0, wheel.stderr
    assert len(list(tmp_path.glob("exec_events-*.whl"))) == 1


def test_images_are_pinned() -> None:
    """Every image that is not built here has an exact tag, Kafka's that of the jars of the tests."""
    images = {service["image"] for service in SERVICES.values()}
    foreign = {image for image in images if not image.startswith("exec-events/")}
    assert all(re.search(r":\d+\.\d+(\.\d+)?(-\w+)?$", image) for image in foreign)
    assert f"apache/kafka:{ElementTree.parse(POM).findtext('.//{*}kafka.version')}" in foreign
    base = re.search(r"^ARG BASE_IMAGE=(\S+)$", (DOCKER / "Dockerfile").read_text(), re.MULTILINE)
    assert base is not None
    assert re.search(r":\d+\.\d+\.\d+-", base[1])
    assert "==" in (DOCKER / "Dockerfile").read_text()


def test_everything_that_goes_on_says_how_it_is() -> None:
    """Each service that does not end has a healthcheck and starts again, and what it needs is waited for."""
    for name, service in SERVICES.items():
        merged = {**service.get("<<", {}), **service}
        if name not in ONCE:
            assert "healthcheck" in merged, name
            assert merged["restart"] == "unless-stopped", name
        for needed, how in service.get("depends_on", {}).items():
            expected = "service_completed_successfully" if needed in ONCE else "service_healthy"
            assert how["condition"] == expected, (name, needed)


def test_only_the_proxy_is_reached_and_the_database_by_two() -> None:
    """One port of this machine's own is open, the database shares a network with the aggregate and the dashboard alone."""
    assert {name: service["ports"] for name, service in SERVICES.items() if "ports" in service} == {
        "proxy": ["127.0.0.1:8000:8000"]
    }
    networks = LOADED["networks"]
    assert [name for name, network in networks.items() if not network.get("internal")] == ["front"]
    of = {network: {n for n, s in SERVICES.items() if network in s.get("networks", [])} for network in networks}
    assert of["store"] == {"database", "aggregate", "dashboard"}
    assert of["record"] == {"broker", "kafka-rights", "aggregate", "archive", "dashboard", "hub"}
    # Whom a user's server finds in its network is in no network with the database.
    assert {"hub", "proxy", "broker"} & of["store"] == set()


def test_what_asks_for_no_password_is_the_brokers_own() -> None:
    """Kafka's only listener without a password is on the loopback address of its container."""
    environment = SERVICES["broker"]["environment"]
    protocols = dict(pair.split(":") for pair in environment["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"].split(","))
    for listener in environment["KAFKA_LISTENERS"].split(","):
        name, _, address = listener.partition("://")
        assert protocols[name].startswith("SASL") or address.startswith("127.0.0.1:")


# Secrets.


@pytest.fixture(scope="module")
def secrets_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What docker/make_secrets.py makes."""
    folder = tmp_path_factory.mktemp("secrets")
    assert done(sys.executable, DOCKER / "make_secrets.py", folder).returncode == 0
    return folder


def test_secrets_are_made_once(secrets_folder: Path) -> None:
    """Files are for one account's eyes, none is made anew, and a lost one is as it was."""
    before = {file: file.read_text() for file in secrets_folder.rglob("*") if file.is_file()}
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o400 for file in before)
    owners = {file.parent.name: file.stat().st_uid for file in before}
    assert owners["all"] == owners["hub"] == 0
    assert (owners["recorder"], owners["broker"], owners["database"], owners["readers"]) == (1000, 1000, 999, 10001)
    (secrets_folder / "recorder" / "kafka-recorder").unlink()
    again = done(sys.executable, DOCKER / "make_secrets.py", secrets_folder)
    assert "1 made" in again.stdout
    assert {file: file.read_text() for file in secrets_folder.rglob("*") if file.is_file()} == before
    assert not any(text.strip() in again.stdout + again.stderr for text in before.values())


def test_a_users_server_gets_its_own_secrets_alone(secrets_folder: Path) -> None:
    """In what is mounted into users' servers is neither the admin's nor the reader's nor the database's password."""
    theirs = "".join(file.read_text() for file in (secrets_folder / "recorder").iterdir())
    for file in (secrets_folder / "all").iterdir():
        assert (file.read_text() in theirs) == (file.name in ("kafka-recorder", "notebook-key")), file.name
    mounted = {volume.partition(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert {f"secrets-{folder.name}" for folder in secrets_folder.iterdir()} <= mounted


def test_no_secret_is_in_the_files() -> None:
    """What stands in the compose file are names of files with secrets, and no secret."""
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if re.search("PASSWORD|TOKEN|SECRET|KEY", name):
                assert str(value).startswith("/run/secrets/"), name


# Kafka, with the settings of the file.


@pytest.fixture(scope="module")
def broker(secrets_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Kafka with the file's settings and secrets, its topics and rights as the file has them made; its address."""
    folder = tmp_path_factory.mktemp("broker")
    environment: dict[str, str] = SERVICES["broker"]["environment"]
    node = Node(1, folder, fetch(), heap_mb=512)
    (ports,) = free_ports(1)
    here = {
        "CLIENT://broker:19092": f"CLIENT://127.0.0.1:{ports.client}",
        "CLIENT://:19092": f"CLIENT://127.0.0.1:{ports.client}",
        ":29093": f":{ports.controller}",
        "/run/secrets/passwords.properties": str(secrets_folder / "broker" / "passwords.properties"),
        environment["KAFKA_LOG_DIRS"]: str(node.data),
        "$$": "$",
    }
    lines = []
    for variable, value in environment.items():
        if variable not in NOT_PROPERTIES:
            for there, mine in here.items():
                value = value.replace(there, mine)
            lines.append(f"{property_of(variable)}={value}\n")
    node.settings_file.write_text("".join(lines))
    server = f"127.0.0.1:{ports.client}"
    try:
        node.formatted(node.format(environment["CLUSTER_ID"], []))
        node.start()
        node.wait_until_started(time.monotonic() + 60)
        settings = folder / "admin.toml"
        settings.touch(mode=0o600)
        text = (secrets_folder / "kafka-admin" / "kafka.toml").read_text()
        settings.write_text(text.replace("/run/secrets", str(secrets_folder / "kafka-admin")))
        for _ in range(2):  # a second start grants them again
            granted = done(sys.executable, DOCKER / "kafka_rights.py", server, settings)
            assert granted.returncode == 0, granted.stderr
        yield server
    finally:
        node.kill()


def account(secrets_folder: Path, server: str, name: str) -> dict[str, Any]:
    """The connection of an account of the file."""
    return {
        "bootstrap_servers": server,
        "api_version": (4, 0),
        **read_settings(
            {
                "security_protocol": "SASL_PLAINTEXT",
                "sasl_mechanism": "PLAIN",
                "sasl_plain_username": name,
                "sasl_plain_password_file": str(secrets_folder / "all" / f"kafka-{name}"),
            }
        ),
    }


def read_by(connection: dict[str, Any], topic: str, group: str | None) -> list[bytes]:
    """What an account reads of a topic, as a member of a group or as none."""
    how = {"group_id": group, "auto_offset_reset": "earliest", "enable_auto_commit": False}
    with closing(KafkaConsumer(**connection, **how)) as consumer:
        if group is None:
            consumer.assign([TopicPartition(topic, number) for number in range(12)])
        else:
            consumer.subscribe([topic])
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            found = consumer.poll(timeout_ms=1000)
            if found:
                return [message.value for messages in found.values() for message in messages]
    return []


@pytest.mark.timeout(300)
def test_a_recorder_adds_records_and_does_nothing_else(secrets_folder: Path, broker: str) -> None:
    """With a user's account of Kafka records go in; nothing comes out, no body is erased, no topic made, changed or deleted."""
    mine = account(secrets_folder, broker, "recorder")
    with closing(KafkaProducer(**mine, enable_idempotence=True, acks="all", max_block_ms=10_000)) as producer:
        producer.send("exec-events.events", b"one", b"key").get(30)
        for topic in ("exec-events.contents", "exec-events.checkpoints", "jupyterhub.events"):
            with pytest.raises(KafkaError):
                producer.send(topic, None, b"key").get(20)
    with pytest.raises(TopicAuthorizationFailedError):
        read_by(mine, "exec-events.events", None)
    with pytest.raises(GroupAuthorizationFailedError):
        read_by(mine, "exec-events.events", "exec-events.aggregate")
    with closing(KafkaAdminClient(**mine)) as admin:
        with pytest.raises((ClusterAuthorizationFailedError, TopicAuthorizationFailedError)):
            admin.create_topics([NewTopic("mine", 1, 1)])
        with pytest.raises(TopicAuthorizationFailedError):
            admin.delete_topics(["exec-events.events"])
        with pytest.raises(KafkaError):
            admin.delete_records({TopicPartition("exec-events.events", 0): 0})
        everything = ResourcePattern(ResourceType.TOPIC, "*")
        right = ACL("User:recorder", "*", ACLOperation.ALL, ACLPermissionType.ALLOW, everything)
        assert admin.create_acls([right])["succeeded"] == []
    reader = account(secrets_folder, broker, "reader")
    assert read_by(reader, "exec-events.events", "exec-events.aggregate") == [b"one"]
    with closing(KafkaProducer(**reader, max_block_ms=10_000)) as producer, pytest.raises(KafkaError):
        producer.send("exec-events.events", b"two", b"key").get(20)


def test_nobody_gets_in_without_a_password(secrets_folder: Path, broker: str) -> None:
    """A client with a wrong password, or none, is refused."""
    bounds = {"bootstrap_timeout_ms": 5000, "request_timeout_ms": 5000}
    right = account(secrets_folder, broker, "recorder") | bounds
    wrong = {**right, "sasl_plain_password": "wrong"}
    nobody = {"bootstrap_servers": broker, "api_version": (4, 0), **bounds}
    with closing(KafkaAdminClient(**right)) as admin:
        assert "exec-events.events" in admin.list_topics()
    for given in (wrong, nobody):
        with pytest.raises(KafkaError), closing(KafkaAdminClient(**given)) as admin:
            admin.list_topics()


# The database.


def test_the_dashboard_reads_the_database_and_does_not_write(secrets_folder: Path, tmp_path: Path) -> None:
    """The account that the file makes for the dashboard has a password, reads what the aggregate wrote later, and writes nothing."""
    script = tmp_path / "database.sql"
    text = (DOCKER / "database.sql").read_text()
    script.write_text(text.replace("/run/secrets", str(secrets_folder / "database")))
    with Postgres() as server:
        url = server.database()
        owner, reader = (url.replace("//postgres@", f"//{name}@") for name in ("exec_events", "dashboard"))
        psql = [programs() / "psql", url.replace("+psycopg", ""), "-v", "ON_ERROR_STOP=1"]
        assert done(*psql, "-c", "CREATE ROLE exec_events SUPERUSER LOGIN").returncode == 0
        made = done(psql[0], owner.replace("+psycopg", ""), *psql[2:], "-f", script)
        assert made.returncode == 0, made.stderr
        assert "SCRAM-SHA-256" in done(*psql, "-c", "SELECT rolpassword FROM pg_authid").stdout
        with closing(Store(owner, "aggregate")) as store:
            store.claim(["p"])
        engine = reading_engine(reader)
        with engine.connect() as connection:
            assert connection.exec_driver_sql("SELECT partition FROM offsets").all() == [("p",)]
        engine.dispose()
        writing = create_engine(reader)
        with writing.connect() as connection, pytest.raises(ProgrammingError, match="permission denied"):
            connection.exec_driver_sql("DELETE FROM offsets")
        writing.dispose()


# Healthchecks.


class Answering(BaseHTTPRequestHandler):
    """Answers with the status that its path names."""

    def do_GET(self) -> None:
        self.send_response(int(self.path[1:]))
        self.end_headers()


def test_healthchecks_tell_an_answer_from_none(tmp_path: Path) -> None:
    """A redirection and a refusal are answers; a fault and a closed port are not, nor is a store without tables."""
    with HTTPServer(("127.0.0.1", 0), Answering) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        codes = [
            done(sys.executable, DOCKER / "answers.py", f"{url}/{path}").returncode for path in (200, 303, 401, 500)
        ]
        server.shutdown()
    assert codes == [0, 0, 0, 1]
    assert done(sys.executable, DOCKER / "answers.py", url).returncode == 1
    store = f"sqlite:///{tmp_path / 'tables.db'}"
    assert done(sys.executable, DOCKER / "has_tables.py", store).returncode == 1
    Store(store, "aggregate").close()
    assert done(sys.executable, DOCKER / "has_tables.py", store).returncode == 0


# The Hub's configuration.


def test_the_configurations_are_those_of_the_programs(
    secrets_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The Hub's file makes a spawner with a label and a pseudonym for each server, and every name in both files is one there is."""
    here = {
        "/run/secrets": str(secrets_folder / "hub"),
        "/srv/jupyterhub": str(tmp_path),
        "/opt/exec-events": str(tmp_path),
    }
    for file in ("jupyterhub_config.py", "dockerspawner_config.py"):
        text = (DOCKER / file).read_text()
        for there, mine in here.items():
            text = text.replace(there, mine)
        (tmp_path / file).write_text(text)
    for name, value in SERVICES["hub"]["environment"].items():
        value = re.sub(r"\$\{\w+:-(.*?)\}", r"\1", value)
        for there, mine in here.items():
            value = value.replace(there, mine)
        monkeypatch.setenv(name, value)
    config = Config()
    runpy.run_path(str(tmp_path / "jupyterhub_config.py"), {"get_config": lambda: config})
    spawner_class = config.JupyterHub.spawner_class
    traits = spawner_class.class_traits()
    assert set(config.DockerSpawner) | set(config.Spawner) <= set(traits)
    assert issubclass(spawner_class, DockerSpawner)

    class Named:
        class user:  # noqa: N801
            name = "ada"

        name = ""

    given = {name: value(Named()) for name, value in config.Spawner.environment.items()}
    assert given == {
        "EXEC_EVENTS_SERVER_LABEL": server_label(label_key(secrets_folder / "dashboard" / "server-key"), "ada"),
        "EXEC_EVENTS_OWNER_PSEUDONYM": Pseudonyms(read_key(secrets_folder / "all" / "pseudonym-key")).subject("ada"),
    }
    (service,) = config.JupyterHub.services
    assert {"exec-events"} == {name for role in config.JupyterHub.load_roles for name in role.get("services", [])}
    assert service["api_token"] == (secrets_folder / "dashboard" / "token").read_text()
    server = Config()
    runpy.run_path(str(DOCKER / "jupyter_server_config.py"), {"get_config": lambda: server})
    from exec_events.app import ExecEvents

    assert set(server.ExecEvents) <= set(ExecEvents.class_own_traits(config=True))
    given = {name: value for name, value in server.ExecEvents.sink_settings["kafka"].items() if "file" not in name}
    assert read_settings(given).keys() == given.keys()
    assert SETTINGS_FILE not in given
