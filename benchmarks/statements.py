"""What PostgreSQL was asked, from pg_stat_statements."""

from typing import Any

import psycopg
from psycopg.rows import dict_row

# What the benchmark itself asks says so in a comment.
OURS = "pg_stat_statements|/\\* benchmark \\*/"
NO_QUERY = rf"^(BEGIN|COMMIT|ROLLBACK)\M|{OURS}"
DEAREST = """
    SELECT regexp_replace(query, '\\s+', ' ', 'g') AS query, calls, rows,
           round(total_exec_time)::float AS milliseconds,
           round((100 * total_exec_time / sum(total_exec_time) OVER ())::numeric, 1)::float
           AS percent
    FROM pg_stat_statements
    WHERE query !~ %s
    ORDER BY total_exec_time DESC
    LIMIT 10
"""
COUNT = """
    SELECT coalesce(sum(calls) FILTER (WHERE query !~ %s), 0)::int AS queries,
           coalesce(sum(calls) FILTER (WHERE query !~ %s), 0)::int AS statements
    FROM pg_stat_statements
"""
SHOWN = 160


def forget(url: str) -> None:
    """Begin to count anew."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT pg_stat_statements_reset()")


def dearest(url: str) -> list[dict[str, Any]]:
    """The ten statements that took the most time, dearest first."""
    with psycopg.connect(url, row_factory=dict_row) as connection:
        rows = connection.execute(DEAREST, [OURS]).fetchall()
    return [{**row, "query": row["query"].strip()[:SHOWN]} for row in rows]


def counted(url: str) -> dict[str, int]:
    """How many queries there were, and how many statements with those that begin and end."""
    with psycopg.connect(url, row_factory=dict_row) as connection:
        rows: list[dict[str, int]] = connection.execute(COUNT, [NO_QUERY, OURS]).fetchall()
    return rows[0]
