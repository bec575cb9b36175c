"""The rules of a dataset go in, what they mean for the people concerned comes out, in plain sentences (pure)."""

from __future__ import annotations

from collections.abc import Iterator

from .policy import Policy, Queries

_MODES = {
    "synthetic": "People see everything: the data in this folder must be made up, such as a synthetic twin.",
    "held": "People run code on the data. They see that a cell ran and whether it failed, to a grid of {grid}; "
    "what it printed is held until {stewards}.",
    "batch": "People hand in whole notebooks. They see nothing of a run, not even whether it failed, until {stewards}.",
}
_STEWARDS = {1: "a steward releases it", 2: "two stewards release it"}


def in_words(policy: Policy) -> Iterator[str]:
    """One sentence or two for each thing that the policy settles."""
    yield f"{policy.name}, version {policy.version}: {policy.digest}"
    yield f"Data: {policy.data}, read-only, with no network and no home for the code that reads it."
    mode = _MODES[policy.mode].format(grid=_seconds(policy.grid_seconds), stewards=_STEWARDS[policy.stewards])
    yield f"Mode {policy.mode}: {mode}"
    limits = policy.limits
    yield (
        f"A kernel may use {_bytes(limits.memory_bytes)} of memory, {_seconds(limits.cpu_seconds)} of CPU, "
        f"{limits.processes} processes and {limits.files} open files; it may write files of "
        f"{_bytes(limits.file_bytes)} and print {_bytes(limits.output_bytes)}; "
        f"a cell ends after {_seconds(limits.wall_seconds)}."
    )
    budgets = policy.budgets
    yield (
        f"Each person, in each UTC day: {budgets.cells} cells, {budgets.queries} declared queries, "
        f"{_bytes(budgets.released_bytes)} released. When that is spent nothing more runs until the next day."
    )
    if policy.mode == "held":
        yield f"Each cell tells its author two things, whether it failed and its time: at most {budgets.cells} a day."
    yield from _of_queries(policy)
    checker = policy.checker
    yield (
        f"The checker points a steward to counts below {checker.small_count}, numbers with more than "
        f"{checker.significant_digits} significant digits, text over {_bytes(checker.text_bytes)}, outputs over "
        f"{_bytes(checker.output_bytes)}, and {checker.verbatim_values} or more values of one row in one line."
    )


def _of_queries(policy: Policy) -> Iterator[str]:
    rules = policy.queries
    if rules is None:
        yield "No declared queries: nothing is answered without a steward."
        return
    for name, table in rules.tables.items():
        kinds = ", ".join(f"{variable} ({rule.kind})" for variable, rule in table.variables.items())
        yield f"Declared queries may ask {name} ({table.file}, a person is one {table.person}) for {kinds}."
    yield _of_answers(rules)
    if rules.epsilon_per_query is not None:
        yield (
            f"Answers carry noise: epsilon {rules.epsilon_per_query:g} each, {policy.budgets.epsilon:g} a day and "
            f"{policy.budgets.epsilon_total:g} for ever for each person who asks. "
            "People who share answers add theirs up."
        )
    else:
        yield (
            f"A query on the same variables as one of the last {rules.overlap_days} days, whoever asked it, with "
            "another filter, goes to a steward: their difference may be one person."
        )


def _of_answers(rules: Queries) -> str:
    if rules.epsilon_per_query is not None:
        return (
            f"An answer has counts rounded to {rules.round_to} and other numbers to {rules.significant_digits} "
            f"significant digits; it is suppressed where a noisy count is below {rules.threshold}."
        )
    return (
        f"An answer is suppressed, without saying why, where a cell has fewer than {rules.threshold} people or "
        f"{rules.dof} degrees of freedom, its {rules.nk.n} largest values make more than {rules.nk.k:.0%} of it, or "
        f"all but the two largest less than {rules.p_ratio:.0%} of the largest. Counts are rounded to "
        f"{rules.round_to}, other numbers to {rules.significant_digits} significant digits."
    )


def _seconds(count: int) -> str:
    for unit, size in (("hour", 3600), ("minute", 60)):
        if count % size == 0:
            return f"{count // size} {unit}{'s' if count != size else ''}"
    return f"{count} second{'s' if count != 1 else ''}"


def _bytes(count: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"
