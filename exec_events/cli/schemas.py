"""``exec-events schemas``: list, show and check the event schemas, or start a new version of one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from exec_events_schemas.catalogue import SchemaName, catalogue, examples, find, load, package_folder, read_yaml
from exec_events_schemas.errors import ContractError
from exec_events_schemas.violation import Violation

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
folder_option = click.option(
    "--folder", type=FOLDER, help="The folder that holds the schemas.  [default: that of this installation]"
)


class SchemasGroup(click.Group):
    """A group whose errors of the contract are messages, not tracebacks."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a subcommand."""
        try:
            return super().invoke(ctx)
        except ContractError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=SchemasGroup)
def schemas() -> None:
    """List, show and check the event schemas, or start a new version of one."""


@schemas.command("list")
@folder_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON in place of a table.")
def list_schemas(folder: Path | None, as_json: bool) -> None:
    """Every event and version there is."""
    rows = [
        {
            "event": name.event,
            "version": name.version,
            "id": name.id,
            "title": load(name.event, name.version, folder).get("title", ""),
            "examples": len(examples(name, folder)),
            "bad_examples": len(examples(name, folder, bad=True)),
        }
        for name in catalogue(folder)
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    table = Table("event", "version", "title", "examples")
    for row in rows:
        counts = f"{row['examples']} good, {row['bad_examples']} bad"
        table.add_row(row["event"], f"v{row['version']}", row["title"], counts)
    Console().print(table)


@schemas.command()
@click.argument("name")
@click.option("--version", type=click.IntRange(min=1), help="Which version.  [default: the newest]")
@folder_option
@click.option("--json", "as_json", is_flag=True, help="Print the schema itself, as JSON.")
def show(name: str, version: int | None, folder: Path | None, as_json: bool) -> None:
    """What the events called NAME carry; NAME may also be a schema's $id."""
    schema = load(name, version, folder)
    if as_json:
        click.echo(json.dumps(schema, indent=2))
        return
    click.echo(f"{schema.get('title', name)}: {schema['$id']}\n{schema.get('description', '')}\n")
    table = Table("property", "values", "required", "meaning", show_lines=True)
    for path, values, required, meaning in _rows(schema, ""):
        table.add_row(path, values, "yes" if required else "", meaning)
    Console().print(table)


@schemas.command()
@click.argument("names", nargs=-1)
@click.option("--schema", type=FILE, help="Check this changed schema instead, against a released one.")
@click.option("--against", type=FILE, help="The released schema for --schema.  [default: the one of its $id]")
@folder_option
@click.option(
    "--freeze", is_flag=True, help="If all is well, make the released copies equal to the schemas: at a release."
)
@click.option(
    "--unreleased", is_flag=True, help="Do not compare with the released copies: until a first release carries them."
)
def check(
    names: tuple[str, ...],
    schema: Path | None,
    against: Path | None,
    folder: Path | None,
    freeze: bool,
    unreleased: bool,
) -> None:
    """
    Prove that every schema may take the place of its released copy.

    Also that good examples are valid and bad ones refused, that old events can be read as the newest version,
    and that the models are those of the schemas. NAMES limits this to some events. Exits with 1 when a rule
    is broken, and says which, where, and what to do next.
    """
    if schema is not None:
        if names or freeze or unreleased:
            raise click.UsageError("--schema goes with --against and --folder alone")
        _finish(_report(schema.name, _compare_files(schema, against, folder)))
        return
    if against is not None:
        raise click.UsageError("--against goes with --schema")
    from exec_events_schemas import checks

    folder = _folder(folder)
    wanted = {find(name, folder=folder).event for name in names}
    chosen = [name for name in catalogue(folder) if not wanted or name.event in wanted]
    broken = sum(
        _report(str(name), checks.schema_violations(name, folder, compatible=not unreleased)) for name in chosen
    )
    broken += _report("all", [*checks.released_only(folder), *checks.models_violations(folder)])
    _finish(broken)
    if freeze:
        for name in chosen:
            click.echo(f"frozen: {checks.freeze(name, folder)}")


@schemas.command("new-version")
@click.argument("name")
@click.option(
    "--folder", type=FOLDER, help="The folder that holds the schemas.  [default: that of this source checkout]"
)
def start_version(name: str, folder: Path | None) -> None:
    """Start the next version of the event NAME: schema, examples, and the step by which readers get there."""
    from exec_events_schemas.generate import COMMAND
    from exec_events_schemas.new_version import new_version

    if folder is None:
        folder = _folder(None)
        if not (folder.parent / "generate_models.py").is_file():
            raise ContractError(
                f"{folder} is an installed package, not a source checkout: "
                "name the checkout's schemas/exec_events_schemas with --folder"
            )
    started, paths = new_version(name, folder)
    schema, good, step = paths
    click.echo(f"Started {started}:\n" + "\n".join(f"  {path}" for path in paths))
    click.echo(
        f"What to do next:\n"
        f"  1. Change {schema.name}; until it is released, all of it is free.\n"
        f"  2. Make the examples in {good.parent.name}/{good.name} and its bad/ show what changed.\n"
        f"  3. Complete {step.name}, so that readers can read every older event as {started}.\n"
        f"  4. {COMMAND}\n"
        f"  5. exec-events schemas check {started.event}"
    )


def _folder(folder: Path | None) -> Path:
    return Path(str(package_folder())) if folder is None else folder


def _compare_files(file: Path, against: Path | None, folder: Path | None) -> list[Violation]:
    from exec_events_schemas import compatibility
    from exec_events_schemas.catalogue import load_released

    changed = read_yaml(file)
    try:
        name: SchemaName | None = find(str(changed.get("$id")), folder=folder)
    except ContractError:
        if against is None:
            raise
        name = None
    released = read_yaml(against) if against else name and load_released(name, folder)
    if released is None:
        raise ContractError(f"no release has {name}: name the schema to compare with by --against")
    kept = examples(name, folder) if name else {}
    return compatibility.check(released, changed, list(kept.values()))


def _report(subject: str, violations: list[Violation]) -> int:
    """Print what is wrong with a subject; return how much."""
    for violation in violations:
        click.echo(f"{subject}: {violation}\n    next: {violation.next_step}")
    if not violations:
        click.echo(f"{subject}: ok")
    return len(violations)


def _finish(broken: int) -> None:
    if broken:
        raise click.ClickException(f"{broken} rule{'s' if broken > 1 else ''} broken")


def _rows(schema: dict[str, Any], path: str) -> Iterator[tuple[str, str, bool, str]]:
    """Path, values, whether required, and meaning of each property, those inside others too."""
    for key, value in schema.get("properties", {}).items():
        place = f"{path}{key}"
        yield place, _values(value), key in schema.get("required", ()), value.get("description", "")
        yield from _rows(value, f"{place}.")
        yield from _rows(value.get("items", {}), f"{place}[].")


def _values(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    return str(schema.get("type", "any"))
