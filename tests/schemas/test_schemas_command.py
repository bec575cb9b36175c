"""``exec-events schemas``: what each subcommand prints, refuses and writes, on copies of the package."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from exec_events.cli import main
from exec_events.cli.schemas import schemas
from exec_events_schemas import catalogue, load
from exec_events_schemas.catalogue import package_folder
from exec_events_schemas.violation import NEXT_STEPS

PACKAGE = Path(str(package_folder()))


def run(*arguments: object) -> Result:
    """A subcommand in this process."""
    return CliRunner().invoke(main, ["schemas", *map(str, arguments)], env={"COLUMNS": "200"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the package's folder to change at will."""
    copy = tmp_path / "exec_events_schemas"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def _edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def test_list_names_every_schema() -> None:
    """The table and the JSON of ``list`` have every event, its version and its number of examples."""
    table = run("list")
    assert table.exit_code == 0
    assert all(name.event in table.output for name in catalogue())
    rows = json.loads(run("list", "--json").output)
    assert [(row["event"], row["version"], row["id"]) for row in rows] == [(*name, name.id) for name in catalogue()]
    assert all(row["examples"] and row["bad_examples"] for row in rows)


def test_show_explains_every_property() -> None:
    """``show`` lists each property, those inside others too; --json gives the schema itself."""
    output = run("show", "cell_execution").output
    assert all(name in output for name in load("cell_execution")["properties"])
    assert "outputs[].mime" in output
    assert json.loads(run("show", "recorder", "--version", 1, "--json").output) == load("recorder", 1)
    assert json.loads(run("show", catalogue()[0].id, "--json").output) == load(catalogue()[0].id)


def test_show_of_an_unknown_schema_names_the_known_ones() -> None:
    """Asking ``show`` for what is not there exits with 1 and says what is."""
    result = run("show", "cell")
    assert result.exit_code == 1
    assert re.search(r"there is no schema 'cell'; known are: .*cell_execution v1", result.output)


def test_check_passes_on_what_is_committed() -> None:
    """All schemas, examples, steps and models of this source are in order."""
    result = run("check")
    assert result.exit_code == 0, result.output
    assert result.output.splitlines() == [*(f"{name}: ok" for name in catalogue()), "all: ok"]


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("recorder/v1.yaml", "[stop, adopted]", "[stop]", "enum-narrowed at /cause: no longer allowed: ['adopted']"),
        ("recorder/v1.yaml", 'version: "1"', 'version: "2"', "identity-changed at version"),
        (
            "late_output/v1.yaml",
            "maxItems: 64",
            "maxItems: 63",
            "bound-narrowed at /outputs: maxItems was 64 and is 63",
        ),
        ("late_output/v1.yaml", "    maxItems: 64", "    uniqueItems: true", "the keyword uniqueItems is not allowed"),
        ("recorder/examples/v1/started.json", '"action": "started"', '"action": "begun"', "example-re"),
        (
            "recorder/examples/v1/bad/negative-lost.json",
            '"lost": -1',
            '"lost": 1',
            "bad-example-accepted at bad/negative-lost.json",
        ),
        ("recorder/examples/v1/bad/negative-lost.json", '"lost": -1', '"lost": -1, "host": 1', "bad-example-unclear"),
        ("models.py", "class RecorderV1(", "class RecorderV9(", "models-stale at models.py"),
    ],
)
def test_check_names_what_is_wrong(folder: Path, file: str, old: str, new: str, said: str) -> None:
    """A schema, example or model that breaks a rule makes ``check`` exit with 1 and say which, where and what next."""
    _edit(folder / file, old, new)
    result = run("check", "--folder", folder)
    assert result.exit_code == 1
    assert said in result.output
    assert "    next: " in result.output
    assert "broken" in result.output


def test_check_notices_a_removed_schema_and_missing_examples(folder: Path) -> None:
    """A released schema that is gone, and a schema without examples, break rules."""
    (folder / "recorder" / "v1.yaml").unlink()
    shutil.rmtree(folder / "late_output" / "examples")
    output = run("check", "--folder", folder).output
    assert "all: schema-removed at recorder/v1.yaml" in output
    assert "late_output v1: example-missing at examples/bad" in output


