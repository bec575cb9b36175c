"""
An interrupt without a terminal ends a server as SIGTERM does: in order.

Jupyter leaves SIGINT to Python there, which breaks the loop off before any extension can stop. JupyterHub ends its
users' servers with just that signal, so that every end would look like a kill.
"""

from __future__ import annotations

import signal
import threading


def as_terminate() -> None:
    """Unless somebody has handled it otherwise already."""
    terminate = signal.getsignal(signal.SIGTERM)
    is_pythons = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_pythons and callable(terminate) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, terminate)
