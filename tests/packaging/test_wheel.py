"""The wheel as a user gets it: built, installed into an empty environment, and used there."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

from exec_events.cli import VERBS
from exec_events.testing import NotebookClient, executions_of, wait_for_records
from exec_events.testing.rest import RestError, call
from exec_events_schemas.catalogue import catalogue, examples

pytestmark = pytest.mark.timeout(300)

REPOSITORY = Path(__file__).parents[2]
BUILD_SECONDS = 120
INSTALL_SECONDS = 240
LAB_EXTENSION = "share/jupyter/labextensions/exec-events"
EXTENSION_CONFIGURATION = "etc/jupyter/jupyter_server_config.d/exec_events.json"
# What no verb may need: it comes with the extra `schemas`, or is for developers.
OPTIONAL = ("kafka", "datamodel_code_generator", "jsonsubschema", "pytest", "sphinx", "jupyterlab", "hypothesis")
HEAVY = ("pydantic", "rich", "jsonsubschema", "jupyter_server")

VALIDATE_EXAMPLES = """
import json, sys
import jsonschema
from exec_events_schemas.catalogue import catalogue, examples, load
from exec_events_schemas.parse import parse

found = {}
for name in catalogue():
    validator = jsonschema.Draft7Validator(load(name.id))
    for file, data in examples(name).items():
        validator.validate(data)
        parse({"__schema__": name.id, "__schema_version__": str(name.version), **data})
    found[str(name)] = len(examples(name))
