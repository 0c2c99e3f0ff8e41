"""Writing failed attempts down."""

from collections.abc import Iterable

from sqlalchemy import Connection, Engine, text

from application.ports.failures import FailedAttempt
from infrastructure.database import errors_in_our_words

RECORD_FAILURE = text("""
    WITH failed AS (
        UPDATE kratos_sync.deliveries
        SET attempts = attempts + CASE WHEN :outcome = 'postponed' THEN 0 ELSE 1 END,
            due_at = clock_timestamp() + coalesce(CAST(:retry_after AS interval), '0'),
            leased = false,
            last_error = :error,
            error_type = :error_type,
            error_shape = :error_shape,
            failed_at = CASE WHEN :outcome = 'gave_up' THEN clock_timestamp() END
        WHERE consumer = :consumer AND event_id = :event_id AND attempts = :number - 1
        RETURNING event_id
    )
    INSERT INTO kratos_sync.attempts
           (event_id, consumer, number, outcome, started_at, duration, error)
    SELECT event_id, :consumer, :number, :outcome, :started_at, :duration, :error
    FROM failed
""")


class PostgresFailures:
    """The failures port: a transaction for each attempt."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def record(self, attempt: FailedAttempt) -> None:
        """Log the attempt; it counts once, whoever else holds the same message."""
        with errors_in_our_words(), self._engine.begin() as connection:
            record_failures(connection, [attempt])


def record_failures(connection: Connection, attempts: Iterable[FailedAttempt]) -> None:
    """Log attempts in the connection's transaction, in the order of their events' ids."""
    rows = [
        {
            "event_id": attempt.event_id,
            "consumer": attempt.consumer,
            "number": attempt.number,
            "started_at": attempt.started_at,
            "duration": attempt.duration,
            "outcome": attempt.outcome,
            "error": _storable(attempt.error),
            "error_type": attempt.error_type,
            "error_shape": attempt.error_shape and _storable(attempt.error_shape),
            "retry_after": attempt.retry_after,
        }
        for attempt in attempts
    ]
    connection.execute(RECORD_FAILURE, rows)


def _storable(error: str) -> str:
    # PostgreSQL's text has neither U+0000 nor lone surrogates; what an error quotes may.
    escaped = error.encode(errors="backslashreplace").decode()
    return escaped.replace("\x00", "\N{REPLACEMENT CHARACTER}")
