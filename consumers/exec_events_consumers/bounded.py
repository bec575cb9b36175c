"""A call that may wait for ever in, its answer within a time limit out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, ClassVar, TypeVar

T = TypeVar("T")
Answers = SimpleQueue[tuple[Any, BaseException | None]]


class _Caller:
    """
    A thread that makes calls, one after another.

    One that has come back is used again: memory that one thread took and another gave back is not all used again.
    """

    idle: ClassVar[deque[_Caller]] = deque()

    def __init__(self) -> None:
        self.calls: SimpleQueue[tuple[Callable[[], Any], Answers]] = SimpleQueue()
        Thread(target=self._run, name="exec-events-caller", daemon=True).start()

    def _run(self) -> None:
        while True:
            call, answers = self.calls.get()
            answer: tuple[Any, BaseException | None]
            try:
                answer = call(), None
            except BaseException as error:
                answer = None, error
            # Before the answer, so that whoever hears it finds this one for the next call.
            self.idle.append(self)
            answers.put(answer)
            del call, answers, answer


def call_within(seconds: float, call: Callable[[], T], answers: Answers | None = None) -> T:
    """
    What ``call`` returns or raises, on a thread that is left to itself when it takes longer; raises TimeoutError.

    Somebody else may put the answer into ``answers`` before.
    """
    queue: Answers = SimpleQueue() if answers is None else answers
    try:
        caller = _Caller.idle.pop()
    except IndexError:
        caller = _Caller()
    caller.calls.put((call, queue))
    try:
        value, error = queue.get(timeout=seconds)
    except Empty:
        raise TimeoutError from None
    if error is not None:
        raise error
    answer: T = value
    return answer
