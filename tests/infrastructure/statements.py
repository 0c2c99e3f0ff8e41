"""Counting what is asked of PostgreSQL, whichever way it goes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import psycopg
import psycopg.sql


@contextmanager
def statements() -> Iterator[list[str]]:
    """Collect the statements run meanwhile by any psycopg cursor, SQLAlchemy's among them.

    One sent for many rows is there once for each of them.
    """
    seen: list[str] = []
    execute, executemany = psycopg.Cursor.execute, psycopg.Cursor.executemany

    def note(query: str | bytes | psycopg.sql.Composable) -> None:
        text = query.as_string() if isinstance(query, psycopg.sql.Composable) else query
        seen.append((text.decode() if isinstance(text, bytes) else text).strip())

    def noted_execute(self: Any, query: Any, *args: Any, **options: Any) -> Any:
        note(query)
        return execute(self, query, *args, **options)

    def noted_executemany(self: Any, query: Any, rows: Any, **options: Any) -> Any:
        rows = list(rows)
        for _ in rows:
            note(query)
        return executemany(self, query, rows, **options)

    with (
        patch.object(psycopg.Cursor, "execute", noted_execute),
        patch.object(psycopg.Cursor, "executemany", noted_executemany),
    ):
        yield seen
