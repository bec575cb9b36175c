"""A real Jupyter server as a subprocess: its folders, its extensions and its end are the test's."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import psutil
from jupyter_core.paths import jupyter_config_path
from jupyter_server.extension.config import ExtensionConfigManager

from .rest import call

START_TIMEOUT_SECONDS = 60.0
STOP_TIMEOUT_SECONDS = 30.0

# Front ends of server extensions that are off here: with them, JupyterLab looks for rooms and
# endpoints that this server does not have, and opens no document.
LAB_EXTENSIONS_OFF = (
    "@datalayer/jupyter-server-nbmodel",
    "@jupyter-ai-contrib/server-documents",
    "@jupyter/collaboration-extension",
    "@jupyter/docprovider-extension",
)


class ServerStartError(RuntimeError):
    """The server did not start; the text ends with its log."""


class RunningServer:
    """
    A ``jupyter server`` (or ``jupyter lab``, ``jupyter notebook``) on 127.0.0.1 with folders and a token of its own.

    ``with`` or ``async with`` starts it, waits until it answers, and stops it. Of the installed server
    extensions only those named are loaded: exec_events unless ``recorder`` is False, and what
    ``extensions`` turns on. ``config`` is appended to its jupyter_server_config.py.

    Give ``directory`` to keep the folders (the spool is in ``data_dir``), and to start a later server on
    them; without it they are temporary. A stopped or killed server can be started again.
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        recorder: bool = True,
        application: Literal["server", "lab", "notebook"] = "server",
        extensions: Mapping[str, bool] | None = None,
        config: str = "",
        env: Mapping[str, str] | None = None,
        token: str | None = None,
    ) -> None:
        self._temporary = directory is None
        self.directory = Path(tempfile.mkdtemp(prefix="exec-events-")) if directory is None else directory.absolute()
        self.data_dir = self.directory / "data"
        self.runtime_dir = self.directory / "runtime"
        self.config_dir = self.directory / "config"
        self.root_dir = self.directory / "notebooks"
        self.log_file = self.directory / "server.log"
        self.token = token or secrets.token_urlsafe(24)
        self.url = ""
        self._application = application
        pages = {"jupyterlab": application == "lab", "notebook": application == "notebook"}
        own = {"exec_events": recorder, **pages}
        self._extensions = {**_installed_extensions_off(), **own, **(extensions or {})}
        self._config = config
        self._env = dict(env or {})
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The server's process id."""
        if self._process is None:
            raise ServerStartError("the server was never started: use `with RunningServer() as server:`")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self._process is not None and self._process.poll() is None

    @property
    def returncode(self) -> int | None:
        """The exit code, or None while it runs."""
        return None if self._process is None else self._process.poll()

    @property
    def log(self) -> str:
        """All it has written to stdout and stderr so far."""
        try:
            return self.log_file.read_text(errors="replace")
        except FileNotFoundError:
            return ""

    @property
    def environment(self) -> dict[str, str]:
        """What a command needs in its environment to find this server's folders."""
        return {
            "JUPYTER_CONFIG_DIR": str(self.config_dir),
            "JUPYTER_DATA_DIR": str(self.data_dir),
            "JUPYTER_RUNTIME_DIR": str(self.runtime_dir),
            "IPYTHONDIR": str(self.directory / "ipython"),
        }

    def start(self, timeout: float = START_TIMEOUT_SECONDS) -> Self:
        """
        Start the server and wait until it answers.

        Raises:
            ServerStartError: it ended, or did not answer in ``timeout`` seconds.
        """
        if self.running:
            return self
        for folder in (self.data_dir, self.runtime_dir, self.config_dir, self.root_dir):
            folder.mkdir(parents=True, exist_ok=True)
        self._write_configuration()
        module = {"server": "jupyter_server", "lab": "jupyterlab", "notebook": "notebook"}[self._application]
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, f"--ServerApp.jpserver_extensions={self._extensions!r}"],
                cwd=self.root_dir,
                env={**os.environ, **self.environment, **self._env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C in the terminal is for whoever started the server, who then stops it.
                start_new_session=True,
            )
        try:
            self._wait_until_it_answers(time.monotonic() + timeout)
        except BaseException:
            self.kill()
            raise
        return self

    def stop(self, timeout: float = STOP_TIMEOUT_SECONDS) -> int:
        """Ask it to end (SIGTERM), kill it if it does not in ``timeout`` seconds; its exit code."""
        if self._process is None:
            return 0
        if self.running:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._reap()
        return self._process.wait(STOP_TIMEOUT_SECONDS)

    def kill(self) -> None:
        """SIGKILL the server, then what it left behind: its kernels."""
        if self._process is None:
            return
        if self.running:
            self._process.kill()
        self._process.wait(STOP_TIMEOUT_SECONDS)
        self._reap()

    def rest(self, method: str, path: str, json: Any = None) -> Any:
        """
        Call its REST API, as ``rest("POST", "/api/kernels", {"name": "python3"})``.

        Raises:
            RestError: it answered with an error.
        """
        return call(self.url, self.token, method, path, json)

    def kernel_pids(self) -> list[int]:
        """The processes of its kernels, found by their connection files."""
        return [process.pid for process in self._kernels()]

    def remove(self) -> None:
        """Remove its folders."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()
        if self._temporary:
            self.remove()

    async def __aenter__(self) -> Self:
        starting = asyncio.ensure_future(asyncio.to_thread(self.start))
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            # Its thread goes on all the same, and a server that nobody waits for must not stay.
            await asyncio.wait([starting])
            await asyncio.to_thread(self.__exit__)
            raise

    async def __aexit__(self, *exc: object) -> None:
        await asyncio.to_thread(self.__exit__, *exc)

    def _write_configuration(self) -> None:
        # A file of mode 0600, not argv or the environment: those can be read by others or by kernels.
        lines = [
            f"c.IdentityProvider.token = {self.token!r}",
            f"c.ServerApp.root_dir = {str(self.root_dir)!r}",
            "c.ServerApp.ip = '127.0.0.1'",
            "c.ServerApp.port = 0",
            "c.ServerApp.open_browser = False",
            "c.ServerApp.allow_root = True",
            self._config,
            "",
        ]
        _write_private(self.config_dir / "jupyter_server_config.py", "\n".join(lines))
        if self._application != "server":
            quiet = (
                "c.LabApp.news_url = None\n"
                "c.LabApp.check_for_updates_class = 'jupyterlab.handlers.announcements.NeverCheckForUpdate'\n"
            )
            _write_private(self.config_dir / "jupyter_lab_config.py", quiet)
            (self.config_dir / "labconfig").mkdir(exist_ok=True)
            page = {"disabledExtensions": dict.fromkeys(LAB_EXTENSIONS_OFF, True)}
            _write_private(self.config_dir / "labconfig" / "page_config.json", json.dumps(page))
            settings = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false"}}
            _write_private(self.config_dir / "labconfig" / "default_setting_overrides.json", json.dumps(settings))

    def _wait_until_it_answers(self, deadline: float) -> None:
        info_file = self.runtime_dir / f"jpserver-{self.pid}.json"
        while time.monotonic() < deadline:
            if not self.running:
                raise ServerStartError(f"the server ended with code {self.returncode}; its log:\n{self.log[-4000:]}")
            with contextlib.suppress(OSError, ValueError, KeyError):
                # The port is the system's choice; the server notes it in its runtime folder.
                self.url = json.loads(info_file.read_text())["url"]
                call(self.url, self.token, "GET", "/api/status", timeout=5)
                return
            time.sleep(0.05)
        raise ServerStartError(f"the server did not answer in time; its log:\n{self.log[-4000:]}")

    def _kernels(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if any(str(self.runtime_dir) in argument for argument in process.cmdline()):
                    found.append(process)
        return found

    def _reap(self) -> None:
        left = self._kernels()
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
        while any(_is_alive(process) for process in left) and time.monotonic() < deadline:
            time.sleep(0.01)


def _is_alive(process: psutil.Process) -> bool:
    """Whether it still runs; a zombie waits for its parent only, which may take its time."""
    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _installed_extensions_off() -> dict[str, bool]:
    """Every server extension that some configuration folder enables, turned off."""
    manager = ExtensionConfigManager(read_config_path=jupyter_config_path())
    installed: dict[str, bool] = manager.get_jpserver_extensions()
    return dict.fromkeys(sorted(installed), False)


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
