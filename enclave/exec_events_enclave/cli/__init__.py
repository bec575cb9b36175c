"""``exec-events enclave VERB``: each verb is a module of this package, imported when it is called."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from exec_events_enclave.errors import EnclaveError

# verb -> one line of help: listing help imports no verb.
VERBS = {
    "policy": "Check the policy files of datasets.",
    "stats": "Write statistics of a protected table, for a steward to look at.",
    "synth": "Make a synthetic twin from statistics that a steward approved.",
}


class EnclaveGroup(click.Group):
    """Imports a verb's module when it is called; errors of the enclave are messages, not tracebacks."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All verbs."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one verb."""
        if cmd_name not in VERBS:
            return None
        command: click.Command = getattr(import_module(f"exec_events_enclave.cli.{cmd_name}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs."""
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run a verb."""
        try:
            return super().invoke(ctx)
        except EnclaveError as error:
            raise click.ClickException(str(error)) from error
        except ImportError as error:
            needed = "pip install 'exec-events[enclave]'"
            raise click.ClickException(f"this needs more than is installed ({error}): {needed}") from error


@click.group(cls=EnclaveGroup)
def enclave() -> None:
    """Data that people run code on and cannot see: its policies, queries and synthetic twins."""
