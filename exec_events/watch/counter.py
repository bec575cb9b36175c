"""Message identifiers of one kernel in, how many of its messages nobody saw out."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple


class Mark(NamedTuple):
    """A place in the sequence of a kernel's messages: who sends, which number, how many were accounted for by then."""

    prefix: str
    number: int
    accounted: int


class MessageCounter:
    """
    Follows the counter at the end of jupyter_client's msg_ids (``<session>_<pid>_<n>``).

    Every message a kernel sends, on any channel, takes the next number: numbers that neither iopub, nor
    the replies, nor requests for input account for were lost on the way here. Kernels that name their
    messages otherwise are not followed.
    """

    def __init__(self) -> None:
        self._prefix = ""
        self._accounted = 0
        self._input_requests: deque[int] = deque(maxlen=1000)

    @property
    def session(self) -> str:
        """The session of the kernel process that publishes now; "" before it has."""
        return self._prefix.rpartition("_")[0]

    def iopub(self, header: dict[str, Any]) -> Mark | None:
        """An iopub message was seen; where it stands, None when its msg_id has no counter."""
        prefix, _, number = str(header.get("msg_id", "")).rpartition("_")
        if not prefix or not number.isdigit():
            return None
        if prefix != self._prefix:
            if header.get("msg_type") != "status":
                return None  # another process of the kernel's, a fork, prints
            self._prefix = prefix
        self._accounted += 1
        return Mark(prefix, int(number), self._accounted)

    def reply(self) -> None:
        """A request was answered: one message that is not on iopub."""
        self._accounted += 1

    def input_request(self, msg_id: str) -> None:
        """The kernel asked for input: one message, of this msg_id, that is not on iopub."""
        prefix, _, number = msg_id.rpartition("_")
        if prefix == self._prefix and number.isdigit():
            self._input_requests.append(int(number))

    def missed(self, first: Mark | None, last: Mark | None) -> int:
        """How many messages between two seen ones nobody saw."""
        if first is None or last is None or first.prefix != last.prefix:
            return 0
        asked = sum(first.number < number < last.number for number in self._input_requests)
        return (last.number - first.number) - (self._accounted - first.accounted) - asked
