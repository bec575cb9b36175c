"""``exec-events status``: what this user's recorders have spooled and delivered, and how running servers are."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

import click

from exec_events import paths
from exec_events_schemas.errors import MalformedRecord
from exec_events_schemas.record import event_of, seal_of
from exec_events_schemas.sources.spool import connect_read_only, is_running, spool_files

from .source import EXIT_BROKEN, kind_of

SERVER_TIMEOUT_SECONDS = 2.0
# A heartbeat comes often; a recorder's last word is sought among so many records at most.
LOOK_BACK = 20_000


@dataclass(slots=True)
class SinkStatus:
    """How far a sink has taken one file: a row id, what is left in records and bytes, the time of the oldest of it."""

    position: int
    behind: int = 0
    behind_bytes: int = 0
    oldest_at: str = ""


@dataclass(slots=True)
class FileStatus:
    """One spool file: ``state`` is running, closed, crashed or damaged; sizes are bytes, times RFC 3339."""

    recorder_id: str
    state: str
    records: int = 0
    open_executions: int = 0
    size_bytes: int = 0
    last_word: str = ""
    last_word_at: str = ""
    sinks: dict[str, SinkStatus] = field(default_factory=dict)
    problem: str | None = None


@dataclass(slots=True)
class ServerStatus:
    """One running server: what it says of its recorder's health, or why nothing is known."""

    url: str
    pid: int | None
    health: dict[str, Any] | None = None
    problems: list[str] = field(default_factory=list)


def file_status(path: Path) -> FileStatus:
    """Look at one spool file, read-only; what cannot be read is its problem."""
    running = is_running(path)
    status = FileStatus(path.stem, "running" if running else "crashed", size_bytes=_bytes(path))
    try:
        with closing(connect_read_only(path)) as connection:
            _look(connection, status)
    except sqlite3.Error as error:
        status.state = "damaged"
        status.problem = f"{path.name} cannot be read ({error}); `exec-events verify` shows what is missing"
        return status
    if status.last_word == "stopped" and not running:
        status.state = "closed"
    if status.state == "crashed":
        status.problem = f"{path.name}: its server died without closing it; the next one started here will"
    return status


def _look(connection: sqlite3.Connection, status: FileStatus) -> None:
    low, high = connection.execute("SELECT min(id), max(id) FROM records").fetchone()
    # Rows are numbered without a gap, so this is their count, without reading them.
    status.records = 0 if high is None else high - low + 1
    status.open_executions = connection.execute("SELECT count(*) FROM begun").fetchone()[0]
    for sink, position in connection.execute("SELECT sink, position FROM deliveries ORDER BY sink").fetchall():
        status.sinks[sink] = _behind(connection, position, high or 0)
    rows = connection.execute("SELECT record FROM records ORDER BY id DESC LIMIT ?", (LOOK_BACK,))
    for (record,) in rows:
        try:
            if seal_of(record).chain == status.recorder_id and kind_of(event := event_of(record)) == "recorder":
                status.last_word, status.last_word_at = str(event["action"]), str(event["time"])
                return
        except (MalformedRecord, KeyError):
            continue


def _behind(connection: sqlite3.Connection, position: int, high: int) -> SinkStatus:
    status = SinkStatus(position, max(0, high - position))
    if status.behind:
        query = "SELECT coalesce(sum(length(record)), 0) FROM records WHERE id > ?"
        status.behind_bytes = connection.execute(query, (position,)).fetchone()[0]
        query = "SELECT record FROM records WHERE id > ? ORDER BY id LIMIT 1"
        for (record,) in connection.execute(query, (position,)):
            try:
                status.oldest_at = str(event_of(record).get("time", ""))
            except MalformedRecord:
                continue
    return status


def _bytes(path: Path) -> int:
    parts = (path, path.with_name(f"{path.name}-wal"))
    return sum(part.stat().st_size for part in parts if part.exists())


class _NoRedirect(HTTPRedirectHandler):
    """A redirect would carry the token elsewhere."""

    def redirect_request(self, *arguments: Any, **more: Any) -> None:
        """Follow none."""


