"""``make demo``: a real JupyterLab, a notebook run in it, and its record: reported, verified, tampered with, shown."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import AsyncExitStack, closing, contextmanager, suppress
from pathlib import Path
from threading import Timer

from front_end import OpenNotebook
from rich.console import Console
from rich.markup import escape

from exec_events.testing import (
    NotebookClient,
    Record,
    RunningServer,
    executions_of,
    wait_for_records,
)
from exec_events_schemas.record import leaf_hash
from exec_events_schemas.sources.spool import running_recorders, spool_files
from exec_events_schemas.spool_layout import FOLDER_NAME

REPOSITORY = Path(__file__).resolve().parent.parent
EXAMPLE = Path(__file__).with_name("example.ipynb")
FOLDER = REPOSITORY / ".demo"
STEPS = 10

# The example's mistake, and how its author mends it.
FAILING_CELL = "busiest"
MISTAKE, CORRECTION = "key=lambda week: week.total", "key=sum"
RERUN_CELL = "mean"

console = Console(highlight=False)


class StepFailed(Exception):
    """A step did not come out as it must; the text says what was expected and what to do."""


class Steps:
    """Prints which step of how many is running, and how it ended."""

    def __init__(self) -> None:
        self._number = 0

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Run one step; what it prints is indented."""
        self._number += 1
        console.print(f"\n[bold cyan]\\[{self._number}/{STEPS}][/] [bold]{title}[/]")
        began = time.monotonic()
        yield
        console.print(f"      [green]as it should be[/] [dim]({time.monotonic() - began:.1f} s)[/]")


def main() -> int:
    """Run the demo; 0 when every step came out as it must."""
    try:
        asyncio.run(demo())
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print("\nStopped before the end.")
        return 130
    except Exception as error:
        what = str(error) if isinstance(error, StepFailed) else f"{type(error).__name__}: {error}"
        console.print(f"\n[bold red]The demo failed:[/] {escape(what)}", soft_wrap=True)
        console.print(f"The server's log is {_short(FOLDER / 'server.log')}. `make demo` starts afresh.")
        return 1
    return 0


async def demo() -> None:
    """All steps; the server is stopped however they end."""
    prepare_folder()
    task = asyncio.current_task()
    assert task is not None
    with suppress(NotImplementedError):  # Windows
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    steps = Steps()
    server = RunningServer(FOLDER, application="lab", extensions={"jupyter_server_terminals": True})
    async with AsyncExitStack() as stack:
        with steps.step("Start JupyterLab with the recorder"):
            await stack.enter_async_context(server)
            notebook_path = server.root_dir / EXAMPLE.name
            shutil.copyfile(EXAMPLE, notebook_path)
            console.print(f"      process {server.pid}, data in {_short(server.data_dir)}")
        await run_and_verify(steps, server, notebook_path)
        with steps.step("Start exec-events up, and read the number of executions from its page"):
            dashboard = stack.enter_context(dashboard_of(server))
            await asyncio.to_thread(check_dashboard, dashboard, count_code_cells(notebook_path) + 2)
        console.print(f"\n[bold green]All {STEPS} steps came out as they must.[/]")
        if os.environ.get("ONCE"):
            return
        url = f"{server.url}lab/tree/{notebook_path.name}?token={server.token}"
        console.print(f"\nJupyterLab is open at\n\n    [bold]{url}[/]\n", soft_wrap=True)
        console.print(f"and the dashboard, live, at\n\n    [bold]{dashboard}[/]\n", soft_wrap=True)
        console.print("Whatever you run there is recorded too. See it, in another terminal, with\n")
        console.print(f"    JUPYTER_DATA_DIR={_short(server.data_dir)} {_short(_program())} report\n", soft_wrap=True)
        console.print("Ctrl-C ends the demo.")
        with suppress(asyncio.CancelledError):
            await wait_while_running(server)
        console.print("\nStopping JupyterLab.")