def test_check_of_one_event_leaves_the_others_alone(folder: Path) -> None:
    """With names, only those events are checked."""
    _edit(folder / "recorder/v1.yaml", "[stop, adopted]", "[stop]")
    assert run("check", "late_output", "--folder", folder).output.splitlines()[0] == "late_output v1: ok"
    assert "recorder v1: enum-narrowed" in run("check", "recorder", "--folder", folder).output
    assert "there is no schema 'nothing'" in run("check", "nothing", "--folder", folder).output


def test_check_compares_any_two_files(tmp_path: Path) -> None:
    """``--schema`` is compared with ``--against``, or else with the released schema of its $id."""
    released = PACKAGE / "recorder" / "released" / "v1.yaml"
    changed = tmp_path / "changed.yaml"
    shutil.copy(PACKAGE / "recorder" / "v1.yaml", changed)
    assert run("check", "--schema", changed).output == "changed.yaml: ok\n"
    _edit(changed, "required: [time, recorder_id, trust, action]", "required: [time, recorder_id, trust]")
    for arguments in ([], ["--against", released]):
        result = run("check", "--schema", changed, *arguments)
        assert result.exit_code == 1
        assert "changed.yaml: property-made-optional at /action" in result.output
    assert run("check", "--against", released).exit_code == 2
    _edit(changed, "/recorder/v1", "/other/v1")
    assert "there is no schema" in run("check", "--schema", changed).output


def test_freeze_takes_over_what_is_compatible_only(folder: Path) -> None:
    """``--freeze`` copies schemas that pass; an incompatible one only while no release carries it."""
    schema, released = folder / "recorder" / "v1.yaml", folder / "recorder" / "released" / "v1.yaml"
    before = released.read_bytes()
    _edit(schema, "[stop, adopted]", "[stop, adopted, moved]")
    assert run("check", "recorder", "--folder", folder, "--freeze").exit_code == 1
    assert released.read_bytes() == before
    subprocess.run([sys.executable, "-c", _regenerate(folder)], check=True)
    assert run("check", "recorder", "--folder", folder, "--freeze").exit_code == 1
    result = run("check", "recorder", "--folder", folder, "--freeze", "--unreleased")
    assert result.exit_code == 0, result.output
    assert released.read_bytes() == schema.read_bytes()


def _regenerate(folder: Path) -> str:
    return (
        "from pathlib import Path; from exec_events_schemas.generate import models_source; "
        f"p = Path({str(folder)!r}); (p / 'models.py').write_text(models_source(p))"
    )


