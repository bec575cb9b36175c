"""A number of nodes in, free ports for them on 127.0.0.1 out."""

from __future__ import annotations

import random
import socket

from .properties import HOST, Ports

# Below those the system gives to outgoing connections: a client that keeps trying a dead broker's port
# from that range will one day be given this very port, and talk to itself.
LOWEST, HIGHEST = 20_000, 32_000


def free_ports(nodes: int, first: int | None = None) -> list[Ports]:
    """Three ports for each node; clients' ports count up from ``first`` if that is given."""
    taken: set[int] = set()

    def free() -> int:
        while True:
            port = random.randint(LOWEST, HIGHEST)
            if port not in taken and is_free(port):
                taken.add(port)
                return port

    clients = [free() if first is None else first + node for node in range(nodes)]
    taken.update(clients)
    return [Ports(client, free(), free()) for client in clients]


def is_free(port: int) -> bool:
    """Whether a broker could listen there now."""
    with socket.socket() as probe:
        # As the broker does; without it a port whose last connection just ended counts as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True
