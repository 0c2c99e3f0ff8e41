"""Whether the ledger can take events now."""

from sqlalchemy import Engine

from infrastructure.migrations import require_schema


class DatabaseReadiness:
    """A readiness check: PostgreSQL answers, and its schema is new enough."""

    name = "database"

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def check(self) -> None:
        """Return when ready. Raises SchemaTooOld or sqlalchemy.exc.SQLAlchemyError."""
        require_schema(self._engine)
