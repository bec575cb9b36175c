"""The routes: an engine to read with and who may see it in, an ASGI application out."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Collection, Hashable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError
from sse_starlette.sse import EventSourceResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from . import metrics, queries
from .access import Access, Guard
from .chart_data import chart_data, drawn_anew
from .live import Live
from .memo import Memo
from .now_page import Sums, integrity_page, now_page, sums_of
from .outside import Outside
from .page import Column, Page, Row, shown
from .people_pages import NoSuchPage, cohort_page, cohorts_page, notebook_page, people_page, person_page
from .span import EVER, OFFERED, BadSpan, Span, span_of
from .watching import Alarms, alarms_of

HERE = Path(__file__).parent
Maker = Callable[[Connection, Span, Request], Page]
T = TypeVar("T")
FORMATS = ("html", "json", "csv")
UNREADABLE = "the tables cannot be read at the moment: is `exec-events aggregate` new enough?"


class Dashboard:
    """
    The pages of one store.

    ``outside`` says what the tables do not know, ``clock`` what time it is.
    """

    def __init__(
        self,
        engine: Engine,
        outside: Outside = Outside(),  # noqa: B008 - frozen
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._engine = engine
        self._outside = outside
        self._clock = clock
        self._templates = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.globals.update(chart_data=chart_data, link=_link, offered=OFFERED)
        self._templates.filters["shown"] = shown
        self._sums: Memo[Sums] = Memo()
        self._cohorts: Memo[Page] = Memo()
        self._live = Live(self._change, self._figures)

    @property
    def routes(self) -> list[BaseRoute]:
        """All of them; each is one level deep, so that links stay right behind any prefix."""
        return [
            self._page("/", lambda connection, span, request: self._now(connection, span), "2h"),
            self._page("/person", _person),
            self._page("/notebook", _notebook),
            self._page("/cohort", self._cohort),
            self._page("/integrity", self._integrity),
            Route("/metrics", self._metrics),
            Route("/live", self._live_figures),
            Mount("/static", StaticFiles(directory=HERE / "static")),
        ]

    def _page(self, path: str, make: Maker, since: str = EVER) -> Route:
        def answer(request: Request) -> Response:
            form = request.query_params.get("format", "html")
            if form not in FORMATS:
                return _refused(f"format is one of {', '.join(FORMATS)}")
            given = request.query_params
            try:
                span = span_of(given.get("since") or since, given.get("until", ""), self._clock())
                with self._engine.connect() as connection:
                    page = make(connection, span, request)
                return self._answer(page, form, span, request)
            except BadSpan as error:
                return _refused(str(error))
            except NoSuchPage as error:
                return _refused(str(error), 404)
            except SQLAlchemyError:
                return _refused(UNREADABLE, 503)

        return Route(path, answer)

    def _answer(self, page: Page, form: str, span: Span, request: Request) -> Response:
        if form == "json":
            return _json({**page.as_json(), "since": span.since, "until": span.until})
        if form == "csv":
            table = request.query_params.get("table", page.tables[0].id)
            try:
                return Response(page.as_csv(table), media_type="text/csv")
            except KeyError:
                ids = ", ".join(["facts", *(one.id for one in page.tables)])
                return _refused(f"this page has no table {table!r}, but {ids}", 404)
        given = [(name, value) for name, value in request.query_params.multi_items() if name != "format"]
        about = [(name, value) for name, value in given if name in ("subject", "notebook")]
        here = request.url.path.rpartition("/")[2]
        return HTMLResponse(
            self._templates.get_template("page.html").render(
                page=page,
                span=span,
                about=about,
                here=lambda **more: _query(here, given, more),
                live=f"live?{urlencode({'since': span.since})}" if page.name == "now" and span.is_live else "",
            )
        )

    def _cohort(self, connection: Connection, span: Span, request: Request) -> Page:
        notebook = request.query_params.get("notebook")
        if notebook is None:
            return cohorts_page(connection, span)
        key = (notebook, span.since, span.until)
        return self._kept(self._cohorts, key, connection, lambda used: cohort_page(used, span, notebook))

    def _now(self, connection: Connection, span: Span) -> Page:
        sums = self._kept(self._sums, (span.since, span.until), connection, lambda used: sums_of(used, span))
        return now_page(connection, span, sums, self._outside.waiting(), self._alarms(connection, span.now))

    def _integrity(self, connection: Connection, span: Span, request: Request) -> Page:
        return integrity_page(connection, span, self._letters(connection), self._alarms(connection, span.now))

    def _alarms(self, connection: Connection, now: datetime) -> Alarms:
        return alarms_of(connection, self._outside.watching, now)

    def _letters(self, connection: Connection) -> int | None:
        return self._outside.letters(queries.read_to(connection))

    def _metrics(self, request: Request) -> Response:
        now = self._clock()
        try:
            with self._engine.connect() as connection:
                alarms, letters = self._alarms(connection, now), self._letters(connection)
                text = metrics.exposition(connection, alarms, self._outside.waiting(), letters, now)
        except SQLAlchemyError:
            return _refused(UNREADABLE, 503)
        return Response(text, media_type=metrics.CONTENT_TYPE)

    def _kept(self, memo: Memo[T], key: Hashable, connection: Connection, make: Callable[[Connection], T]) -> T:
        def behind() -> T:
            # Whoever asked is gone by then; who waits uses the connection they have, so that none waits for a second.
            with self._engine.connect() as own:
                return make(own)

        return memo.get(key, queries.change(connection), lambda: make(connection), behind)

    def _change(self) -> object:
        with self._engine.connect() as connection:
            return queries.change(connection)

    def _figures(self, since: str) -> str:
        with self._engine.connect() as connection:
            page = self._now(connection, span_of(since, "", self._clock()))
        rows = self._templates.get_template("rows.html")
        message = {
            "facts": {fact.id: fact.text for fact in page.facts},
            "alarms": [fact.id for fact in page.facts if fact.is_alarm],
            "tables": {table.id: rows.render(table=table) for table in page.tables},
            "charts": drawn_anew(page),
        }
        return json.dumps(message, separators=(",", ":"))

    async def _live_figures(self, request: Request) -> Response:
        since = request.query_params.get("since", "2h")
        try:
            span_of(since, "", self._clock())
        except BadSpan as error:
            return _refused(str(error))
        if self._live.is_full:
            return _refused("too many look on: the pages themselves still answer", 503)

        async def events() -> AsyncIterator[dict[str, str]]:
            async for message in self._live.messages(since):
                yield {"event": "now", "data": message}

        return EventSourceResponse(events(), headers={"x-accel-buffering": "no"})


def application(
    dashboard: Dashboard,
    access: Access,
    hosts: Collection[str] | None = (),
    prefix: str = "",
    more: Collection[BaseRoute] = (),
) -> ASGIApp:
    """
    The guarded application, under ``prefix``.

    ``hosts`` are the names it is asked by besides those of this machine; None where a proxy sees to that.
    """
    routes: list[BaseRoute] = [*dashboard.routes, *more]
    if prefix.strip("/"):
        routes = [Mount(f"/{prefix.strip('/')}", routes=routes)]
    return Guard(Starlette(routes=routes), access, hosts)


def _person(connection: Connection, span: Span, request: Request) -> Page:
    subject = request.query_params.get("subject")
    return people_page(connection, span) if subject is None else person_page(connection, span, subject)


def _notebook(connection: Connection, span: Span, request: Request) -> Page:
    given = request.query_params
    if "subject" not in given or "notebook" not in given:
        raise NoSuchPage("a notebook is asked for by ?subject=…&notebook=…")
    return notebook_page(connection, span, given["subject"], given["notebook"])


def _link(column: Column, row: Row) -> str:
    """Where a value leads, or "" where it leads nowhere."""
    if not column.link:
        return ""
    members = ("subject", "notebook") if column.link == "notebook" else (column.id,)
    return f"{column.link}?{urlencode({name: row[name] for name in members})}"


def _query(here: str, given: list[tuple[str, str]], more: dict[str, str]) -> str:
    """This page again, with other parameters; "" takes one away."""
    parameters = [(name, value) for name, value in given if name not in more]
    parameters += [(name, value) for name, value in more.items() if value]
    return f"./{here}?{urlencode(parameters)}"


def _json(value: Any) -> Response:
    return Response(json.dumps(value, ensure_ascii=False), media_type="application/json")


def _refused(text: str, status: int = 400) -> Response:
    return PlainTextResponse(f"{text}\n", status_code=status)
