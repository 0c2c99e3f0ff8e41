"""Indexes that are built beside writers, before the revision that needs them."""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, text

IS_VALID: Final = text("""
    SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('kratos_sync.' || :name)
""")


@dataclass(frozen=True, slots=True)
class ConcurrentIndex:
    """An index of a table of ours; ``on`` is what follows ON: ``events (name)``.

    A revision lists those it needs as ``INDEXES``, on tables that revisions before it made.
    """

    name: str
    on: str

    def build(self, connection: Connection, seconds: float) -> None:
        """Build it, unless it is there; one that an interrupted build left is built anew.

        The connection is in autocommit and for this alone. Transactions that began before, a dump
        say, are waited for up to so many seconds, and nobody waits meanwhile. Raises
        sqlalchemy.exc.DBAPIError.
        """
        for setting, value in {
            "statement_timeout": "0",
            "lock_timeout": f"{seconds:.0f}s",
            # A migration that was killed must not go on in the server.
            "client_connection_check_interval": "1s",
        }.items():
            connection.execute(text("SELECT set_config(:s, :v, false)"), {"s": setting, "v": value})
        is_valid = connection.execute(IS_VALID, {"name": self.name}).scalar_one_or_none()
        if is_valid is False:
            connection.execute(text(f"DROP INDEX CONCURRENTLY IF EXISTS kratos_sync.{self.name}"))
        if not is_valid:
            build = f"CREATE INDEX CONCURRENTLY {self.name} ON kratos_sync.{self.on}"
            connection.execute(text(build))
