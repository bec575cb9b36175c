"""One broker process: its folder in; started, stopped and killed on the same ports and data."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from .errors import BrokerError

LOG4J = Path(__file__).with_name("log4j2.properties")
FORMAT_TIMEOUT_SECONDS = 60.0
STOP_TIMEOUT_SECONDS = 30.0

# What a broker logs once it takes requests and the controllers know of it.
STARTED = "Kafka Server started (kafka.server.KafkaRaftServer)"
LOG_LINES_IN_ERRORS = 40

# Tests start many short-lived brokers: the quick compiler alone, and the collector without threads.
JAVA = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", f"-Dlog4j2.configurationFile={LOG4J}")


class Node:
    """A broker (and controller) with a folder for its settings, log and data."""

    def __init__(self, number: int, directory: Path, libraries: Path, heap_mb: int) -> None:
        self.number = number
        self.directory = directory
        self.data = directory / "data"
        self.settings_file = directory / "server.properties"
        self.log_file = directory / "kafka.log"
        self._java = ["java", f"-Xmx{heap_mb}m", *JAVA, "-cp", f"{libraries}/*"]
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def pid(self) -> int | None:
        """The process id; None unless it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def format(self, cluster_id: str, more: Sequence[str]) -> subprocess.Popen[bytes] | None:
        """Begin to prepare the data folder, for `formatted` to wait for; None when it was prepared before."""
        if (self.data / "meta.properties").exists():
            return None
        # One word, because an identifier may begin with a dash.
        cluster = f"--cluster-id={cluster_id}"
        return self._run(["kafka.tools.StorageTool", "format", cluster, f"--config={self.settings_file}", *more])

    def formatted(self, process: subprocess.Popen[bytes] | None) -> None:
        """
        Wait for what `format` began.

        Raises:
            BrokerError: Kafka refused its settings.
        """
        if process is None:
            return
        try:
            code = process.wait(FORMAT_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            code = -signal.SIGKILL
        if code:
            raise self._error("could not prepare its data folder")

    def start(self) -> None:
        """Start the process; `wait_until_started` waits for it."""
        if self.pid is not None:
            return
        self._log_start = self.log_file.stat().st_size if self.log_file.exists() else 0
        self._process = self._run(["kafka.Kafka", str(self.settings_file)])

    def _run(self, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        with self.log_file.open("ab") as log:
            return subprocess.Popen(
                [*self._java, *arguments],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C in the terminal is for whoever started the broker, who then stops it.
                start_new_session=True,
            )

    def wait_until_started(self, deadline: float) -> None:
        """
        Wait until it takes requests; ``deadline`` on the monotonic clock.

        Raises:
            BrokerError: it ended or the time was up; the text ends with its log.
        """
        while STARTED not in self._log_since_start():
            if self.pid is None:
                code = None if self._process is None else self._process.returncode
                raise self._error(f"ended with exit code {code}")
            if time.monotonic() > deadline:
                raise self._error("did not start in time")
            time.sleep(0.05)

    def terminate(self) -> None:
        """Ask it to hand its partitions over and end (SIGTERM)."""
        if self.pid is not None:
            os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End it at once (SIGKILL)."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def wait_until_ended(self, deadline: float) -> None:
        """Wait for the end that `terminate` asked for, and kill it at the ``deadline``."""
        if self._process is None:
            return
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.kill()

    def signal(self, number: signal.Signals) -> None:
        """Send any signal to a process that runs."""
        if self.pid is None:
            raise BrokerError(f"node {self.number} does not run")
        os.kill(self.pid, number)

    @property
    def log(self) -> str:
        """All it printed, over all its starts."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def _log_since_start(self) -> str:
        with self.log_file.open("rb") as file:
            file.seek(self._log_start)
            return file.read().decode(errors="replace")

    def _error(self, what: str) -> BrokerError:
        tail = "\n".join(self.log.splitlines()[-LOG_LINES_IN_ERRORS:])
        return BrokerError(f"Kafka node {self.number} {what}; its log ends with:\n{tail}")
