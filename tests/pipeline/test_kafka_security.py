"""TLS, passwords, tokens and rights: what is wrong is said without a secret in it, and once it is put right all goes on."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import pytest
from kafka.admin import ACL, ACLOperation, ACLPermissionType, ResourcePattern, ResourceType
from kafka.admin import ACLResourcePatternType as PatternType

from exec_events import deliver
from exec_events.testing import NotebookClient, RunningServer
from kafka_sites import Site, site, streaming, wait_until
from kafka_topic import messages_of
from tools.kafka_broker import Broker, unsecured_token

SECRET = "hunter2-not-the-password"
REAUTHENTICATE_MS = 2000
TOKEN_SECONDS = 4
PROPERTIES = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    # Brokers and tests' admins come through listeners without names.
    "super.users": "User:ANONYMOUS;User:recorder",
    "connections.max.reauth.ms": str(REAUTHENTICATE_MS),
}
USERS = {"recorder": "recorder-secret", "guest": "guest-secret"}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails is tried again at once."""
    monkeypatch.setattr(deliver, "RETRY_SECONDS", (0.1, 0.3))


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    """A broker that asks for TLS and a name, and lets guests do nothing."""
    with Broker(listeners="SASL_SSL", users=USERS, properties=PROPERTIES) as running:
        yield running


@pytest.fixture
def prefix() -> str:
    """A prefix of topics that no other test has."""
    return f"test-{uuid.uuid4().hex[:12]}"


def private(path: Path, text: str) -> Path:
    """A file that only its owner may read."""
    path.touch(mode=0o600)
    path.write_text(text)
    return path


def connection(broker: Broker, folder: Path, mechanism: str = "PLAIN", **more: Any) -> dict[str, Any]:
    """The settings of a site whose password is in a file."""
    assert broker.certificates is not None
    return {
        "security_protocol": "SASL_SSL",
        "ssl_cafile": str(broker.certificates.authority),
        "sasl_mechanism": mechanism,
        "sasl_plain_username": "recorder",
        "sasl_plain_password_file": str(private(folder / "password", f"{USERS['recorder']}\n")),
        "bootstrap_timeout_ms": 3000,
        "partitions": 3,
        **more,
    }


def token() -> str:
    """A token that is soon too old."""
    return unsecured_token("recorder", now=time.time(), seconds=TOKEN_SECONDS)


@contextmanager
def fresh(path: Path) -> Iterator[None]:
    """Keep the token in a file fresh, as a sidecar does."""
    over = threading.Event()

    def run() -> None:
        while not over.wait(0.5):
            replacement = private(path.with_suffix(".new"), token())
            replacement.replace(path)

    thread = threading.Thread(target=run, name="sidecar")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(10)


def says_no_secret(made: Site, caplog: pytest.LogCaptureFixture, *secrets: str) -> bool:
    """Whether neither the problem, nor the state, nor the log holds one of these."""
    told = made.problem + json.dumps(asdict(made.deliverer.state())) + caplog.text
    return not any(secret in told for secret in secrets)


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
def test_a_wrong_password(
    broker: Broker, prefix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, mechanism: str
) -> None:
    """A wrong password is said to be that, and not shown; delivery goes on once its file is put right."""
    settings = connection(broker, tmp_path, mechanism)
    password = private(tmp_path / "password", SECRET)
    with site(tmp_path / "spool", broker.servers, prefix, **settings) as made:
        made.execute(30)
        made.wait_for_problem("authentication failed", "check the user and the password")
        wait_until(lambda: made.deliverer.state().errors > 2)
        assert made.position == 0
        assert says_no_secret(made, caplog, SECRET, USERS["recorder"])
        private(password, USERS["recorder"])
        made.drain()
        assert len(made.check(broker.settings)) == 31
        assert made.problem == ""
        assert says_no_secret(made, caplog, SECRET, USERS["recorder"])


def test_a_mechanism_the_broker_does_not_have(broker: Broker, prefix: str, tmp_path: Path) -> None:
    """A SASL mechanism that the broker does not offer is the problem, by its setting's name."""
    settings = connection(broker, tmp_path, "SCRAM-SHA-256")
    with site(tmp_path / "spool", broker.servers, prefix, stop_seconds=0.5, **settings) as made:
        made.wait_for_problem("authentication failed", "check sasl_mechanism")


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SASL_PLAINTEXT", "SSL"])
def test_another_protocol_than_the_broker_speaks(broker: Broker, prefix: str, tmp_path: Path, protocol: str) -> None:
    """Where the protocol is not the listener's, the problem says where to look."""
    settings = connection(broker, tmp_path, security_protocol=protocol, bootstrap_timeout_ms=1000)
    with site(tmp_path / "spool", broker.servers, prefix, stop_seconds=0.5, **settings) as made:
        made.wait_for_problem(f"no broker of {broker.servers} answers", "security_protocol")


def test_a_certificate_that_is_not_trusted(broker: Broker, prefix: str, tmp_path: Path) -> None:
    """With the wrong authority's certificate the problem says so; with the right one, in the same file, all goes."""
    assert broker.certificates is not None
    authority = tmp_path / "authority.pem"
    # The broker's own, signed by the authority, is no authority itself.
    lines = broker.certificates.client.read_text().partition("-----BEGIN CERTIFICATE-----")
    authority.write_text("".join(lines[1:]).partition("-----END CERTIFICATE-----")[0] + "-----END CERTIFICATE-----\n")
    settings = connection(broker, tmp_path, ssl_cafile=str(authority), bootstrap_timeout_ms=1000)
    with site(tmp_path / "spool", broker.servers, prefix, **settings) as made:
        made.execute(5)
        made.wait_for_problem("certificate", "ssl_cafile")
        assert made.position == 0
        shutil.copyfile(broker.certificates.authority, authority)
        made.drain()
        assert len(made.check(broker.settings)) == 6


