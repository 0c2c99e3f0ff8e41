"""Consumers' policies in PostgreSQL, and the pauses as a process knows them."""

import math
import threading
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Final

import psycopg
import structlog
from sqlalchemy import Engine, TextClause, text
from sqlalchemy.exc import SQLAlchemyError

from kratos_sync.application.errors import summary
from kratos_sync.application.ports.event_bus import LedgerUnavailable
from kratos_sync.application.ports.policies import ConsumerPolicy
from kratos_sync.application.ports.unit_of_work import ConcurrencyConflict
from kratos_sync.infrastructure.postgres.engine import translate_errors

FRESH_SECONDS: Final = 0.5
"""How long a process may go on with what it has read."""
IDLE_SECONDS: Final = 2.0
"""The same for a worker that consumes nothing: relays send it nothing for a paused consumer."""

ALL: Final = text("""
    SELECT consumer, paused_at, paused_by, pause_reason, rate, concurrency
    FROM kratos_sync.consumer_policies
""")
PAUSE: Final = text("""
    INSERT INTO kratos_sync.consumer_policies (consumer, paused_at, paused_by, pause_reason)
    VALUES (:consumer, clock_timestamp(), :by, :reason)
    ON CONFLICT (consumer) DO UPDATE
    SET paused_at = excluded.paused_at, paused_by = excluded.paused_by,
        pause_reason = excluded.pause_reason
""")
RESUME: Final = text("""
    UPDATE kratos_sync.consumer_policies
    SET paused_at = NULL, paused_by = NULL, pause_reason = NULL
    WHERE consumer = :consumer AND paused_at IS NOT NULL
    RETURNING 1
""")
LIMIT: Final = text("""
    INSERT INTO kratos_sync.consumer_policies (consumer, rate, concurrency)
    VALUES (:consumer, :rate, :concurrency)
    ON CONFLICT (consumer) DO UPDATE
    SET rate = excluded.rate, concurrency = excluded.concurrency
""")
ADD: Final = text("""
    INSERT INTO kratos_sync.consumer_policies (consumer) VALUES (:consumer)
    ON CONFLICT DO NOTHING
""")
# A bucket of tokens, of one second's events and at least one, that all relays share: the row is
# locked from here to the commit. The bucket is never filled from the future.
TAKE: Final = text("""
    WITH bucket AS (
        SELECT consumer, least(greatest(:rate, 1),
               tokens + :rate * greatest(extract(epoch FROM clock_timestamp() - refilled_at), 0))
               AS available
        FROM kratos_sync.consumer_policies WHERE consumer = :consumer FOR UPDATE
    )
    UPDATE kratos_sync.consumer_policies policy
    SET tokens = bucket.available - least(floor(bucket.available), :most),
        refilled_at = clock_timestamp()
    FROM bucket WHERE policy.consumer = bucket.consumer
    RETURNING CAST(least(floor(bucket.available), :most) AS integer)
""")
RETURN_TOKENS: Final = text("""
    UPDATE kratos_sync.consumer_policies SET tokens = tokens + :events WHERE consumer = :consumer
""")

log = structlog.get_logger()


class PostgresConsumerPolicies:
    """The ConsumerPolicies port."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def all(self) -> Mapping[str, ConsumerPolicy]:
        with translate_errors(), self._engine.connect() as connection:
            return {row[0]: ConsumerPolicy(*row[1:]) for row in connection.execute(ALL)}

    def pause(self, consumer: str, *, by: str, reason: str) -> None:
        self._run(PAUSE, consumer=consumer, by=by, reason=reason)

    def resume(self, consumer: str) -> bool:
        return self._run(RESUME, consumer=consumer) is not None

    def limit(self, consumer: str, rate: str | None, concurrency: int | None) -> None:
        self._run(LIMIT, consumer=consumer, rate=rate, concurrency=concurrency)

    def take(self, consumer: str, rate: float, most: int) -> int:
        with translate_errors(), self._engine.begin() as connection:
            connection.execute(ADD, {"consumer": consumer})
            wanted = {"consumer": consumer, "rate": rate, "most": most}
            taken: int = connection.execute(TAKE, wanted).scalar_one()
        return taken

    def return_tokens(self, consumer: str, events: int) -> None:
        self._run(RETURN_TOKENS, consumer=consumer, events=events)

    def _run(self, statement: TextClause, **parameters: object) -> object:
        with translate_errors(), self._engine.begin() as connection:
            result = connection.execute(statement, parameters)
            return result.scalar_one_or_none() if result.returns_rows else None


class KnownPolicies:
    """The policies as last read.

    While they cannot be read, those known apply.
    """

    def __init__(self, policies: PostgresConsumerPolicies) -> None:
        self._policies = policies
        self._known: Mapping[str, ConsumerPolicy] = {}
        self._read_at = -math.inf

    def of(self, consumer: str) -> ConsumerPolicy:
        """The policy that was decided on."""
        return self._known.get(consumer, ConsumerPolicy())

    def refresh(self, fresh_seconds: float = FRESH_SECONDS) -> None:
        """Read them again if they are older than that. Raises LedgerUnavailable."""
        if monotonic() - self._read_at >= fresh_seconds:
            self._known = self._policies.all()
            self._read_at = monotonic()


class Pauses:
    """Keeps up with the pauses, in a thread: consumers must not wait for a query.

    They are read every half second while a thread is busy, else every two seconds.
    """

    def __init__(self, policies: PostgresConsumerPolicies, busy_threads: Callable[[], int]) -> None:
        self._known = KnownPolicies(policies)
        self._busy_threads = busy_threads
        self._stopped = threading.Event()
        self.thread = threading.Thread(target=self._run, name="pauses", daemon=True)

    def start(self) -> None:
        """Begin to keep up."""
        self.thread.start()

    def stop(self) -> None:
        """Stop keeping up."""
        self._stopped.set()

    def is_paused(self, consumer: str) -> bool:
        """Whether the consumer was paused when the pauses were last read."""
        return self._known.of(consumer).paused_at is not None

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._known.refresh(FRESH_SECONDS if self._busy_threads() else IDLE_SECONDS)
            except LedgerUnavailable as error:
                log.warning("ledger_unavailable", reason=str(error))
            except (ConcurrencyConflict, SQLAlchemyError, psycopg.Error) as error:
                log.warning("pauses_unknown", **summary(error))
            self._stopped.wait(FRESH_SECONDS)
