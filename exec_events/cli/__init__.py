"""
``exec-events VERB``: each verb is a module of this package, or a plug-in, imported when it is called.

A plug-in is an entry point of the group ``exec_events.commands``: its name is the verb, its object a click command.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points

import click

from exec_events import __version__

GROUP = "exec_events.commands"

# verb -> (module, one line of help): listing help imports no verb.
VERBS = {
    "cat": ("read", "Print every record of SOURCE, one JSON line each."),
    "tail": ("read", "Print the last records of SOURCE; -f keeps printing as they come."),
    "report": ("report", "Who ran what: executions, errors, durations and reruns."),
    "verify": ("verify", "Check chains, gaps and links over restarts; or a notebook against the record."),
    "status": ("status", "What this user's recorders are doing: records, deliveries, problems."),
    "pseudonym": ("pseudonym", "The pseudonym of NAME, for who holds the site's key."),
    "erase": ("erase", "Remove one subject's stored code and outputs; every chain stays valid."),
    "schemas": ("schemas", "List, show and check the event schemas, or start a new version."),
}


class LazyGroup(click.Group):
    """A click group that imports a verb's module only when the verb is called, or help asks what a plug-in does."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All verbs: those of `VERBS` in their order, then the plug-ins."""
        return [*VERBS, *sorted({point.name for point in entry_points(group=GROUP)} - VERBS.keys())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one verb."""
        command: click.Command
        if cmd_name in VERBS:
            command = getattr(import_module(f"exec_events.cli.{VERBS[cmd_name][0]}"), cmd_name)
            return command
        for point in entry_points(group=GROUP, name=cmd_name):
            try:
                command = point.load()
            except ImportError as error:
                needed = "pip install 'exec-events[consumers]'"
                raise click.ClickException(f"{cmd_name} needs more than is installed ({error}): {needed}") from error
            return command
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs; of a plug-in that cannot be imported, that it cannot."""
        rows = [(verb, line) for verb, (_, line) in VERBS.items()]
        for verb in self.list_commands(ctx)[len(VERBS) :]:
            try:
                command = self.get_command(ctx, verb)
                rows.append((verb, command.get_short_help_str(limit=100) if command else ""))
            except click.ClickException as error:
                rows.append((verb, error.message))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.group(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "EXEC_EVENTS"}
)
@click.version_option(__version__, prog_name="exec-events")
def main() -> None:
    """A tamper-evident record of every execution of every Jupyter kernel."""
