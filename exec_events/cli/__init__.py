"""``exec-events VERB``: each verb is a module of this package, imported when it is called."""

from __future__ import annotations

from importlib import import_module

import click

from exec_events import __version__

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
    """A click group that imports a verb's module only when the verb is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All verbs, in the order of `VERBS`."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one verb."""
        if cmd_name not in VERBS:
            return None
        module = import_module(f"exec_events.cli.{VERBS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(verb, line) for verb, (_, line) in VERBS.items()])


@click.group(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "EXEC_EVENTS"}
)
@click.version_option(__version__, prog_name="exec-events")
def main() -> None:
    """A tamper-evident record of every execution of every Jupyter kernel."""
