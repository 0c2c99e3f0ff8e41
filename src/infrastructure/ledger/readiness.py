"""Whether the ledger can take events now."""

from sqlalchemy import Engine

from infrastructure.database import errors_in_our_words
from infrastructure.migrations import require_schema


class DatabaseReadiness:
    """A readiness check: PostgreSQL answers, and its schema is new enough."""

    name = "database"

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def check(self) -> None:
        """Return when ready. Raises SchemaTooOld, LedgerUnavailable or DBAPIError."""
        with errors_in_our_words():
            require_schema(self._engine)
