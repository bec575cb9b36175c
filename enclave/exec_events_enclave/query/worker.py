"""
The process that opens the data for a declared query: one job on standard input, one result on standard output.

It runs no code but this project's and its libraries'. A job and a result are JSON. A result is one of ``cells``,
``suppressed``, ``review`` (with the place of the earlier filter), ``unavailable`` (with words for the site) and
``failed`` (with the name of an exception, never its text: that may quote the data).
"""

from __future__ import annotations

import json
import logging
import os
import resource
import sys
from typing import Any

from pydantic import TypeAdapter

from exec_events_enclave.errors import QueryUnavailable
from exec_events_enclave.policy import Policy

from .model import Condition, Query

MEMORY_BYTES = 8 * 2**30
CPU_SECONDS = 120

_FILTERS = TypeAdapter(list[tuple[Condition, ...]])


def result_of(job: dict[str, Any]) -> dict[str, Any]:
    """What comes of a job: ``policy``, ``query``, and ``others``, the filters of earlier queries on the table."""
    from .frame import load, meeting, needed

    policy = Policy.model_validate(job["policy"])
    query = Query.model_validate(job["query"])
    others = _FILTERS.validate_python(job["others"])
    if policy.queries is None:
        raise QueryUnavailable(f"{policy.name} takes no declared queries")
    rules, table = policy.queries, policy.queries.tables[query.table]
    frame = load(policy.data, query.table, table, needed(query, others))
    chosen = meeting(frame, query.where)
    if rules.epsilon_per_query is not None:
        from .noise import noisy

        cells = noisy(frame[chosen], query, table, rules, rules.epsilon_per_query)
        return {"suppressed": True} if cells is None else {"cells": cells}
    for number, other in enumerate(others):
        # Who is in one population and not in the other could be told by subtracting.
        if 0 < int((chosen ^ meeting(frame, other)).sum()) < rules.threshold:
            return {"review": number}
    from .rules import protected

    cells = protected(frame[chosen], query, rules)
    return {"suppressed": True} if cells is None else {"cells": cells}


def main() -> None:
    """Do one job."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    # acro logs what it sees.
    logging.disable(logging.CRITICAL)
    # Libraries that print go nowhere: the result is written to a copy of standard output.
    result_to = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(1, 2)
    try:
        result = result_of(json.load(sys.stdin))
    except QueryUnavailable as error:
        result = {"unavailable": str(error)}
    except Exception as error:
        result = {"failed": type(error).__name__}
    with os.fdopen(result_to, "w") as out:
        json.dump(result, out)


if __name__ == "__main__":
    main()
