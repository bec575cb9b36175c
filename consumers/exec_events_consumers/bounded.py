"""
Calls to kafka-python in, their answers within a time limit out, and what its own tries failed of.

kafka-python tries on by itself, logs what goes wrong, and some of its calls wait for ever meanwhile.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")
Answers = SimpleQueue[tuple[Any, BaseException | None]]

LOGGER = "kafka"


class Heard(logging.Handler):
    """
    Hears the errors that kafka-python logs and gets over: ``last`` is the last of them.

    Those of the types ``fatal`` end a call that has been given `answers`, for trying again does not help.
    """

    def __init__(self, *fatal: type[BaseException]) -> None:
        super().__init__(logging.WARNING)
        self.last: BaseException | None = None
        self.answers: Answers | None = None
        self._fatal = fatal

    def emit(self, record: logging.LogRecord) -> None:
        """Take note of an error among what is logged."""
        for value in record.args if isinstance(record.args, tuple) else ():
            if isinstance(value, BaseException):
                self.last = value
                if self.answers is not None and isinstance(value, self._fatal):
                    self.answers.put((None, value))

    def __enter__(self) -> Heard:
        logging.getLogger(LOGGER).addHandler(self)
        return self

    def __exit__(self, *exc: object) -> None:
        logging.getLogger(LOGGER).removeHandler(self)


def call_within(seconds: float, call: Callable[[], T], answers: Answers | None = None) -> T:
    """
    What ``call`` returns or raises, on a thread that is left to itself when it takes longer; raises TimeoutError.

    Somebody else may put the answer into ``answers`` before.
    """
    queue: Answers = SimpleQueue() if answers is None else answers

    def run() -> None:
        try:
            queue.put((call(), None))
        except BaseException as error:
            queue.put((None, error))

    Thread(target=run, name="exec-events-kafka", daemon=True).start()
    try:
        value, error = queue.get(timeout=seconds)
    except Empty:
        raise TimeoutError from None
    if error is not None:
        raise error
    answer: T = value
    return answer
