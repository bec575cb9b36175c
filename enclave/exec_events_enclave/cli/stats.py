"""``exec-events enclave stats``: what a synthetic twin will be made from, for a steward to look at."""

from __future__ import annotations

from pathlib import Path

import click

from exec_events_enclave.errors import PolicyError
from exec_events_enclave.policy_file import load_policy


@click.command()
@click.argument("policy_file", metavar="POLICY", type=click.Path(path_type=Path))
@click.argument("table")
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
def stats(policy_file: Path, table: str, out: Path) -> None:
    """
    Write statistics of a TABLE of the dataset of POLICY to OUT, as YAML.

    It reads the protected data. Rare values and small counts are left out and the rest is rounded, by the rules of the
    policy's queries. Look at OUT, change what should not be told, and put your name at approved_by.
    """
    policy = load_policy(policy_file)
    if policy.queries is None or table not in policy.queries.tables:
        raise PolicyError(f"the policy of {policy.name} has no table {table}; declare it below queries.tables")
    if out.exists():
        raise PolicyError(f"{out} is there already: a steward may have changed it; give another name")
    from exec_events_enclave.query.frame import load
    from exec_events_enclave.synth import statistics_of

    rules = policy.queries.tables[table]
    found = statistics_of(load(policy.data, table, rules, rules.variables), policy, table)
    out.write_text(found.as_yaml(), encoding="utf-8")
    click.echo(f"{out}: look at it, and fill in approved_by")
