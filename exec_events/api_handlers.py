"""REST: what the recorder is doing, for the server's own users and for ``exec-events status``."""

from __future__ import annotations

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from tornado import web

AUTH_RESOURCE = "exec-events"


class StatusHandler(APIHandler):
    """``GET /exec-events/status``: health, counts, sinks and listeners; nothing of anybody's code or environment."""

    auth_resource = AUTH_RESOURCE

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """Answer with one JSON object."""
        self.finish(self.settings["exec_events"].status())


default_handlers = [(r"/exec-events/status", StatusHandler)]
