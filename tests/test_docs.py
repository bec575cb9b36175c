"""The documentation says what the program is: it is built here, and compared with what it describes."""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
from jupyter_server.serverapp import ServerApp
from traitlets.config import Config
from traitlets.config.loader import PyFileConfigLoader

from exec_events import metrics
from exec_events.app import ExecEvents
from exec_events.cli import VERBS, main
from exec_events.privacy import read_key
from exec_events_consumers.dashboard import metrics as dashboard_metrics
from exec_events_consumers.tables import metadata
from exec_events_schemas.catalogue import catalogue, load
from spool_files import two_recorders

REPOSITORY = Path(__file__).parents[1]
DOCS = REPOSITORY / "docs"
README = REPOSITORY / "README.md"
PAGES = sorted([*DOCS.glob("[!_]*.md"), *REPOSITORY.glob("*.md")])
TESTED = re.compile(r"^<!-- tested -->\n```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OWN_TRAITS = ExecEvents.class_own_traits(config=True)

# Character classes, so that this file does not name what it looks for.
REGISTRIES = r"[p]ypi\.org|[p]ythonhosted\.org|[n]pmjs\.|[i]ndex-url|[a]rtifactory"
LOCAL_PATHS = r"(?<![\w.])/([r]oot|[w]ork|[U]sers)/|/[h]ome/(?!jo/|ada/|jovyan)|/[t]mp/"
TEXT = {".py", ".md", ".toml", ".yaml", ".json", ".ipynb", ""}
TOP_LEVEL = ("pyproject.toml", "Makefile", "LICENSE", ".gitignore", ".ci/run")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built documentation."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    done = subprocess.run(
        [*command, "-d", str(folder / "doctrees"), str(DOCS), str(folder / "html")],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "html"


def text_of(page: Path) -> str:
    """What a reader sees of a built page, without its navigation."""
    (article,) = re.findall(r"<article.*?</article>", page.read_text(encoding="utf-8"), re.DOTALL)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", "", article)))


def test_every_setting_is_documented(site: Path) -> None:
    """The configuration page has each trait of ExecEvents, its choices, and help that ends as a sentence does."""
    text = text_of(site / "configuration.html")
    for name, trait in OWN_TRAITS.items():
        assert f"c.ExecEvents.{name} = {type(trait).__name__}(" in text, name
        assert trait.help.rstrip().endswith("."), name
        for value in getattr(trait, "values", None) or ():
            assert f"'{value}'" in text, (name, value)


def test_no_setting_is_invented() -> None:
    """Every c.ExecEvents.… that a page or a message names is a trait."""
    sources = [*PAGES, *(REPOSITORY / "exec_events").rglob("*.py")]
    named = {(path.name, name) for path in sources for name in re.findall(r"c\.ExecEvents\.(\w+)", path.read_text())}
    assert sorted((page, name) for page, name in named if name not in OWN_TRAITS) == []


def commands(group: click.Group, *before: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command of a group, at any depth, with the words that call it."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*before, name), command
        if isinstance(command, click.Group):
            yield from commands(command, *before, name)


def test_every_command_and_option_is_documented(site: Path) -> None:
    """The page of commands has each verb with its usage, and each of its options; each has a help text."""
    text = text_of(site / "cli.html")
    found = list(commands(main))
    assert {words[0] for words, _ in found} >= set(VERBS)
    for words, command in found:
        usage = f"exec-events {' '.join(words)} [OPTIONS]"
        assert usage in text, words
        assert command.get_short_help_str(), words
        section = text.partition(usage)[2]
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, (words, parameter.name)
                assert all(option in section for option in parameter.opts), (words, parameter.name)


def test_no_command_is_invented() -> None:
    """Every `exec-events VERB` that a page shows is a verb."""
    # What docs/hashing.md puts before a hash's input begins alike.
    text = "\n".join(path.read_text(encoding="utf-8") for path in PAGES if path.name != "hashing.md")
    shells = "\n".join(re.findall(r"^```(?:bash|console)\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    shown = re.findall(r"`exec-events ([a-z-]+)", text)
    shown += re.findall(r"(?:^|\$ |\$\()exec-events ([a-z-]+)", shells, re.MULTILINE)
    verbs = main.list_commands(click.Context(main))
    assert set(VERBS) <= set(shown) <= set(verbs)


@pytest.mark.parametrize(
    ("module", "page"),
    [(metrics, "operations.md"), (dashboard_metrics, "silent-recorders.md")],
    ids=["recorder", "dashboard"],
)
def test_every_metric_is_documented(module: ModuleType, page: str) -> None:
    """The page for operators has each metric, under the name that /metrics shows, and no other."""
    ours = {value for key, value in vars(module).items() if key.isupper() and str(value).startswith("exec_events_")}
    named = set(re.findall(r"^\| `(exec_events_\w+)", (DOCS / page).read_text(), re.MULTILINE))
    assert len(ours) > 5
    assert {name.removesuffix("_total") for name in named} == ours


def test_every_property_of_every_event_is_documented(site: Path) -> None:
    """The page of events has each property of each schema, with its description."""
    text = text_of(site / "events.html")
    for name in catalogue():
        for key, value in load(name.id)["properties"].items():
            assert key in text, (name, key)
            # The renderer makes typographic quotes and dashes.
            words = re.findall(r"\w+", value["description"])[:4]
            assert re.search(r"\W+".join(words), text), (name, key)


def test_every_column_of_every_table_is_documented(site: Path) -> None:
    """The page of tables has each table, and each column with what it is."""
    text = text_of(site / "tables.html").replace("’", "'")
    for table in metadata.sorted_tables:
        heading = re.search(rf"{table.name}\W* {re.escape(str(table.comment))}", text)
        assert heading, table.name
        section = text[heading.end() :]
        for column in table.columns:
            assert f"{column.name} " in section, (table.name, column.name)
            words = re.findall(r"\w+", column.comment or "")[:4]
            assert re.search(r"\W+".join(words), section), (table.name, column.name)


SNIPPETS = [
    pytest.param(page, language, code, id=f"{page.name}-{number}")
    for page in PAGES
    for number, (language, code) in enumerate(TESTED.findall(page.read_text(encoding="utf-8")), 1)
]


@pytest.mark.parametrize(("page", "language", "code"), SNIPPETS)
def test_snippet_works(page: Path, language: str, code: str, tmp_path: Path) -> None:
    """A snippet that a page marks as tested runs: a configuration loads and is valid, commands exit with 0."""
    if language == "bash":
        run_commands(code, tmp_path)
    elif "get_config()" in code:
        check_configuration(code, tmp_path)
    else:
        exec(compile(code, str(page), "exec"), {})


def test_some_snippets_are_tested() -> None:
    """The marker is spelled as this test looks for it."""
    marked = sum(page.read_text(encoding="utf-8").count("<!-- tested -->") for page in PAGES)
    assert len(SNIPPETS) == marked >= 4


def run_commands(code: str, folder: Path) -> None:
    """Run shell commands as a user who has a record, in an empty folder."""
    for recording in two_recorders():
        recording.write(folder / "data" / "exec-events")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code],
        cwd=folder,
        env={
            **os.environ,
            "JUPYTER_DATA_DIR": str(folder / "data"),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for key in folder.glob("*.key"):
        assert len(read_key(key)) == 32


def check_configuration(code: str, folder: Path) -> None:
    """Every setting of a configuration file is a trait of its class, and takes its value."""
    (folder / "configuration.py").write_text(code)
    config = PyFileConfigLoader("configuration.py", path=str(folder)).load_config()
    assert config
    for argument in config.get("Spawner", {}).get("args", []):
        names, _, value = argument.removeprefix("--").partition("=")
        section, _, name = names.partition(".")
        config.merge(Config({section: {name: eval(value)}}))
    for owner in (ServerApp, ExecEvents):
        assert [name for name in config[owner.__name__] if name not in owner.class_traits(config=True)] == []
    chosen: dict[str, Any] = dict(config.ExecEvents)
    extension = ExecEvents(config=Config({"ExecEvents": chosen}))
    assert {name: getattr(extension, name) for name in chosen} == chosen


def targets() -> set[str]:
    """What `make` can make."""
    return set(re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_exist(page: Path) -> None:
    """Every `make TARGET` that a page names is a target of the Makefile."""
    text = page.read_text(encoding="utf-8")
    assert set(re.findall(r"(?:^|`|\$ )make ([a-z]+)\b", text, re.MULTILINE)) <= targets()


def test_readme_has_the_two_commands_and_the_quick_start() -> None:
    """The README names make demo and make test, and its quick start is four lines."""
    text = README.read_text(encoding="utf-8")
    assert "`make demo`" in text
    assert "`make test`" in text
    quick_start = "pip install exec-events\njupyter lab\nexec-events report\nexec-events verify\n"
    assert f"```bash\n{quick_start}```" in text
    assert text.index("<!-- bench -->") < text.index("<!-- /bench -->")


def test_readmes_record_is_one() -> None:
    """The properties of the record the README shows are those of the schema it names."""
    shown = json.loads(re.findall(r"```json\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)[0])
    assert set(shown) == {"event", "seal", "hash"}
    assert set(shown["seal"]) == {"chain", "prev", "seq"}
    event = {key for key in shown["event"] if not key.startswith("__")} - {"..."}
    assert event <= set(load(shown["event"]["__schema__"])["properties"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_files_lead_somewhere(page: Path) -> None:
    """A relative link names a file that is there."""
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_no_registry_and_no_path_of_one_machine_is_named() -> None:
    """No page and no source names the host of a package registry, or a path that is somebody's own."""
    folders = (
        "docs",
        "exec_events",
        "schemas",
        "tests",
        "benchmarks",
        "demo",
        "jupyter-config",
        "consumers",
        "tools",
        "docker",
        "labextension",
    )
    files = [path for folder in folders for path in (REPOSITORY / folder).rglob("*") if path.is_file()]
    files += [*REPOSITORY.glob("*.md"), *(REPOSITORY / name for name in TOP_LEVEL)]
    built = {"_build", "__pycache__", "node_modules", "build", "lib"}
    found = [
        (path.relative_to(REPOSITORY).as_posix(), match[0])
        for path in files
        if path.suffix in TEXT and not built.intersection(path.parts)
        for match in re.finditer(f"{REGISTRIES}|{LOCAL_PATHS}", path.read_text(encoding="utf-8"))
    ]
    assert found == []