json.dump(found, sys.stdout)
"""

IMPORTED_BY_HELP = """
import sys
from exec_events.cli import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    assert end.code == 0, end.code
print(*sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment that holds the wheel and what the wheel asks for."""

    folder: Path

    @property
    def bin(self) -> Path:
        """Where its commands are."""
        return self.folder / "bin"

    def run(self, *arguments: str, timeout: float = 60, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run one of its commands, away from the checkout."""
        return subprocess.run(
            [str(self.bin / arguments[0]), *arguments[1:]],
            cwd=self.folder,
            env=clean_environment(),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=check,
        )


def clean_environment(**more: str) -> dict[str, str]:
    """This process's environment without what would lead Python or Jupyter elsewhere."""
    leads_away = ("PYTHON", "JUPYTER", "VIRTUAL_ENV", "EXEC_EVENTS")
    return {key: value for key, value in os.environ.items() if not key.startswith(leads_away)} | more


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built in isolation as pip does, with nothing of this environment at hand."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(REPOSITORY)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """A fresh environment into which nothing but the wheel was installed."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], timeout=60, check=True)
    made = Environment(folder)
    done = made.run("python", "-m", "pip", "install", "--quiet", str(wheel), timeout=INSTALL_SECONDS, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return made


@pytest.fixture(scope="module")
def names(wheel: Path) -> list[str]:
    """The path of each file in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    """What the wheel says of itself."""
    return Parser().parsestr(read_member(wheel, "METADATA"))


def read_member(wheel: Path, name: str) -> str:
    """One file of the wheel's dist-info."""
    with zipfile.ZipFile(wheel) as archive:
        (path,) = (path for path in archive.namelist() if path.endswith(f".dist-info/{name}"))
        return archive.read(path).decode()


# What is in it.


def test_top_level_names_are_exactly_ours(wheel: Path) -> None:
    """The wheel installs exec_events and its packages of consumers, enclave and schemas, and no other top-level name."""
    recorded = [row[0] for row in csv.reader(io.StringIO(read_member(wheel, "RECORD")))]
    top = {path.partition("/")[0] for path in recorded}
    beside = {name for name in top if name.endswith((".dist-info", ".data"))}
    assert top - beside == {"exec_events", "exec_events_consumers", "exec_events_enclave", "exec_events_schemas"}


def test_shared_data_is_what_enables_it_and_the_lab_extension(names: list[str]) -> None:
    """Outside its packages the wheel installs the file that enables the server extension, and the built JupyterLab extension."""
    data = [name.partition(".data/data/")[2] for name in names if ".data/" in name]
    front_end = [name for name in data if name.startswith(f"{LAB_EXTENSION}/")]
    assert [name for name in data if name not in front_end] == [EXTENSION_CONFIGURATION]
    assert {f"{LAB_EXTENSION}/{name}" for name in ("package.json", "install.json")} <= set(front_end)
    assert any(name.startswith(f"{LAB_EXTENSION}/static/remoteEntry.") for name in front_end)
    assert [name for name in names if name.startswith("exec_events/labextension/")] == []


def test_holds_no_tests_docs_or_benchmarks(names: list[str]) -> None:
    """No test, documentation, demo, benchmark or compiled file is in the wheel."""
    unwanted = {
        "tests",
        "docs",
        "benchmarks",
        "demo",
        "tools",
        "docker",
        "conftest.py",
        "__pycache__",
        "generate_models.py",
    }
    assert [name for name in names if unwanted.intersection(name.split("/"))] == []


def test_every_file_of_the_contract_is_in_it(names: list[str]) -> None:
    """Each schema, its released copy and each of its examples is in the wheel."""
    for name in catalogue():
        folder = f"exec_events_schemas/{name.event}"
        assert {f"{folder}/v{name.version}.yaml", f"{folder}/released/v{name.version}.yaml"} <= set(names)
        for file in examples(name):
            assert f"{folder}/examples/v{name.version}/{file}" in names


def test_every_package_is_typed(names: list[str]) -> None:
    """Each package carries the marker that tells type checkers to read it."""
    packages = ("exec_events", "exec_events_consumers", "exec_events_enclave", "exec_events_schemas")
    assert {f"{package}/py.typed" for package in packages} <= set(names)


def test_metadata_names_license_readme_and_extras(wheel: Path, metadata: Message) -> None:
    """License, its file, the readme, the Python version and the extras are in the metadata."""
    assert metadata["Name"] == "exec-events"
    assert metadata["License-Expression"] == "BSD-3-Clause"
    assert metadata.get_all("License-File") == ["LICENSE"]
    assert "Redistribution and use" in read_member(wheel, "licenses/LICENSE")
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert str(metadata.get_payload()).startswith("# exec-events")
    assert {"kafka", "schemas", "docs", "test"} <= set(metadata.get_all("Provides-Extra", []))


def test_a_plain_install_needs_no_extra(metadata: Message) -> None:
    """What an extra brings is not required without it, and a requirement is neither a path nor a URL."""
    required = metadata.get_all("Requires-Dist", [])
    plain = {re.split(r"[^A-Za-z0-9_.-]", line)[0].lower().replace("_", "-") for line in required if ";" not in line}
    assert plain.isdisjoint(name.replace("_", "-") for name in OPTIONAL)
    assert [line for line in required if " @ " in line or "://" in line] == []


# What it does where it is installed.


def test_dependencies_agree(environment: Environment) -> None:
    """`pip check` finds nothing missing and nothing in conflict."""
    assert "No broken requirements found" in environment.run("python", "-m", "pip", "check").stdout


def test_every_schema_loads_and_its_examples_are_valid(environment: Environment) -> None:
    """Installed, every schema of the catalogue loads, and each of its good examples is valid and parses."""
    found = json.loads(environment.run("python", "-I", "-c", VALIDATE_EXAMPLES).stdout)
    assert found == {str(name): len(examples(name)) for name in catalogue()}
    assert all(found.values())


def test_importing_it_is_light(environment: Environment) -> None:
    """`import exec_events`, as every server does to look for extensions, imports none of the heavy packages."""
    code = "import sys, exec_events; print(*{name.partition('.')[0] for name in sys.modules})"
    imported = set(environment.run("python", "-I", "-c", code).stdout.split())
    assert imported.isdisjoint(HEAVY)


@pytest.mark.parametrize("arguments", [[], *([verb] for verb in VERBS)], ids=lambda words: " ".join(words) or "(none)")
def test_help_works_without_optional_packages(environment: Environment, arguments: list[str]) -> None:
    """`--help` of the command and of each verb prints its usage, and asks for no optional package."""
    done = environment.run("python", "-I", "-c", IMPORTED_BY_HELP, *arguments, "--help")
    assert done.stdout.startswith("Usage: ")
    assert set(done.stderr.split()).isdisjoint(OPTIONAL)


def test_console_script_is_installed(environment: Environment) -> None:
    """The command exec-events is there, lists every verb, and says the version of the wheel."""
    listed = environment.run("exec-events", "--help").stdout
    assert all(re.search(rf"^  {verb} ", listed, re.MULTILINE) for verb in VERBS)
    version = environment.run("exec-events", "--version").stdout.split()[-1]
    installed = "from importlib.metadata import version; print(version('exec-events'))"
    assert version == environment.run("python", "-I", "-c", installed).stdout.strip()


def test_file_sink_is_registered(environment: Environment) -> None:
    """The entry point of the file sink is found where the wheel is installed."""
    code = "import logging; from exec_events.sinks import open_sink; open_sink('file:///x/y', logging.getLogger())"
    environment.run("python", "-I", "-c", code)


def test_kafka_without_its_extra_says_what_to_install(environment: Environment) -> None:
    """Where kafka-python is not installed, the Kafka sink and source say how to install it."""
    code = (
        "import logging; from exec_events.sinks import open_sink; open_sink('kafka://127.0.0.1:1', logging.getLogger())"
    )
    delivering = environment.run("python", "-I", "-c", code, check=False)
    reading = environment.run("exec-events", "verify", "kafka://127.0.0.1:1", check=False)
    assert "pip install 'exec-events[kafka]'" in delivering.stderr
    assert (reading.returncode, "pip install 'exec-events[kafka]'" in reading.stderr) == (2, True), reading.stderr


@dataclass(slots=True)
class InstalledServer:
    """A `jupyter server` of the fresh environment, started with no flag about extensions."""

    data_dir: Path
    token: str
    url: str
    process: subprocess.Popen[bytes]
    log_file: Path


@pytest.fixture
def server(environment: Environment, tmp_path: Path) -> Iterator[InstalledServer]:
    """`jupyter server` as a person starts it, with folders of its own; ipykernel is added for it."""
    done = environment.run("python", "-m", "pip", "install", "--quiet", "ipykernel", timeout=INSTALL_SECONDS)
    assert done.returncode == 0, done.stderr
    folders = {name: tmp_path / name for name in ("config", "data", "runtime", "notebooks")}
    for folder in folders.values():
        folder.mkdir()
    token = secrets.token_urlsafe(24)
    configuration = folders["config"] / "jupyter_server_config.py"
    configuration.touch(mode=0o600)
    configuration.write_text(
        f"c.IdentityProvider.token = {token!r}\n"
        "c.ServerApp.ip = '127.0.0.1'\n"
        "c.ServerApp.port = 0\n"
        "c.ServerApp.open_browser = False\n"
        "c.ServerApp.allow_root = True\n"
    )
    log_file = tmp_path / "server.log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [str(environment.bin / "jupyter"), "server"],
            cwd=folders["notebooks"],
            env=clean_environment(
                JUPYTER_CONFIG_DIR=str(folders["config"]),
                JUPYTER_DATA_DIR=str(folders["data"]),
                JUPYTER_RUNTIME_DIR=str(folders["runtime"]),
                IPYTHONDIR=str(tmp_path / "ipython"),
                PATH=f"{environment.bin}{os.pathsep}{os.environ['PATH']}",
            ),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    started = InstalledServer(folders["data"], token, "", process, log_file)
    try:
        started.url = url_of(started, folders["runtime"])
        yield started
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(30)


def url_of(server: InstalledServer, runtime_dir: Path) -> str:
    """Where it listens, once it answers."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert server.process.poll() is None, server.log_file.read_text()
        try:
            url = str(json.loads((runtime_dir / f"jpserver-{server.process.pid}.json").read_text())["url"])
            call(url, server.token, "GET", "/api/status", timeout=5)
        except (OSError, ValueError, KeyError, RestError):
            time.sleep(0.05)
        else:
            return url
    raise AssertionError(f"it did not answer; its log:\n{server.log_file.read_text()}")


async def test_server_records_with_nothing_configured(environment: Environment, server: InstalledServer) -> None:
    """The installed config file alone enables the recorder: it answers, and an execution is in the record."""
    enabled = json.loads((environment.folder / EXTENSION_CONFIGURATION).read_text())
    assert enabled == {"ServerApp": {"jpserver_extensions": {"exec_events": True}}}
    status = call(server.url, server.token, "GET", "/exec-events/status")
    assert status["recording"] is True
    assert status["healthy"] is True, status
    with pytest.raises(RestError) as refused:
        call(server.url, "not-the-token", "GET", "/exec-events/status")
    assert refused.value.status == 403
    async with NotebookClient(server, notebook="first.ipynb") as client:
        result = await client.execute("6 * 7", cell_id="answer")
    assert result.status == "ok"
    found = wait_for_records(server.data_dir, executions_of(1))
    (event,) = (record["event"] for record in found if "/cell_execution/" in record["event"]["__schema__"])
    assert (event["status"], event["client"], event["cell_id"]) == ("ok", "websocket", "answer")
    assert shutil.which("exec-events", path=str(environment.bin))
    verified = environment.run("exec-events", "verify", f"spool://{server.data_dir / 'exec-events'}")
    assert "OK: no record was changed" in verified.stdout