@pytest.mark.parametrize(("module", "arguments"), [("jsonsubschema", ()), ("datamodel_code_generator", ("recorder",))])
def test_check_without_its_tools_says_what_to_install(
    module: str, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a tool of the extra is missing, the message is the command that installs it."""
    monkeypatch.setattr(f"exec_events_schemas.{_user(module)}.find_spec", lambda _: None, raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    result = run("check", *arguments)
    assert result.exit_code == 1
    assert 'pip install "exec-events[schemas]"' in result.output


def _user(module: str) -> str:
    return "generate" if module == "datamodel_code_generator" else "compatibility"


def test_a_new_version_can_be_read_from_the_old_one_end_to_end(folder: Path) -> None:
    """new-version, a changed schema, its step and its models: then v1 events are read as v2, and check agrees."""
    result = run("new-version", "recorder", "--folder", folder)
    assert result.exit_code == 0, result.output
    assert "What to do next" in result.output
    event = folder / "recorder"
    assert {"v2.yaml", "upcast_v1_to_v2.py", "released", "examples"} <= {path.name for path in event.iterdir()}
    assert (event / "v1.yaml").read_bytes() == (PACKAGE / "recorder" / "v1.yaml").read_bytes()

    # A property that v2 requires and v1 did not have: check asks for the step and the examples, and for the models.
    _edit(event / "v2.yaml", "trust, action]", "trust, action, host_count]")
    _edit(event / "v2.yaml", "properties:\n", "properties:\n  host_count: {type: integer, minimum: 1}\n")
    for file in (event / "examples" / "v2").rglob("*.json"):
        file.write_text(json.dumps({**json.loads(file.read_text()), "host_count": 1}))
    failed = run("check", "recorder", "--folder", folder)
    assert failed.exit_code == 1
    assert "recorder v2: upcast-fails at upcast_v1_to_v2.py, given " in failed.output
    assert "models-stale" in failed.output
    _edit(event / "upcast_v1_to_v2.py", "return event", 'return {**event, "host_count": 1}')
    subprocess.run([sys.executable, "-c", _regenerate(folder)], check=True)
    passed = run("check", "recorder", "--folder", folder)
    assert passed.exit_code == 0, passed.output
    assert "recorder v2: ok" in passed.output

    event_v1 = {"__schema__": load("recorder", 1)["$id"], "__schema_version__": "1"}
    event_v1 |= json.loads((event / "examples" / "v1" / "heartbeat.json").read_text())
    seen = _in_copy(folder, event_v1)
    assert seen["event"]["__schema__"] == "https://exec-events.org/schemas/recorder/v2"
    assert seen["event"]["__schema_version__"] == "2"
    assert seen["event"] | {"__schema__": event_v1["__schema__"], "__schema_version__": "1"} == {
        **event_v1,
        "host_count": 1,
    }
    assert seen["model"] == "RecorderV2"
    assert seen["given"] == event_v1


def _in_copy(folder: Path, event: dict[str, Any]) -> dict[str, Any]:
    """What a reader that has the copy of the package makes of an event."""
    code = (
        "import json, sys; import exec_events_schemas as e; from exec_events_schemas.parse import parse; "
        "given = json.load(sys.stdin); event = e.upcast(given); "
        "print(json.dumps({'event': event, 'given': given, 'model': type(parse(given)).__name__}))"
    )
    environment = {**os.environ, "PYTHONPATH": str(folder.parent)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, input=json.dumps(event), env=environment, capture_output=True, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_versions_follow_each_other(folder: Path) -> None:
    """A third version starts from the second, and every step in between is checked."""
    assert run("new-version", "recorder", "--folder", folder).exit_code == 0
    assert run("new-version", "recorder", "--folder", folder).exit_code == 0
    subprocess.run([sys.executable, "-c", _regenerate(folder)], check=True)
    output = run("check", "recorder", "--folder", folder).output
    assert output.splitlines() == ["recorder v1: ok", "recorder v2: ok", "recorder v3: ok", "all: ok"]
    (folder / "recorder" / "upcast_v1_to_v2.py").unlink()
    assert "recorder v2: upcast-fails" in run("check", "recorder", "--folder", folder).output


def test_new_version_overwrites_nothing(folder: Path) -> None:
    """Where one of its files is there already, nothing is written."""
    step = folder / "recorder" / "upcast_v1_to_v2.py"
    step.write_text("mine")
    result = run("new-version", "recorder", "--folder", folder)
    assert result.exit_code == 1
    assert "is there already" in result.output
    assert step.read_text() == "mine"
    assert not (folder / "recorder" / "v2.yaml").exists()


def test_new_version_refuses_where_it_cannot_write(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder that cannot be written the message names --folder, and nothing is written."""
    monkeypatch.setattr("os.access", lambda _, mode: mode != os.W_OK)
    result = run("new-version", "recorder", "--folder", folder)
    assert result.exit_code == 1
    assert "--folder" in result.output
    assert not (folder / "recorder" / "v2.yaml").exists()


def test_new_version_refuses_in_an_installed_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an installed package, which an upgrade would overwrite, the message names --folder."""
    monkeypatch.setattr("exec_events.cli.schemas.package_folder", lambda: folder)
    result = run("new-version", "recorder")
    assert result.exit_code == 1
    assert "is an installed package" in result.output
    assert "--folder" in result.output
    assert not (folder / "recorder" / "v2.yaml").exists()


def test_every_option_is_explained() -> None:
    """Each subcommand and each of its options has a line of help, and --help prints it."""
    for name, command in schemas.commands.items():
        assert command.help
        for option in command.params:
            assert isinstance(option, click.Argument) or getattr(option, "help", None), (name, option.name)
        assert run(name, "--help").exit_code == 0


def test_the_documentation_works() -> None:
    """In docs/schemas.md the Python runs, each rule of a change is explained, and commands that read exit with 0."""
    page = (Path(__file__).parents[2] / "docs" / "schemas.md").read_text()
    for block in re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        exec(compile(block, "docs/schemas.md", "exec"), {})
    commands = re.findall(r"^ *\$ exec-events schemas (list|show .*)$", page, re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        assert run(*command.split()).exit_code == 0
    about_files = (
        "example-missing",
        "example-refused",
        "bad-example-",
        "upcast-fails",
        "models-stale",
        "schema-removed",
    )
    assert all(f"`{rule}`" in page for rule in NEXT_STEPS if not rule.startswith(about_files))
