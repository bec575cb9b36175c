"""A notebook front end without a browser: it speaks to a server as JupyterLab 4 and Notebook 7 do."""

from __future__ import annotations

import asyncio
import inspect
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, Self
from urllib.parse import quote

from tornado.httpclient import HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect

from .messages import V1, Message, Result, decode, encode
from .messages import header as made_header
from .pending import Pending
from .rest import call
from .tcp import tune

TIMEOUT_SECONDS = 60.0
MAX_MESSAGE_BYTES = 1 << 30

# The text typed for an input_request, given its prompt and whether it is a password.
Answer = Callable[[str, bool], str | Awaitable[str]]


class Server(Protocol):
    """Where to connect to: a `RunningServer`, or anything with these two."""

    @property
    def url(self) -> str:
        """As ``http://127.0.0.1:8888/``."""

    @property
    def token(self) -> str:
        """What the server asks for."""


class NotebookClient:
    """
    One open notebook: a session, its kernel and a websocket to it.

    With ``kernel_id`` it attaches to a kernel without a session; a second client with the same
    ``notebook`` shares the first one's kernel. ``quickack`` keeps delayed acknowledgements, which cost
    some 40 ms for each cell on loopback, out of what is measured. ``answer`` replies to ``input()``.
    All that arrives is in ``messages``, unless ``keep_messages`` is False.
    """

    def __init__(
        self,
        server: Server,
        *,
        notebook: str = "notebook.ipynb",
        kernel_name: str = "python3",
        kernel_id: str | None = None,
        subprotocol: str = V1,
        quickack: bool = True,
        nodelay: bool = True,
        answer: Answer | None = None,
        keep_messages: bool = True,
    ) -> None:
        self.server = server
        self.notebook = notebook
        self.kernel_name = kernel_name
        self.kernel_id = kernel_id or ""
        self.session_id = str(uuid.uuid4())
        self.notebook_session_id: str | None = None
        self.subprotocol = subprotocol
        self.messages: list[Message] = []
        self._answer = answer
        self._quickack = quickack
        self._nodelay = nodelay
        self._keep_messages = keep_messages
        self._connection: WebSocketClientConnection | None = None
        self._pending = Pending()
        self._requests: dict[str, asyncio.Future[Message]] = {}
        self._watchers: list[tuple[Callable[[Message], bool], asyncio.Future[Message]]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def open(self) -> Self:
        """Start or find the session and its kernel, connect, and wait for the kernel's first answer."""
        if not self.kernel_id:
            session = await self.rest("POST", "/api/sessions", self._session_request())
            self.notebook_session_id = session["id"]
            self.kernel_id = session["kernel"]["id"]
        await self.connect()
        return self

    def _session_request(self) -> dict[str, Any]:
        name = self.notebook.rpartition("/")[2]
        return {"path": self.notebook, "name": name, "type": "notebook", "kernel": {"name": self.kernel_name}}

    async def connect(self, hello: bool = True) -> None:
        """Open the websocket; unless ``hello`` is False, ask for kernel_info and wait for the answer."""
        url = f"ws{self.server.url.removeprefix('http').rstrip('/')}"
        request = HTTPRequest(
            f"{url}/api/kernels/{quote(self.kernel_id)}/channels?session_id={self.session_id}",
            headers={"Authorization": f"token {self.server.token}"},
            connect_timeout=TIMEOUT_SECONDS,
            request_timeout=TIMEOUT_SECONDS,
        )
        connection: WebSocketClientConnection | None = None

        def received(frame: str | bytes | None) -> None:
            if frame is not None:
                self._received(decode(frame, self.subprotocol))
            elif connection is None or connection is self._connection:
                self._lose("the websocket was closed")

        connection = await asyncio.wait_for(
            websocket_connect(
                request,
                on_message_callback=received,
                subprotocols=[self.subprotocol] if self.subprotocol else None,
                max_message_size=MAX_MESSAGE_BYTES,
            ),
            TIMEOUT_SECONDS,
        )
        if (connection.selected_subprotocol or "") != self.subprotocol:
            connection.close()
            raise ConnectionError(f"the server does not speak the subprotocol {self.subprotocol!r}")
        self._connection = connection
        tune(connection, quickack=self._quickack, nodelay=self._nodelay)
        if hello:
            await self.request("kernel_info_request")

    @property
    def connected(self) -> bool:
        """Whether the websocket is open, as far as this side knows."""
        return self._connection is not None and self._connection.protocol is not None

    async def close(self) -> None:
        """Close the websocket, as closing the tab does; the kernel lives on."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        self._lose("this client closed its websocket")
        for task in list(self._tasks):
            task.cancel()

    async def execute(
        self, code: str, *, cell_id: str | None = None, timeout: float = TIMEOUT_SECONDS, **options: Any
    ) -> Result:
        """
        Run one cell and wait for its reply and its idle; ``options`` as for `submit`.

        Raises:
            TimeoutError: reply or idle did not come in ``timeout`` seconds.
        """
        return await self.wait(await self.submit(code, cell_id=cell_id, **options), timeout)

    async def submit(
        self,
        code: str,
        *,
        cell_id: str | None = None,
        silent: bool = False,
        store_history: bool = True,
        user_expressions: Mapping[str, str] | None = None,
        allow_stdin: bool = True,
        stop_on_error: bool = True,
        msg_id: str | None = None,
        channel: str = "shell",
        metadata: Mapping[str, Any] | None = None,
        subshell_id: str | None = None,
    ) -> str:
        """Send one execute_request and return its msg_id at once; `wait` collects what comes of it."""
        content = {
            "code": code,
            "silent": silent,
            "store_history": store_history,
            "user_expressions": dict(user_expressions or {}),
            "allow_stdin": allow_stdin,
            "stop_on_error": stop_on_error,
        }
        sent_metadata = {"deletedCells": [], "recordTiming": False, **(metadata or {})}
        if cell_id is not None:
            sent_metadata["cellId"] = cell_id
        msg_id = msg_id or str(uuid.uuid4())
        self._pending.add(msg_id)
        more = {} if subshell_id is None else {"subshell_id": subshell_id}
        await self.send("execute_request", content, channel=channel, metadata=sent_metadata, msg_id=msg_id, header=more)
        return msg_id

    async def wait(self, msg_id: str, timeout: float = TIMEOUT_SECONDS) -> Result:
        """
        The result of a submitted execution, once it is replied and idle or lost.

        Raises:
            TimeoutError: neither in ``timeout`` seconds; the text says what was missing.
        """
        return await self._pending.wait(msg_id, timeout)

    async def request(
        self,
        msg_type: str,
        content: Mapping[str, Any] | None = None,
        *,
        channel: str = "shell",
        timeout: float = TIMEOUT_SECONDS,
    ) -> Message:
        """Send any request (as ``kernel_info_request``, ``create_subshell_request``) and wait for its reply."""
        msg_id = str(uuid.uuid4())
        reply: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._requests[msg_id] = reply
        try:
            await self.send(msg_type, content or {}, channel=channel, msg_id=msg_id)
            async with asyncio.timeout(timeout):
                return await reply
        finally:
            self._requests.pop(msg_id, None)

    async def send(
        self,
        msg_type: str,
        content: Mapping[str, Any],
        *,
        channel: str = "shell",
        metadata: Mapping[str, Any] | None = None,
        parent: Mapping[str, Any] | None = None,
        msg_id: str | None = None,
        header: Mapping[str, Any] | None = None,
        buffers: Sequence[bytes] = (),
    ) -> str:
        """Send any message (as ``comm_msg``), without waiting; its msg_id."""
        msg_id = msg_id or str(uuid.uuid4())
        message = {
            "channel": channel,
            "header": made_header(msg_type, msg_id, self.session_id, **(header or {})),
            "parent_header": dict(parent or {}),
            "metadata": dict(metadata or {}),
            "content": dict(content),
        }
        await self.send_frame(encode(message, self.subprotocol, buffers))
        return msg_id

    async def send_frame(self, frame: bytes | str) -> None:
        """Send a raw websocket frame, whatever it holds."""
        if self._connection is None:
            raise ConnectionError("the websocket is not open: call connect()")
        await self._connection.write_message(frame, binary=isinstance(frame, bytes))

    async def wait_for(self, predicate: Callable[[Message], bool], timeout: float = TIMEOUT_SECONDS) -> Message:
        """
        The first message, of those kept and those to come, for which ``predicate`` holds.

        Raises:
            TimeoutError: none in ``timeout`` seconds.
        """
        for message in self.messages:
            if predicate(message):
                return message
        found: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        watcher = (predicate, found)
        self._watchers.append(watcher)
        try:
            async with asyncio.timeout(timeout):
                return await found
        finally:
            self._watchers.remove(watcher)

    async def rest(self, method: str, path: str, json: Any = None) -> Any:
        """Call the server's REST API."""
        return await asyncio.to_thread(call, self.server.url, self.server.token, method, path, json)

    async def interrupt(self) -> None:
        """The stop button."""
        await self.rest("POST", f"/api/kernels/{self.kernel_id}/interrupt")

    async def restart(self, reconnect: bool = True) -> None:
        """
        The restart button: what is pending is given up, and the websocket opened anew.

        With ``reconnect`` False the old websocket is kept, as other front ends do.
        """
        await self.rest("POST", f"/api/kernels/{self.kernel_id}/restart")
        self._lose("the kernel was restarted")
        if reconnect:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()
            await self.connect()

    async def shutdown(self) -> None:
        """Shut the kernel down, with its session if this client opened one."""
        if self.notebook_session_id is not None:
            await self.rest("DELETE", f"/api/sessions/{self.notebook_session_id}")
        else:
            await self.rest("DELETE", f"/api/kernels/{self.kernel_id}")

    def _received(self, message: Message) -> None:
        if self._keep_messages:
            self.messages.append(message)
        parent_id = message["parent_header"].get("msg_id")
        msg_type = message["header"]["msg_type"]
        for predicate, found in self._watchers:
            if not found.done() and predicate(message):
                found.set_result(message)
        self._pending.received(message)
        if parent_id in self._requests and message["channel"] != "iopub":
            reply = self._requests[parent_id]
            if not reply.done():
                reply.set_result(message)
        if msg_type == "input_request":
            self._typed(message)
        elif msg_type == "status" and message["content"]["execution_state"] in ("restarting", "dead"):
            self._lose(f"the kernel is {message['content']['execution_state']}")

    def _typed(self, request: Message) -> None:
        if self._answer is None:
            return
        content = request["content"]
        typed = self._answer(content["prompt"], content["password"])

        async def reply() -> None:
            value = await typed if inspect.isawaitable(typed) else typed
            await self.send("input_reply", {"status": "ok", "value": value}, channel="stdin", parent=request["header"])

        task = asyncio.get_running_loop().create_task(reply())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _lose(self, why: str) -> None:
        self._pending.lose(why)
        for reply in self._requests.values():
            if not reply.done():
                reply.set_exception(ConnectionError(why))
