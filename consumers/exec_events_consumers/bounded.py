"""A call that may wait for ever in, its answer within a time limit out."""

from __future__ import annotations

from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")
Answers = SimpleQueue[tuple[Any, BaseException | None]]


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