def test_a_password_that_expires(broker: Broker, prefix: str, tmp_path: Path) -> None:
    """Over several ends of its sessions a producer goes on, without a failure, and nothing is lost."""
    with site(tmp_path / "spool", broker.servers, prefix, **connection(broker, tmp_path, "SCRAM-SHA-512")) as made:
        made.drain()
        with streaming(made, per_second=200):
            time.sleep(3.5 * REAUTHENTICATE_MS / 1000)
        made.drain()
        assert len(made.check(broker.settings)) > 500
        assert made.deliverer.state().errors == 0


def test_a_token_that_expires(broker: Broker, prefix: str, tmp_path: Path) -> None:
    """A token's file is read again at each authentication: a producer goes on long after its first token's end."""
    path = private(tmp_path / "token", token())
    settings = connection(broker, tmp_path, "OAUTHBEARER", sasl_oauth_token_file=str(path))
    with fresh(path), site(tmp_path / "spool", broker.servers, prefix, **settings) as made:
        made.drain()
        with streaming(made, per_second=200):
            time.sleep(2 * TOKEN_SECONDS)
        made.drain()
        assert len(made.check(broker.settings)) > 500
        assert made.deliverer.state().errors == 0


def test_a_token_that_is_too_old(broker: Broker, prefix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A token that is too old is an authentication that failed, and is not shown; with a fresh one all goes."""
    old = unsecured_token("recorder", now=time.time() - 900, seconds=60)
    path = private(tmp_path / "token", old)
    settings = connection(broker, tmp_path, "OAUTHBEARER", sasl_oauth_token_file=str(path))
    with site(tmp_path / "spool", broker.servers, prefix, **settings) as made:
        made.execute(5)
        made.wait_for_problem("authentication failed", "token")
        path.unlink()
        made.wait_for_problem("cannot be read", str(path))
        assert says_no_secret(made, caplog, old, old.split(".")[1])
        private(path, unsecured_token("recorder", now=time.time()))
        made.drain()
        assert len(made.check(broker.settings)) == 6


def test_topics_that_the_cluster_does_not_let_it_make(broker: Broker, prefix: str, tmp_path: Path) -> None:
    """Without the right to make topics the problem says what to make; with the right to write to them all goes."""
    settings = connection(broker, tmp_path, sasl_plain_username="guest")
    private(tmp_path / "password", USERS["guest"])
    with site(tmp_path / "spool", broker.servers, prefix, **settings) as made:
        made.execute(30)
        problem = made.wait_for_problem("the cluster does not let this server make them")
        assert all(f"{topic}: " in problem for topic in made.topics)
        with closing(broker.admin()) as admin:
            admin.create_topics({topic: {"num_partitions": 3} for topic in made.topics})
            admin.create_acls([allowed("guest", prefix, ACLOperation.DESCRIBE)])
            made.wait_for_problem("the brokers did not take a record: ", "Authorization")
            assert made.position == 0
            admin.create_acls([allowed("guest", prefix, ACLOperation.WRITE)])
        made.drain()
        assert len(made.check(broker.settings)) == 31


def allowed(user: str, prefix: str, operation: ACLOperation) -> ACL:
    """A right of a user's to do this to all topics of a prefix."""
    pattern = ResourcePattern(ResourceType.TOPIC, prefix, PatternType.PREFIXED)
    return ACL(f"User:{user}", "*", operation, ACLPermissionType.ALLOW, pattern)


async def test_a_server_tells_no_secret(broker: Broker, prefix: str, tmp_path: Path) -> None:
    """A server whose password is in a file says it nowhere, wrong or right: status, metrics, log, spool, topics, argv."""
    assert broker.certificates is not None
    settings = connection(broker, tmp_path, "SCRAM-SHA-512")
    password = private(tmp_path / "password", SECRET)
    config = f"""
c.ExecEvents.deliver_to = ["kafka://{broker.servers}/{prefix}"]
c.ExecEvents.sink_settings = {{"kafka": {settings!r}}}
"""
    told: list[str] = []
    async with RunningServer(tmp_path / "server", config=config) as server:

        def tell() -> dict[str, Any]:
            status: dict[str, Any] = server.rest("GET", "/exec-events/status")
            told.extend([json.dumps(status), server.rest("GET", "/metrics")])
            return next(iter(status["sinks"].values()))

        async with NotebookClient(server) as client:
            await client.execute("1 + 1")
            await asyncio.to_thread(wait_until, lambda: "authentication failed" in str(tell()["problem"]))
            private(password, USERS["recorder"])
            await asyncio.to_thread(wait_until, lambda: tell()["lag"] == 0)
            command = [sys.executable, "-m", "exec_events", "status"]
            env = {**os.environ, **server.environment}
            shown = await asyncio.to_thread(
                subprocess.run, command, env=env, capture_output=True, text=True, timeout=60
            )
            told += [shown.stdout, shown.stderr, " ".join(psutil.Process(server.pid).cmdline())]
            told.append(json.dumps(psutil.Process(server.pid).environ()))
    told.append(server.log)
    told += [path.read_bytes().decode("latin-1") for path in server.data_dir.rglob("*") if path.is_file()]
    messages = await asyncio.to_thread(messages_of, broker.settings, f"{prefix}.events")
    assert len(messages) > 3
    told += [message.value.decode() for message in messages]
    assert not [text[:300] for text in told for secret in (SECRET, USERS["recorder"]) if secret in text]
