"""A look at the tables from outside, by a connection of its own that no fault is done to."""

from contextlib import suppress
from typing import Any, Final, LiteralString, Self

import psycopg
from psycopg.rows import dict_row

ANSWER_MILLISECONDS: Final = 2_000


class Outside:
    """Asks the database, which may be away; used by one thread."""

    def __init__(self, url: str, milliseconds: int = ANSWER_MILLISECONDS) -> None:
        self._url = url
        self._options = f"-c statement_timeout={milliseconds}"
        self._connection: psycopg.Connection[dict[str, Any]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._forget()

    def ask(self, statement: LiteralString, *parameters: object) -> list[dict[str, Any]] | None:
        """Give the rows; None if the database does not answer now."""
        try:
            if self._connection is None:
                self._connection = psycopg.connect(
                    self._url,
                    autocommit=True,
                    row_factory=dict_row,
                    connect_timeout=2,
                    options=self._options,
                    application_name="faults",
                )
            return self._connection.execute(statement, parameters).fetchall()
        except psycopg.OperationalError:
            self._forget()
        return None

    def _forget(self) -> None:
        if self._connection is not None:
            with suppress(psycopg.Error):
                self._connection.close()
        self._connection = None
