"""Executions under way: messages go in, results come out once they are replied and idle, or lost."""

from __future__ import annotations

import asyncio
import time

from .messages import Message, Result


class Pending:
    """
    What a client has asked for and not collected yet.

    Several executions may share a msg_id; each is completed by the first reply and the first idle that
    come after those of the one before it.
    """

    def __init__(self) -> None:
        self._executions: dict[str, list[tuple[Result, asyncio.Future[Result]]]] = {}

    def add(self, msg_id: str) -> None:
        """An execution is about to be requested."""
        done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._executions.setdefault(msg_id, []).append((Result(msg_id, time.perf_counter()), done))

    async def wait(self, msg_id: str, timeout: float) -> Result:
        """
        Collect the oldest execution of this msg_id, once it is over.

        Raises:
            TimeoutError: it is not in ``timeout`` seconds; the text says what was missing.
        """
        result, done = self._executions[msg_id][0]
        try:
            async with asyncio.timeout(timeout):
                await asyncio.shield(done)
        except TimeoutError:
            missing = [name for name, there in (("reply", result.reply), ("idle", result.idle)) if not there]
            raise TimeoutError(f"execution {msg_id}: no {' and no '.join(missing)} in {timeout} s") from None
        executions = self._executions[msg_id]
        executions.remove((result, done))
        if not executions:
            del self._executions[msg_id]
        return result

    def received(self, message: Message) -> None:
        """Give a message to the execution it is for, if there is one."""
        is_reply = message["header"]["msg_type"] == "execute_reply"
        for result, done in self._executions.get(message["parent_header"].get("msg_id"), ()):
            if done.done() or (is_reply and result.reply) or (message["channel"] == "iopub" and result.idle):
                continue
            result.messages.append(message)
            if is_reply:
                result.reply = message
            elif message["content"].get("execution_state") == "idle":
                result.idle = True
            if result.idle and result.reply:
                result.done_at = time.perf_counter()
                done.set_result(result)
            return

    def lose(self, why: str) -> None:
        """Nothing more will come for any of them."""
        for executions in self._executions.values():
            for result, done in executions:
                if not done.done():
                    result.lost = why
                    result.done_at = time.perf_counter()
                    done.set_result(result)
