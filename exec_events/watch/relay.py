"""
A kernel behind a gateway: its iopub messages are those that the websockets of this server relay.

Such a server has no ZeroMQ to the kernel, so what no websocket carries it cannot see; the gateway's own
recorder is the authority on what ran there.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import orjson

from .kernel import KernelWatch

SEEN_MESSAGES = 20_000


class RelayedTap:
    """Feeds a `KernelWatch` from websocket messages; several websockets carry the same message."""

    live = True

    def __init__(self, watch: KernelWatch) -> None:
        self.watch = watch
        self._seen: OrderedDict[str, None] = OrderedDict()

    def relayed(self, message: str | bytes) -> None:
        """One message on its way to a client, in the legacy JSON form that gateways use."""
        whole: dict[str, Any] = orjson.loads(message)
        if whole.get("channel") != "iopub":
            return
        header = whole["header"]
        msg_id = str(header.get("msg_id", ""))
        if msg_id in self._seen:
            return
        self._seen[msg_id] = None
        if len(self._seen) > SEEN_MESSAGES:
            self._seen.popitem(last=False)
        content = orjson.dumps(whole.get("content"))
        parent = self.watch.parent(orjson.dumps(whole.get("parent_header"), option=orjson.OPT_SORT_KEYS))
        self.watch.iopub(header, parent, content, len(content))

    def drain(self) -> bool:
        """Nothing waits anywhere; what has waited long enough ends."""
        self.watch.end_of_batch()
        return False

    def drain_all(self) -> None:
        """As `drain`."""
        self.drain()

    def expect_welcome(self) -> None:
        """Nothing is held back for such a kernel: the gateway has the subscription."""
