"""The catalogue: which schemas there are, how they are found, and what asking for another says."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from exec_events_schemas import SCHEMA_ID, UnknownSchema, catalogue, load
from exec_events_schemas.catalogue import SchemaName, examples, package_folder
from exec_events_schemas.errors import ContractError

EVENTS = {"cell_execution", "consent", "kernel_lifecycle", "late_output", "notebook_action", "recorder"}
EVENTS |= {"budget_debited", "policy_changed", "query_answered", "release_decided"}


def test_every_event_of_the_contract_is_found() -> None:
    """The six events the recorder emits, and the four of the enclave, are in the catalogue, each from version 1 on without a gap."""
    versions: dict[str, list[int]] = {}
    for name in catalogue():
        versions.setdefault(name.event, []).append(name.version)
    assert versions.keys() == EVENTS
    assert all(found == list(range(1, len(found) + 1)) for found in versions.values())


@pytest.mark.parametrize("name", catalogue(), ids=str)
def test_a_schema_is_loaded_by_id_by_version_and_as_the_newest(name: SchemaName) -> None:
    """A schema's $id, its event with a version, and its event alone all lead to it."""
    schema = load(name.id)
    assert SCHEMA_ID.fullmatch(schema["$id"])
    assert schema["$id"] == name.id
    assert schema["version"] == str(name.version)
    assert load(name.event, name.version) == schema
    newest = max(other.version for other in catalogue() if other.event == name.event)
    assert load(name.event)["version"] == str(newest)


@pytest.mark.parametrize(
    ("schema", "version"),
    [
        ("cell_executions", None),
        ("recorder", 99),
        ("https://exec-events.org/schemas/recorder/v99", None),
        ("https://example.org/schemas/recorder/v1", None),
        ("https://exec-events.org/schemas/recorder/v01", None),
        ("../recorder", None),
    ],
)
def test_an_unknown_schema_is_refused_with_the_known_ones(schema: str, version: int | None) -> None:
    """Asking for a schema that is not there names those that are."""
    with pytest.raises(UnknownSchema, match=r"cell_execution v1, consent v1, .*, recorder v1"):
        load(schema, version)


def test_importing_the_package_imports_no_heavy_library() -> None:
    """Importing the contract imports none of pydantic, yaml, jsonschema, Jupyter or the recorder."""
    heavy = ["pydantic", "yaml", "jsonschema", "jsonschema_rs", "jupyter_server", "jupyter_events", "exec_events"]
    code = f"import sys, exec_events_schemas; print([m for m in {heavy} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_schemas_are_found_inside_an_archive(tmp_path: Path) -> None:
    """Schemas load from a package that was never unpacked."""
    archive = tmp_path / "package.zip"
    folder = Path(str(package_folder()))
    with zipfile.ZipFile(archive, "w") as file:
        for path in [*folder.glob("*.py"), *folder.glob("*/v*.yaml")]:
            file.write(path, path.relative_to(folder.parent))
    code = "import exec_events_schemas as e; print(e.__file__, len(e.catalogue()), e.load('recorder')['title'])"
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(archive)!r}); {code}"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.startswith(str(archive))
    assert run.stdout.strip().endswith(f"{len(catalogue())} Recorder")


@pytest.mark.parametrize(("text", "reason"), [("{", "not JSON"), ("[]", "does not hold an object")])
def test_a_file_that_is_no_example_is_named(tmp_path: Path, text: str, reason: str) -> None:
    """An example that is no JSON object is refused with the name of its file."""
    folder = tmp_path / "recorder" / "examples" / "v1"
    folder.mkdir(parents=True)
    (folder / "broken.json").write_text(text)
    with pytest.raises(ContractError, match=rf"broken\.json.*{reason}"):
        examples(SchemaName("recorder", 1), tmp_path)


def test_folders_that_are_no_events_are_left_out(tmp_path: Path) -> None:
    """Folders of other things, and files that only look like versions, are not in the catalogue."""
    shutil.copytree(Path(str(package_folder())) / "recorder", tmp_path / "recorder")
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "recorder" / "v2.yaml.orig").touch()
    (tmp_path / "recorder" / "v0.yaml").touch()
    assert catalogue(tmp_path) == (SchemaName("recorder", 1),)