async def run_and_verify(steps: Steps, server: RunningServer, notebook_path: Path) -> None:
    """Everything between the start of the server and its end."""
    async with NotebookClient(server, notebook=notebook_path.name) as client:
        notebook = OpenNotebook(server, notebook_path, client)
        with steps.step(f"Run {notebook_path.name} cell by cell, as JupyterLab does"):
            await run_all_cells(notebook)
        with steps.step("Mend the failing cell and run it again; run another one again as it is"):
            await rerun_cells(notebook)
        with steps.step("Save the notebook, and see that every execution is in the record, once"):
            await notebook.save()
            count = len(notebook.code_cells) + 2
            found = await asyncio.to_thread(wait_for_records, server.data_dir, executions_of(count))
            check_records(found, count)
    with steps.step("Report: who ran what"):
        run_command(server, ["report"], expect=0)
    with steps.step("Verify the record"):
        run_command(server, ["verify"], expect=0)
    with steps.step("Make the error a success in a copy of the record, and fit its hash"):
        chain, seq = tamper(server.data_dir / FOLDER_NAME, FOLDER / "tampered")
        console.print(f"      in {_short(FOLDER / 'tampered')}: chain {chain}, seq {seq}", soft_wrap=True)
    with steps.step("Verify that copy: it must fail, and name the record"):
        output = run_command(server, ["verify", f"spool://{FOLDER / 'tampered'}"], expect=1)
        squeezed = "".join(output.split())
        if f"chain{chain}seq{seq}" not in squeezed:
            raise StepFailed(f"`exec-events verify` failed without naming chain {chain}, seq {seq}.")
    with steps.step("Verify the executed notebook against the record"):
        run_command(server, ["verify", "--notebook", str(notebook_path)], expect=0)


def prepare_folder() -> None:
    """An empty `.demo`, unless a demo is still running in it."""
    spool = FOLDER / "data" / FOLDER_NAME
    if spool.is_dir() and running_recorders(spool):
        raise StepFailed(f"a demo is running in {_short(FOLDER)} already: end it with Ctrl-C first.")
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()


async def run_all_cells(notebook: OpenNotebook) -> None:
    """Each cell once; the one with the mistake must fail, and no other."""
    for cell in notebook.code_cells:
        expected = "error" if cell.id == FAILING_CELL else "ok"
        await run_cell(notebook, cell.id, expected)
    kinds = {mime for output in notebook.cell("plot").outputs for mime in output.get("data", ())}
    if "image/png" not in kinds:
        raise StepFailed(f"the plot made no image, but {sorted(kinds)}: is matplotlib installed in this environment?")


async def rerun_cells(notebook: OpenNotebook) -> None:
    """The failing cell mended, another one as it is."""
    failing = notebook.cell(FAILING_CELL)
    failing.source = failing.source.replace(MISTAKE, CORRECTION)
    await run_cell(notebook, FAILING_CELL, "ok")
    await run_cell(notebook, RERUN_CELL, "ok")


async def run_cell(notebook: OpenNotebook, cell_id: str, expected: str) -> None:
    """Run one cell and print a line about it."""
    cell = notebook.cell(cell_id)
    result = await notebook.run(cell)
    outputs = ", ".join(describe_output(output) for output in cell.outputs) or "no output"
    colour = "yellow" if result.status == "error" else "green"
    console.print(
        f"      In \\[{result.execution_count}] {cell_id:<9} [{colour}]{result.status:<5}[/] "
        f"{1000 * result.seconds:6.0f} ms  [dim]{escape(outputs)}[/]"
    )
    if result.status != expected:
        raise StepFailed(f"cell {cell_id} ended as {result.status}, not {expected}: {result.lost or outputs}")


def describe_output(output: dict[str, object]) -> str:
    """An output in a word or two."""
    if output["output_type"] == "stream":
        return f"{output['name']}, {len(str(output['text']).splitlines())} lines"
    if output["output_type"] == "error":
        return str(output["ename"])
    data = output["data"]
    assert isinstance(data, dict)
    return next((mime for mime in data if mime != "text/plain"), "text/plain")


def check_records(found: list[Record], count: int) -> None:
    """Exactly ``count`` executions, and of the reruns what changed."""
    executions = [record["event"] for record in found if "/cell_execution/" in record["event"]["__schema__"]]
    if len(executions) != count:
        raise StepFailed(f"{count} cells were run, but {len(executions)} executions are in the record.")
    statuses = [event["status"] for event in executions]
    if statuses.count("error") != 1 or statuses.count("ok") != count - 1:
        raise StepFailed(f"one error and {count - 1} successes were run, but the record says {statuses}.")
    mended, rerun = executions[-2:]
    if mended.get("same_code_as_last_run") is not False or rerun.get("same_code_as_last_run") is not True:
        raise StepFailed("the record does not tell the mended cell from the one that was run again as it is.")
    console.print(f"      {count} executions: {statuses.count('ok')} ok, 1 error")
    changed = f"{mended['lines_added']} line added, {mended['lines_removed']} removed"
    console.print(f"      since their last runs: {FAILING_CELL}: {changed}; {RERUN_CELL}: same code")


