"""``exec-events pseudonym NAME``: what stands for a name in events, for who holds the site's key."""

from __future__ import annotations

from pathlib import Path

import click

from exec_events import paths
from exec_events.errors import ConfigurationError
from exec_events.privacy import Pseudonyms, read_key


@click.command()
@click.argument("name")
@click.option("--notebook", is_flag=True, help="NAME is a notebook's path, relative to the server's root, not a user.")
@click.option(
    "--key-file",
    type=click.Path(path_type=Path),
    default=None,
    help="The site's key (c.ExecEvents.pseudonym_key_file); by default this user's.",
)
def pseudonym(name: str, notebook: bool, key_file: Path | None) -> None:
    """Print the pseudonym of NAME, a user's name as the server knows it."""
    try:
        pseudonyms = Pseudonyms(read_key(key_file or paths.key_file()))
    except ConfigurationError as error:
        raise click.ClickException(str(error)) from error
    click.echo(pseudonyms.notebook(name) if notebook else pseudonyms.subject(name))
