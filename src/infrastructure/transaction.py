"""One transaction at a time, and the repositories that write in it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Protocol
from uuid import UUID

from sqlalchemy import Connection, CursorResult, Engine, Executable, text

from domain.events import DomainEvent
from infrastructure.database import errors_in_our_words, milliseconds

SET_STATEMENT_TIMEOUT = text("SELECT set_config('statement_timeout', :milliseconds, true)")


class Participant(Protocol):
    """A repository that holds back its writes until the transaction commits."""

    def flush(self) -> None:
        """Write what changed."""

    def collect_events(self) -> list[DomainEvent]:
        """Take what its aggregates raised."""


class Transaction:
    """A PostgreSQL transaction that repositories take part in; it commits only when told to."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: Connection | None = None
        self._participants: list[Participant] = []
        self.subjects: tuple[UUID, ...] = ()
        """Whom the events of this transaction are about: a repository may load them all at once."""

    @contextmanager
    def begin(self, time_limit: timedelta) -> Iterator[None]:
        """Open the transaction; without a commit before the end it is rolled back.

        What the driver raises inside comes out in the application's words.
        """
        with errors_in_our_words(), self._engine.connect() as connection:
            self._connection, self._participants, self.subjects = connection, [], ()
            limit = {"milliseconds": str(milliseconds(time_limit))}
            connection.execute(SET_STATEMENT_TIMEOUT, limit)
            try:
                yield
            finally:
                self._connection, self._participants = None, []

    def execute(
        self, statement: Executable, parameters: Mapping[str, object] | list[dict[str, object]]
    ) -> CursorResult[Any]:
        """Run a statement in the transaction."""
        return self.connection.execute(statement, parameters)

    @property
    def connection(self) -> Connection:
        """The connection that the transaction runs on."""
        assert self._connection is not None, "no transaction has begun"  # noqa: S101
        return self._connection

    def join(self, participant: Participant) -> None:
        """Let a repository write when this transaction commits."""
        self._participants.append(participant)

    def collect_events(self) -> list[DomainEvent]:
        """Take what aggregates of any repository raised since the last call."""
        return [
            event for taking_part in self._participants for event in taking_part.collect_events()
        ]

    def commit(self) -> None:
        """Let every repository write, then commit."""
        for participant in self._participants:
            participant.flush()
        self.connection.commit()
