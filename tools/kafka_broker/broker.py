"""A number of nodes in, Apache Kafka on 127.0.0.1 out, whose nodes can be killed and started again."""

from __future__ import annotations

import base64
import contextlib
import shutil
import signal
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from .errors import BrokerError
from .guard import Guard
from .jars import fetch
from .node import STOP_TIMEOUT_SECONDS, Node
from .ports import free_ports
from .properties import HOST, node_properties
from .security import (
    Certificates,
    Mechanism,
    Protocol,
    broker_settings,
    client_settings,
    make_certificates,
    scram_credentials,
    uses_sasl,
    uses_tls,
)

START_TIMEOUT_SECONDS = 90.0
CLUSTER_FILE = "cluster-id"

ONE_NODE_HEAP_MB = 512
MANY_NODES_HEAP_MB = 320


class Broker:
    """
    Apache Kafka of one or more nodes, each broker and controller, on free ports of 127.0.0.1.

    ``with`` starts it, waits until it takes requests, and ends it. Its ports are known from the beginning
    and stay the same. ``listeners`` is the protocol clients speak; ``mechanisms`` and ``users`` (name to
    password, at least one) matter with a SASL one. ``properties`` are more lines of server.properties.
    ``port`` is the first node's port for clients; the next nodes' follow it.

    Give ``directory`` to keep settings, logs and data, and to start a later broker on them; without it
    they are temporary, and gone after `stop`. Nodes are counted from 0,
    and Kafka calls node 0 broker 1.
    """

    def __init__(
        self,
        nodes: int = 1,
        *,
        properties: Mapping[str, str] | None = None,
        directory: Path | None = None,
        listeners: Protocol = "PLAINTEXT",
        mechanisms: Sequence[Mechanism] = ("PLAIN", "SCRAM-SHA-512", "OAUTHBEARER"),
        users: Mapping[str, str] | None = None,
        port: int | None = None,
        heap_mb: int | None = None,
    ) -> None:
        self.directory = directory.absolute() if directory is not None else None
        self.users = dict(users or {"recorder": "recorder-secret"})
        self.certificates: Certificates | None = None
        self._listeners = listeners
        self._mechanisms = mechanisms
        self._properties = dict(properties or {})
        self._ports = free_ports(nodes, port)
        self._heap_mb = heap_mb or (ONE_NODE_HEAP_MB if nodes == 1 else MANY_NODES_HEAP_MB)
        self._temporary: Path | None = None
        self._nodes: list[Node] = []
        self._guard: Guard | None = None

    @property
    def servers(self) -> str:
        """Where clients connect: ``127.0.0.1:p1,127.0.0.1:p2``."""
        return ",".join(f"{HOST}:{ports.client}" for ports in self._ports)

    @property
    def settings(self) -> dict[str, Any]:
        """kafka-python's settings for a client of the first user, with the first mechanism."""
        return self.settings_of()

    def settings_of(self, user: str | None = None, mechanism: Mechanism | None = None) -> dict[str, Any]:
        """
        kafka-python's settings for a client of this user and mechanism, by default the first ones.

        For OAUTHBEARER the token provider is the caller's to add: see `unsecured_token`.
        """
        chosen = (mechanism or self._mechanisms[0]) if uses_sasl(self._listeners) else None
        name = user or next(iter(self.users))
        credentials = (name, self.users.get(name, ""))
        secured = client_settings(self._listeners, chosen, credentials, self.certificates)
        return {"bootstrap_servers": self.servers.split(","), **secured}

    @property
    def pids(self) -> list[int]:
        """The processes that run now."""
        return [node.pid for node in self._nodes if node.pid is not None]

    @property
    def log(self) -> str:
        """What all nodes logged, one after the other."""
        return "".join(node.log for node in self._nodes)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self, timeout: float = START_TIMEOUT_SECONDS) -> Self:
        """
        Start every node that does not run, and wait until they take requests.

        Raises:
            BrokerError: Java or Maven is missing, or a node did not start in ``timeout`` seconds; the text
                says what to install, or ends with that node's log.
        """
        try:
            if not self._nodes:
                self._prepare()
            self._start(self._nodes, timeout)
        except BaseException:
            self.stop()
            raise
        return self

    def _prepare(self) -> None:
        libraries = fetch()
        if self.directory is None:
            self._temporary = Path(tempfile.mkdtemp(prefix="exec-events-kafka-"))
        home = self._temporary or self.directory
        assert home is not None
        self._guard = Guard(self._temporary)
        home.mkdir(parents=True, exist_ok=True)
        if uses_tls(self._listeners):
            self.certificates = make_certificates(home / "certificates")
        secured = broker_settings(self._listeners, self._mechanisms, self.users, self.certificates)
        for number in range(1, len(self._ports) + 1):
            node = Node(number, home / f"node{number}", libraries, self._heap_mb)
            node.directory.mkdir(exist_ok=True)
            node.settings_file.write_text(
                node_properties(
                    number,
                    self._ports,
                    protocol=self._listeners,
                    data=node.data,
                    secured=secured,
                    given=self._properties,
                )
            )
            self._nodes.append(node)
        scram = scram_credentials(self._mechanisms, self.users) if uses_sasl(self._listeners) else []
        cluster_id = _cluster_id(home / CLUSTER_FILE)
        formats = [node.format(cluster_id, scram) for node in self._nodes]
        for node, process in zip(self._nodes, formats, strict=True):
            node.formatted(process)

    def _start(self, nodes: Sequence[Node], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        for node in nodes:
            node.start()
        self._watch()
        for node in nodes:
            node.wait_until_started(deadline)
        if len(self._nodes) > 1:
            self._wait_until_joined(len(self.pids), deadline)

    def _wait_until_joined(self, count: int, deadline: float) -> None:
        """Wait until the cluster counts as many brokers as run: a started one is known to the others a little later."""
        with contextlib.closing(self.admin()) as admin:
            while len(admin.describe_cluster()["brokers"]) < count:
                if time.monotonic() > deadline:
                    raise BrokerError(f"{count} nodes run, the cluster knows {admin.describe_cluster()['brokers']}")
                time.sleep(0.05)

    def _watch(self) -> None:
        if self._guard is not None:
            self._guard.watch(self.pids)

    def stop(self) -> None:
        """End all nodes; what is temporary is removed."""
        if self._temporary is None:
            for node in self._nodes:
                node.terminate()
            deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
            for node in self._nodes:
                node.wait_until_ended(deadline)
        for node in self._nodes:
            # Data that is thrown away need not be put in order first.
            node.kill()
        self._nodes = []
        if self._guard is not None:
            self._watch()
            self._guard.close()
            self._guard = None
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary = None

    def kill(self, node: int = 0) -> None:
        """End one node at once (SIGKILL): its data stay as they are."""
        self._nodes[node].kill()
        self._watch()

    def terminate(self, node: int = 0) -> None:
        """End one node in order (SIGTERM) and wait for it: others lead its partitions from then on."""
        self._nodes[node].terminate()
        self._nodes[node].wait_until_ended(time.monotonic() + STOP_TIMEOUT_SECONDS)
        self._watch()

    def restart(self, node: int = 0, timeout: float = START_TIMEOUT_SECONDS) -> None:
        """
        Start one node again on the same ports and data, ending it in order first if it runs.

        Raises:
            BrokerError: it did not start in ``timeout`` seconds; the text ends with its log.
        """
        self.terminate(node)
        self._start([self._nodes[node]], timeout)

    def pause(self, node: int = 0) -> None:
        """Freeze one node (SIGSTOP): it accepts connections and answers nothing."""
        self._nodes[node].signal(signal.SIGSTOP)

    def resume(self, node: int = 0) -> None:
        """Let a frozen node go on."""
        self._nodes[node].signal(signal.SIGCONT)

    def admin(self) -> Any:
        """A KafkaAdminClient that may do everything, past the clients' listener; the caller closes it."""
        from kafka import KafkaAdminClient

        alive = [
            ports for ports, node in zip(self._ports, self._nodes, strict=True) if node.pid is not None
        ] or self._ports
        return KafkaAdminClient(bootstrap_servers=[f"{HOST}:{ports.internal}" for ports in alive])


def _cluster_id(file: Path) -> str:
    """The cluster's identifier, made once for a folder: 16 bytes in URL-safe base64, as Kafka wants it."""
    if not file.exists():
        file.write_text(base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode())
    return file.read_text()
