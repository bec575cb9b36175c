"""``exec-events enclave policy``: what the policy file of a dataset means, or what is wrong in it."""

from __future__ import annotations

from pathlib import Path

import click

from exec_events_enclave.errors import PolicyError
from exec_events_enclave.policy_file import load_policy
from exec_events_enclave.policy_words import in_words


@click.group()
def policy() -> None:
    """Check the policy files of datasets."""


@policy.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path))
@click.option("--quiet", "-q", is_flag=True, help="Print the name, the version and the digest of each policy alone.")
def check(files: tuple[Path, ...], quiet: bool) -> None:
    """
    Say in plain words what each FILE allows, with its digest.

    Exits with 1 where one cannot be used, and says each line that is wrong.
    """
    wrong = False
    for path in files:
        try:
            words = list(in_words(load_policy(path)))
        except PolicyError as error:
            wrong = True
            click.echo(f"{error}", err=True)
            continue
        click.echo("\n  ".join(words[:1] if quiet else words))
    if wrong:
        raise SystemExit(1)
