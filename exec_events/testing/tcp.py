"""The socket under a websocket: how soon it sends, and how soon it acknowledges."""

from __future__ import annotations

import contextlib
import socket

from tornado.websocket import WebSocketClientConnection


def tune(connection: WebSocketClientConnection, *, quickack: bool, nodelay: bool) -> None:
    """Set TCP_NODELAY, and keep TCP_QUICKACK set: Linux clears it by itself, so it is set after each read."""
    stream = getattr(connection.protocol, "stream", None)
    if stream is None or stream.socket is None:
        return
    stream.set_nodelay(nodelay)
    if not quickack or not hasattr(socket, "TCP_QUICKACK"):
        return
    tcp: socket.socket = stream.socket
    read = stream.read_from_fd

    def read_then_acknowledge(buffer: bytearray | memoryview) -> int | None:
        count: int | None = read(buffer)
        with contextlib.suppress(OSError):
            tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return count

    tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
    stream.read_from_fd = read_then_acknowledge
