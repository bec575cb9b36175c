"""
Attempts to connect to Kafka in, why they failed out, in words for a person.

kafka-python 3.0 only logs why it cannot connect, and tries wrong passwords again until its time is up.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kafka.errors import KafkaError, KafkaTimeoutError, SaslAuthenticationFailedError, UnsupportedSaslMechanismError
from kafka.net.compat import KafkaNetClient
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector

from exec_events_schemas.errors import ContractError

# Another try with the same credentials ends in the same way, or in an account that is locked.
_REFUSALS = (SaslAuthenticationFailedError, UnsupportedSaslMechanismError, ContractError)
_MOST_TEXT = 300


class Attempts:
    """
    Knows why the attempts of one client to connect failed: ``reason``, None after one that did not.

    Its `client` is for the setting ``kafka_client`` of kafka-python's clients.
    """

    def __init__(self) -> None:
        self.reason: BaseException | None = None

    def client(self, **settings: Any) -> KafkaNetClient:
        """What the next client of kafka-python connects with."""
        self.reason = None
        net = NetworkSelector(**settings)
        return KafkaNetClient(net, _Manager(self, net, **settings), **settings)

    def ended(self, error: Any) -> None:
        """Take note of an attempt: ``error`` is an exception, or anything else after one that succeeded."""
        if not isinstance(error, BaseException):
            self.reason = None
        elif self.reason is None or (isinstance(error, _REFUSALS) and not isinstance(self.reason, _REFUSALS)):
            # The last of many attempts fails because time is up, which is no reason.
            self.reason = error

    def why(self, servers: Iterable[str], error: BaseException, secrets: Iterable[str] = ()) -> str:
        """What the ``error`` of a client that could not be made comes from, without ``secrets``, and what to do."""
        where = ", ".join(servers)
        cause = self.reason if isinstance(error, KafkaTimeoutError) and self.reason is not None else error
        text = _text(cause)
        for secret in secrets:
            text = text.replace(secret, "***")
        if (advice := _advice(cause, text)) is not None:
            return f"cannot work with the brokers of {where}: {advice} ({text})"
        if isinstance(error, KafkaTimeoutError):
            check = "check the addresses, the network, and that security_protocol is what they speak there"
            return f"no broker of {where} answers: {check} ({text})"
        return f"cannot work with the brokers of {where}: {text}"


class _Manager(KafkaConnectionManager):  # type: ignore[misc]
    """Connections that tell `Attempts` how they went."""

    def __init__(self, attempts: Attempts, net: NetworkSelector, **settings: Any) -> None:
        super().__init__(net, **settings)
        self._attempts = attempts

    async def _build_transport(self, node: Any, timeout_at: float | None = None) -> Any:
        transport = await super()._build_transport(node, timeout_at=timeout_at)
        receive = transport._sock_recv

        def receive_all() -> tuple[bytes, BaseException | None]:
            # A broker refuses, then hangs up. kafka-python throws away what comes together with the end, which
            # is found again by the next look.
            data, error = receive()
            return data, None if data else error

        transport._sock_recv = receive_all
        return transport

    async def _connect(self, node: Any, conn: Any, **options: Any) -> None:
        conn.init_future.add_both(self._attempts.ended)
        await super()._connect(node, conn, **options)
        error = conn.init_future.exception
        if isinstance(error, _REFUSALS) and self.cluster.is_bootstrap(node.node_id):
            # Ends the bootstrap, as kafka-python means to, but it forgets what was refused.
            self._auth_failures[node.node_id] = error


def _text(error: BaseException) -> str:
    text = str(error) if isinstance(error, KafkaError | ContractError) else f"{type(error).__name__}: {error}"
    return text[:_MOST_TEXT]


def _advice(error: BaseException, text: str) -> str | None:
    """What to do where that is known."""
    if isinstance(error, SaslAuthenticationFailedError):
        return "authentication failed, check the user and the password or token, and the files they are in"
    if isinstance(error, UnsupportedSaslMechanismError):
        return "authentication failed, check sasl_mechanism"
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return "their certificate is not one that ssl_cafile trusts"
    if isinstance(error, ContractError | FileNotFoundError | PermissionError):
        return "check the files that its settings name"
    return None