def server_status(server: dict[str, Any]) -> ServerStatus:
    """Ask one running server, as `list_running_servers` describes it; never raises."""
    url = str(server.get("url", ""))
    status = ServerStatus(url, server.get("pid"))
    if not url.startswith(("http://", "https://")):
        status.problems.append("cannot be asked over a socket file")
        return status
    request = Request(f"{url}exec-events/status")  # noqa: S310
    if token := server.get("token"):
        request.add_header("Authorization", f"token {token}")
    try:
        # A server on this machine is asked directly, whatever proxy the environment names.
        with build_opener(ProxyHandler({}), _NoRedirect).open(request, timeout=SERVER_TIMEOUT_SECONDS) as answer:
            health = json.load(answer)
        if not isinstance(health, dict):
            raise ValueError("its answer is no object")
    except HTTPError as error:
        absent = "exec-events is not enabled there" if error.code == 404 else f"it answers {error.code}"
        status.problems.append(absent)
    except (URLError, OSError, ValueError) as error:
        status.problems.append(f"it cannot be asked: {getattr(error, 'reason', error)}")
    else:
        status.health = health
        status.problems += [str(problem) for problem in health.get("problems", [])]
        if not health.get("healthy", False) and not status.problems:
            status.problems.append("it says it is not healthy")
    return status


@click.command()
@click.option(
    "--spool",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help="The spool's folder; by default this user's.",
)
@click.option("--servers/--no-servers", default=True, show_default=True, help="Ask running servers for their health.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of tables.")
def status(spool: Path | None, servers: bool, as_json: bool) -> None:
    """Each spool file and running server: state, records, deliveries; exits with 1 if there is any problem."""
    folder = spool or paths.spool_folder()
    files = [file_status(path) for path in spool_files(folder)] if folder.is_dir() else []
    running = [server_status(server) for server in _running_servers()] if servers else []
    problems = [file.problem for file in files if file.problem]
    problems += [f"{path.name}: a damaged file was set aside" for path in sorted(folder.glob("*.db.damaged-?"))]
    problems += [f"{server.url}: {problem}" for server in running for problem in server.problems]
    if as_json:
        document = {
            "spool": str(folder),
            "files": [asdict(file) for file in files],
            "servers": [asdict(server) for server in running],
            "problems": problems,
        }
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        _show(folder, files, running, problems)
    if problems:
        raise SystemExit(EXIT_BROKEN)


def _running_servers() -> list[dict[str, Any]]:
    from jupyter_server.serverapp import list_running_servers

    return list(list_running_servers())


def _show(folder: Path, files: list[FileStatus], servers: list[ServerStatus], problems: list[str]) -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from .terminal import console, size

    out = console()
    out.print(f"Spool {escape(str(folder))}" + ("" if files else ": nothing was recorded yet"))
    if files:
        table = Table(box=box.SIMPLE_HEAD)
        for title in ("recorder", "state", "records", "open", "size", "last word (UTC)", "delivered"):
            table.add_column(title, justify="right" if title in ("records", "open", "size") else "left")
        for file in files:
            sinks = (_sink_line(sink, at) for sink, at in file.sinks.items())
            table.add_row(
                file.recorder_id[:8],
                file.state,
                f"{file.records:,}",
                f"{file.open_executions:,}",
                size(file.size_bytes),
                f"{file.last_word} {file.last_word_at[:19].replace('T', ' ')}".strip(),
                escape("\n".join(sinks)) or "-",
            )
        out.print(table)
    for server in servers:
        health = server.health or {}
        counts = ", ".join(f"{health[key]:,} {key}" for key in ("spooled", "pending", "lost") if key in health)
        words = "healthy" if health and not server.problems else "; ".join(server.problems)
        out.print(f"Server {escape(server.url)}: {escape(words)}" + (f" ({counts})" if counts else ""))
        for name, sink in (health.get("sinks") or {}).items():
            out.print(f"  {escape(name)}: {escape(_delivery_line(sink))}")
    for problem in problems:
        out.print(f"Problem: {escape(problem)}")


def _sink_line(name: str, sink: SinkStatus) -> str:
    """What one sink has taken of a file, in words."""
    from .terminal import size

    if not sink.behind:
        return f"{name} to {sink.position:,}"
    oldest = f", oldest {sink.oldest_at[:19].replace('T', ' ')}" if sink.oldest_at else ""
    return f"{name} to {sink.position:,}, {sink.behind:,} behind ({size(sink.behind_bytes)}{oldest})"


def _delivery_line(sink: dict[str, Any]) -> str:
    """What a running server says of one of its sinks, in words."""
    from .terminal import duration, size

    words = f"{sink.get('delivered', 0):,} delivered, {sink.get('lag', 0):,} behind"
    if sink.get("lag"):
        words += f" ({size(sink.get('lag_bytes', 0))}, oldest {duration(sink.get('oldest_seconds', 0) * 1e6)} old)"
    return f"{words}, {sink.get('retries', 0):,} retries, {sink.get('errors', 0):,} errors"
