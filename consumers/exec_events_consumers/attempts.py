"""
Attempts to connect to Kafka in, why they failed out.

kafka-python 3.0 only logs why it cannot connect, and tries wrong passwords again until its time is up.
"""

from __future__ import annotations

from typing import Any

from kafka.errors import KafkaError, SaslAuthenticationFailedError, UnsupportedSaslMechanismError
from kafka.net.compat import KafkaNetClient
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector

from exec_events_schemas.errors import ContractError

from .bounded import Answers

# Another try ends in the same way, or in an account that is locked. What is no error of Kafka's, nor of the
# network's, comes from the settings: a file that is not there, a user that was not given.
_REFUSALS = (SaslAuthenticationFailedError, UnsupportedSaslMechanismError, ContractError)
_FILES = (FileNotFoundError, PermissionError, IsADirectoryError)


class Attempts:
    """
    Knows why the attempts of one client to connect failed: ``last``, None where none did.

    Its `client` is for the setting ``kafka_client`` of kafka-python's clients. An error after which another try
    does not help is put into ``answers``, if there are any, to end the call that waits for the client.
    """

    def __init__(self) -> None:
        self.last: BaseException | None = None
        self.answers: Answers | None = None

    def client(self, **settings: Any) -> KafkaNetClient:
        """What the next client of kafka-python connects with."""
        net = NetworkSelector(**settings)
        return KafkaNetClient(net, _Manager(self, net, **settings), **settings)

    def ended(self, error: Any) -> None:
        """Take note of an attempt: ``error`` is an exception, or anything else after one that succeeded."""
        if not isinstance(error, BaseException):
            self.last = None
            return
        if not isinstance(self.last, _REFUSALS):  # the broker hangs up once it has refused
            self.last = error
        if self.answers is not None and is_final(self.last):
            self.answers.put((None, self.last))


def is_final(error: BaseException) -> bool:
    """Whether another try with the same settings fails in the same way."""
    if isinstance(error, KafkaError):
        return isinstance(error, _REFUSALS) or "CERTIFICATE_VERIFY_FAILED" in str(error)
    return not isinstance(error, OSError) or isinstance(error, _FILES)


class _Manager(KafkaConnectionManager):  # type: ignore[misc]
    """Connections that tell `Attempts` how they failed."""

    def __init__(self, attempts: Attempts, net: NetworkSelector, **settings: Any) -> None:
        super().__init__(net, **settings)
        self._attempts = attempts

    async def _build_transport(self, *arguments: Any, **more: Any) -> Any:
        transport = await super()._build_transport(*arguments, **more)
        receive = transport._sock_recv

        def data_first() -> tuple[bytes, Any]:
            # A refusal comes in one piece with the end of the connection; kafka-python would drop it. The end is
            # found again at the next look.
            data, error = receive()
            return data, None if data else error

        transport._sock_recv = data_first
        return transport

    async def _connect(self, node: Any, conn: Any, **options: Any) -> None:
        authenticate = conn._sasl_authenticate

        async def watched(*arguments: Any, **more: Any) -> None:
            # What is refused is known here, and outside only if the end of the connection is not seen before.
            try:
                await authenticate(*arguments, **more)
            except Exception as error:
                self._attempts.ended(error)
                raise

        conn._sasl_authenticate = watched
        conn.init_future.add_both(self._attempts.ended)
        await super()._connect(node, conn, **options)
