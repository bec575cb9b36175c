"""REST below ``/exec-events/``, as openapi.yaml says: for the extension's pages, and for ``exec-events status``."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from tornado import web

from exec_events_schemas.errors import SourceError

from .answers import Answers
from .cell_runs import Cell
from .consent import Consents
from .errors import ConfigurationError, NotThisText
from .watch.execution import Identity

AUTH_RESOURCE = "exec-events"
CELLS_BYTES = 32 * 1024 * 1024
NOTEBOOK_BYTES = 128 * 1024 * 1024
EVENTS_SHOWN = 50
EVENTS_LIMIT = 500


class _Handler(APIHandler):
    """What all routes have in common: whose they are, and what they refuse."""

    auth_resource = AUTH_RESOURCE

    @property
    def answers(self) -> Answers:
        """What answers; 503 where nothing can be recorded."""
        answers: Answers | None = self.settings["exec_events"].answers
        if answers is None:
            raise web.HTTPError(503, "nothing is recorded on this server; GET /exec-events/status says why")
        return answers

    @property
    def who(self) -> Identity:
        """Whose request this is, as the record names them; 403 for a user without a name."""
        identity: Identity | None = self.settings["exec_events"].who(self.current_user)
        if identity is None:
            raise web.HTTPError(403, "the server does not say who you are")
        return identity

    @property
    def consents(self) -> Consents:
        """The consents people gave; 400 where nobody is asked."""
        if (consents := self.answers.consents) is None:
            raise web.HTTPError(400, "this server is in mode audit: everybody is recorded, and nobody is asked")
        return consents

    async def asked(self, model: str, most_bytes: int) -> Any:
        """The request's body, read aside; 413 or 400 where it is not what it has to be."""
        if len(self.request.body) > most_bytes:
            raise web.HTTPError(413, f"at most {most_bytes:,} bytes are taken")

        def read() -> Any:
            from . import asked

            return asked.read(getattr(asked, model), self.request.body)

        try:
            return await asyncio.to_thread(read)
        except ConfigurationError as error:
            raise web.HTTPError(400, str(error)) from None


class StatusHandler(_Handler):
    """``GET /exec-events/status``: health, counts, sinks and listeners; nothing of anybody's code or environment."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """Answer with one JSON object."""
        self.finish(self.settings["exec_events"].status())


class PolicyHandler(_Handler):
    """``GET /exec-events/policy``: how this server records the person who asks."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """Answer with one JSON object."""
        self.finish(self.settings["exec_events"].policy(self.current_user))


class ConsentHandler(_Handler):
    """``/exec-events/consent``: what is asked, and the person's answer."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """Answer with what is asked and whether it was given; null where nobody is asked."""
        self.finish(json.dumps(self.answers.consent(self.who)))

    @web.authenticated
    @authorized
    async def put(self) -> None:
        """Record this person from now on."""
        consents, who = self.consents, self.who
        asked = await self.asked("AskedConsent", 4096)
        try:
            await self.answers.give(consents, who, asked.version)
        except NotThisText as error:
            raise web.HTTPError(409, str(error)) from None
        except OSError as error:
            raise web.HTTPError(
                500, f"your consent cannot be kept, so nothing is recorded: {error.strerror}"
            ) from error
        self.finish(self.answers.consent(who))

    @web.authenticated
    @authorized
    async def delete(self) -> None:
        """Record this person no more."""
        consents, who = self.consents, self.who
        try:
            await self.answers.withdraw(consents, who)
        except OSError as error:
            text = "nothing more is recorded until this server stops, but that cannot be kept for its next start"
            raise web.HTTPError(500, f"{text}: {error.strerror}; tell the administrator") from error
        self.finish(self.answers.consent(who))


class CellsHandler(_Handler):
    """``POST /exec-events/cells``: the last recorded run of each cell of a notebook."""

    @web.authenticated
    @authorized("read")  # type: ignore[untyped-decorator]
    async def post(self) -> None:
        """Answer with what is known of these cells; it changes nothing."""
        answers, who = self.answers, self.who
        asked = await self.asked("AskedCells", CELLS_BYTES)
        cells = [Cell(cell.id, cell.source) for cell in asked.cells]
        self.finish(await answers.cells(who, asked.path, cells))


class EventsHandler(_Handler):
    """``GET /exec-events/events``: the last events of the person who asks."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """Answer with at most ``limit`` events, the newest first."""
        text = self.get_query_argument("limit", str(EVENTS_SHOWN))
        if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= EVENTS_LIMIT:
            raise web.HTTPError(400, f"limit has to be a number from 1 to {EVENTS_LIMIT}")
        self.finish(await self.answers.events(self.who, int(text)))


class VerifyHandler(_Handler):
    """``POST /exec-events/verify``: whether a notebook is as it was recorded."""

    @web.authenticated
    @authorized("read")  # type: ignore[untyped-decorator]
    async def post(self) -> None:
        """Answer with a verdict on each code cell; it changes nothing."""
        answers = self.answers
        asked = await self.asked("AskedNotebook", NOTEBOOK_BYTES)
        try:
            self.finish(await answers.verify(asked.notebook))
        except ConfigurationError as error:
            raise web.HTTPError(400, str(error)) from None
        except SourceError as error:
            self.log.warning("exec-events: %s", error)
            raise web.HTTPError(503, "the record cannot be read just now; try again") from None


default_handlers = [
    (r"/exec-events/status", StatusHandler),
    (r"/exec-events/policy", PolicyHandler),
    (r"/exec-events/consent", ConsentHandler),
    (r"/exec-events/cells", CellsHandler),
    (r"/exec-events/events", EventsHandler),
    (r"/exec-events/verify", VerifyHandler),
]