def tamper(spool: Path, copy: Path) -> tuple[str, int]:
    """Copy a spool, turn the recorded error into a success there and fit its hash; its chain and seq."""
    copy.mkdir()
    for file in spool_files(spool):
        with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(copy / file.name)) as target:
            source.backup(target)
    for file in spool_files(copy):
        with closing(sqlite3.connect(file)) as connection:
            for row, record in connection.execute("SELECT id, record FROM records ORDER BY id").fetchall():
                if b'"status":"error"' in record:
                    forged = record.replace(b'"status":"error"', b'"status":"ok"')
                    connection.execute(
                        "UPDATE records SET record=?, hash=? WHERE id=?", (forged, leaf_hash(forged), row)
                    )
                    connection.commit()
                    seal = json.loads(record)["seal"]
                    return seal["chain"], seal["seq"]
    raise StepFailed("the recorded error is not in the copy of the spool.")


@contextmanager
def dashboard_of(server: RunningServer) -> Iterator[str]:
    """``exec-events up`` on the server's spool until the end of the block; its URL."""
    console.print("      [bold]$ exec-events up --port 0[/]")
    with (FOLDER / "up.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "exec_events", "up", "--port", "0"],
            env={**os.environ, **server.environment, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    # A bound for the time until it has said where it is.
    timer = Timer(30, process.kill)
    timer.start()
    try:
        assert process.stdout is not None
        found = next((word for line in process.stdout for word in line.split() if word.startswith("http://")), None)
        timer.cancel()
        if found is None:
            raise StepFailed(f"`exec-events up` did not start; {_short(FOLDER / 'up.log')} says why.")
        yield found
    finally:
        timer.cancel()
        process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def check_dashboard(url: str, count: int) -> None:
    """Its page says, within a few seconds, how many cells were run."""
    address, _, token = url.partition("?token=")
    request = urllib.request.Request(address, headers={"Authorization": f"Bearer {token}"})
    shown = ""
    until = time.monotonic() + 15
    while time.monotonic() < until:
        with urllib.request.urlopen(request, timeout=10) as answer:
            page = answer.read().decode()
        shown = next(iter(re.findall(r'id="fact-runs"[^>]*>([^<]*)<', page)), "nothing")
        if shown == str(count):
            console.print(f"      {address} says {shown} runs")
            return
        time.sleep(0.2)
    raise StepFailed(f"{count} cells were run, but the dashboard says {shown}.")


def count_code_cells(notebook_path: Path) -> int:
    """How many cells of a notebook are run."""
    cells = json.loads(notebook_path.read_text())["cells"]
    return sum(cell["cell_type"] == "code" and bool("".join(cell["source"]).strip()) for cell in cells)


def run_command(server: RunningServer, arguments: list[str], expect: int) -> str:
    """Run ``exec-events`` as a person would, show it and its output; the output."""
    shown = " ".join(_short(Path(word)) if word.startswith("/") else word for word in arguments)
    console.print(f"      [bold]$ exec-events {escape(shown.replace(f'{REPOSITORY}/', ''))}[/]", soft_wrap=True)
    environment = {**os.environ, **server.environment, "COLUMNS": str(max(console.width - 6, 100))}
    done = subprocess.run(
        [sys.executable, "-m", "exec_events", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    for line in done.stdout.rstrip().splitlines():
        console.print(f"      {line}", markup=False, soft_wrap=True)
    if done.returncode != expect:
        raise StepFailed(f"`exec-events {shown}` ended with {done.returncode} where {expect} was expected; see above.")
    return done.stdout


async def wait_while_running(server: RunningServer) -> None:
    """Until Ctrl-C, or until the server is shut down from its own menu."""
    while server.running:
        await asyncio.sleep(0.5)
    console.print("JupyterLab was shut down from within.")


def _program() -> Path:
    return Path(sys.executable).with_name("exec-events")


def _short(path: Path) -> str:
    with suppress(ValueError):
        return str(path.relative_to(REPOSITORY))
    return str(path)


if __name__ == "__main__":
    sys.exit(main())
