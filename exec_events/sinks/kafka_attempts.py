"""
Attempts to connect to Kafka in, why the last one failed out, in words for a person.

kafka-python 3.0 only logs why it cannot connect, and tries wrong passwords again until its time is up.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kafka.errors import (
    IllegalSaslStateError,
    KafkaTimeoutError,
    SaslAuthenticationFailedError,
    UnsupportedSaslMechanismError,
)
from kafka.net.compat import KafkaNetClient
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector

from exec_events_schemas.errors import ContractError

# Another try with the same credentials ends in the same way, or in an account that is locked.
_REFUSALS = (SaslAuthenticationFailedError, UnsupportedSaslMechanismError, IllegalSaslStateError, ContractError)
_MOST_TEXT = 300


class Attempts:
    """
    Knows why the last attempt to connect failed: ``last``, None after one that did not.

    Its `client` is for the setting ``kafka_client`` of kafka-python's clients.
    """

    def __init__(self) -> None:
        self.last: BaseException | None = None

    def client(self, **settings: Any) -> KafkaNetClient:
        """What a client of kafka-python connects with."""
        net = NetworkSelector(**settings)
        return KafkaNetClient(net, _Manager(self, net, **settings), **settings)

    def why(self, servers: Iterable[str], error: BaseException, secrets: Iterable[str] = ()) -> str:
        """What the ``error`` of a client that could not be made comes from, without ``secrets``, and what to do."""
        where = ", ".join(servers)
        cause = self.last if isinstance(error, KafkaTimeoutError) and self.last is not None else error
        text = _explained(cause)
        for secret in secrets:
            text = text.replace(secret, "***")
        if isinstance(error, KafkaTimeoutError) and not isinstance(cause, _REFUSALS):
            return f"no broker of {where} answers ({text}): check the addresses and the network, and {_PROTOCOL}"
        return f"cannot work with the brokers of {where}: {text}"


_PROTOCOL = "that security_protocol is what they speak there"


class _Manager(KafkaConnectionManager):  # type: ignore[misc]
    """Connections that tell `Attempts` how they went."""

    def __init__(self, attempts: Attempts, net: NetworkSelector, **settings: Any) -> None:
        super().__init__(net, **settings)
        self._attempts = attempts

    async def _connect(self, node: Any, conn: Any, **options: Any) -> None:
        def ended(error: Any) -> None:
            self._attempts.last = error if isinstance(error, BaseException) else None
            if isinstance(error, _REFUSALS) and self.cluster.is_bootstrap(node.node_id):
                # Ends the bootstrap, as kafka-python means to but forgets.
                self._auth_failures[node.node_id] = error

        conn.init_future.add_both(ended)
        await super()._connect(node, conn, **options)


def _explained(error: BaseException) -> str:
    text = str(error)[:_MOST_TEXT]
    if isinstance(error, SaslAuthenticationFailedError):
        return f"authentication failed ({text}); check the user and the password or token, and their files"
    if isinstance(error, UnsupportedSaslMechanismError):
        return f"authentication failed ({text}); check sasl_mechanism"
    if isinstance(error, IllegalSaslStateError):
        return f"authentication failed ({text}); check {_PROTOCOL}"
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return f"TLS: {text}; their certificate is not one that ssl_cafile trusts"
    if isinstance(error, ContractError):
        return text
    return f"{type(error).__name__}: {text}"
