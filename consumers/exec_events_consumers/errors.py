"""What can go wrong on the readers' side; each text tells a person what to do next."""

from __future__ import annotations


class ConsumerError(Exception):
    """Base of every error this package raises of its own."""


class StoreError(ConsumerError):
    """A store that cannot be opened or written."""


class LostPartition(ConsumerError):
    """Another process with the consumer's name has taken ``partition`` over: nothing of the batch was written."""

    def __init__(self, partition: str, consumer: str) -> None:
        super().__init__(f"{partition} is read by another {consumer} now; nothing was written")
        self.partition = partition


class NotNow(ConsumerError):
    """A step cannot take its batch now: nothing was written, and the batch is read again after ``seconds``."""

    def __init__(self, reason: str, seconds: float) -> None:
        super().__init__(reason)
        self.seconds = seconds


class Stalled(ConsumerError):
    """The client of Kafka does not come back; the process must end, and may be started again."""
