"""Tables of very many runs, made by the database itself: what pages cost at a million executions is measured on them."""

from __future__ import annotations

from sqlalchemy import Engine, text

from exec_events_consumers.store import Store

# Runs of people who work through a notebook's cells, some oftener; the last one was asked for now.
_EXECUTIONS = """
INSERT INTO executions
SELECT recorder || '/' || person, run, x'00', recorder || '-' || person || '-' || run, 'person-' || person, 'request',
  'notebook-' || notebook, 'cell-' || cell, 'kernel-' || person, 'python3', recorder, 'websocket', 'server',
  CASE WHEN chance < 20 THEN 'error' WHEN chance < 97 THEN 'ok' ELSE 'aborted' END,
  CASE WHEN chance < 12 THEN 'NameError' WHEN chance < 20 THEN 'TypeError' END, run,
  strftime('%Y-%m-%dT%H:%M:%S', at_us / 1000000, 'unixepoch') || '.000000Z', NULL,
  strftime('%Y-%m-%dT%H:%M:%S', at_us / 1000000, 'unixepoch') || '.000000Z', at_us, at_us + 50000, 10, 50000,
  code, code, 100, 1 + cell % 9, chance % 3, chance % 2, chance < 30, 'sha256:1', 1, 100, false, true
FROM (
  SELECT *, 'sha256:' || printf('%064d', notebook * 100000 + cell * 1000 + (person * 31 + run / :cells * 7) % :codes) AS code
  FROM (
    SELECT n % :people AS person, n / :people AS run, 'recorder' AS recorder, (n * 2654435761 >> 9) % 100 AS chance,
      (n / :people) % :notebooks AS notebook, (n / :people / :notebooks) % :cells AS cell,
      :now_us - CAST((:runs - n) AS INTEGER) * :apart_us AS at_us
    FROM (WITH RECURSIVE n(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n + 1 < :runs) SELECT n FROM n)
  )
)
"""
_ENDED = "count(*), sum(status = 'ok'), sum(status = 'error'), sum(status NOT IN ('ok', 'error'))"
_DERIVED = (
    f"""INSERT INTO cells SELECT subject, notebook, cell_id, 1 + CAST(substr(cell_id, 6) AS INTEGER), {_ENDED},
    0, count(DISTINCT code_hash), CASE WHEN (length(subject) + count(*)) % 20 = 0 THEN 4 ELSE 0 END, 4, 1, 1000000, NULL, 9, 9, 1, 5,
    sum(duration_us), 'ok', 'NameError', code_hash, min(requested_at), max(requested_at), max(requested_at)
    FROM executions GROUP BY subject, notebook, cell_id""",
    f"""INSERT INTO notebooks SELECT subject, notebook, {_ENDED}, count(DISTINCT cell_id), 3, 1000000, 1000000, 1, 1,
    sum(duration_us), 'cell-1', 2, min(requested_at), max(requested_at), max(requested_at)
    FROM executions GROUP BY subject, notebook""",
    f"""INSERT INTO subjects SELECT subject, {_ENDED}, 1000000, 1000000, 1, 1, sum(duration_us),
    min(requested_at), max(requested_at), max(requested_at) FROM executions GROUP BY subject""",
    f"""INSERT INTO minutes SELECT substr(requested_at, 1, 16) || 'Z', subject, {_ENDED}, sum(duration_us)
    FROM executions GROUP BY 1, 2""",
    """INSERT INTO errors SELECT subject, notebook, cell_id, error_name, count(*), min(requested_at), max(requested_at)
    FROM executions WHERE status = 'error' GROUP BY 1, 2, 3, 4""",
    """INSERT INTO codes SELECT subject, notebook, cell_id, code_hash, code_ast_hash, count(*), max(code_lines),
    min(requested_at), max(requested_at) FROM executions GROUP BY 1, 2, 3, 4""",
    """INSERT INTO chains SELECT 'aggregate', chain, max(seq), x'00', count(*), 0, '[]', 0, 0, min(requested_at),
    max(requested_at), false FROM executions GROUP BY chain""",
    "INSERT INTO kernel_sessions SELECT kernel_id, 'recorder', subject, notebook, 'python3', min(requested_at), NULL, NULL,"
    " 0, 0, 0, max(requested_at) FROM executions GROUP BY kernel_id",
    "INSERT INTO recorders (recorder_id, started_at, last_at, ended_at, cause, lost, executions) VALUES ('recorder', NULL, '2026-01-01T00:00:00.000000Z', NULL, NULL, 0, 0)",
    "INSERT INTO offsets VALUES ('aggregate', 'p', 1, 'o', 1)",
)


def fill(
    url: str,
    runs: int,
    now_us: int,
    *,
    people: int = 1000,
    notebooks: int = 5,
    cells: int = 40,
    codes: int = 12,
    apart_us: int = 1_000_000,
) -> Engine:
    """Make the tables of a SQLite store; the engine."""
    store = Store(url, "aggregate")
    values = {
        "runs": runs,
        "now_us": now_us,
        "people": people,
        "notebooks": notebooks,
        "cells": cells,
        "codes": codes,
        "apart_us": apart_us,
    }
    with store.engine.begin() as connection:
        connection.execute(text(_EXECUTIONS), values)
        for statement in _DERIVED:
            connection.exec_driver_sql(statement)
    return store.engine
