"""pom.xml in, the folder with Kafka's jars out: fetched with Maven once, then kept in the repository."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from filelock import FileLock, Timeout

from .errors import BrokerError

REPOSITORY = Path(__file__).resolve().parents[2]
CACHE = REPOSITORY / ".kafka"
POM = Path(__file__).with_name("pom.xml")

FETCH_TIMEOUT_SECONDS = 600.0
OLDEST_JAVA = 17
INSTALL = "run tools/install_system.sh as root, or `apt-get install default-jre-headless maven`"


def fetch() -> Path:
    """
    The folder of jars, filled first if this pom.xml's are not there yet.

    Raises:
        BrokerError: no Java, no Maven, or Maven could not fetch; the text says what to do.
    """
    check_java()
    libraries = CACHE / "libs"
    if _holds(libraries):
        return libraries
    if shutil.which("mvn") is None:
        raise BrokerError(f"mvn not found: Maven fetches Apache Kafka's jars; {INSTALL}")
    CACHE.mkdir(exist_ok=True)
    try:
        # Two test runs may start at once; the second finds the work done.
        with FileLock(CACHE / "fetch.lock", timeout=FETCH_TIMEOUT_SECONDS):
            if not _holds(libraries):
                _fetch_into(libraries)
    except Timeout:
        raise BrokerError(
            f"another process has been fetching Kafka's jars for {FETCH_TIMEOUT_SECONDS:.0f} s: end it and try again"
        ) from None
    return libraries


def check_java() -> None:
    """
    Pass if there is a Java that runs this Kafka.

    Raises:
        BrokerError: there is none, or it is too old.
    """
    if shutil.which("java") is None:
        raise BrokerError(f"java not found: Apache Kafka needs Java {OLDEST_JAVA} or later; {INSTALL}")
    answer = subprocess.run(["java", "-version"], capture_output=True, text=True, timeout=60, check=False)
    found = re.search(r'version "(\d+)', answer.stderr)
    if found is None or int(found[1]) < OLDEST_JAVA:
        raise BrokerError(
            f"java is too old: Apache Kafka needs Java {OLDEST_JAVA} or later; {INSTALL}\n{answer.stderr}"
        )


def _holds(libraries: Path) -> bool:
    try:
        return (libraries / ".pom.sha256").read_text() == _pom_hash()
    except FileNotFoundError:
        return False


def _pom_hash() -> str:
    return hashlib.sha256(POM.read_bytes()).hexdigest()


def _fetch_into(libraries: Path) -> None:
    print("fetching Apache Kafka's jars (44 MB, once)…", file=sys.stderr, flush=True)
    made = Path(tempfile.mkdtemp(prefix="libs-", dir=CACHE))
    command = ["mvn", "--quiet", "--batch-mode", "--file", str(POM), "dependency:copy-dependencies"]
    command += ["-DincludeScope=runtime", f"-DoutputDirectory={made}"]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=FETCH_TIMEOUT_SECONDS,
            check=False,
        )
        if done.returncode:
            raise BrokerError(f"Maven could not fetch Apache Kafka's jars: `{' '.join(command)}` said\n{done.stdout}")
        (made / ".pom.sha256").write_text(_pom_hash())
        shutil.rmtree(libraries, ignore_errors=True)
        os.replace(made, libraries)
    except subprocess.TimeoutExpired:
        raise BrokerError(f"Maven did not fetch Apache Kafka's jars in {FETCH_TIMEOUT_SECONDS:.0f} s") from None
    finally:
        shutil.rmtree(made, ignore_errors=True)
