"""Rows of the ledger, written by hand; ages and waits are by the database's clock."""

from datetime import timedelta
from uuid import UUID, uuid4

from sqlalchemy import Engine, TextClause, text

SOMEBODY = UUID("0199e6a0-0000-7000-8000-00000000da1a")
AT_ONCE = timedelta()
A_MINUTE = timedelta(minutes=1)

EVENT = text("""
    INSERT INTO kratos_sync.events
           (id, name, subject, occurred_at, recorded_at, payload, source, hook, trace_context)
    VALUES (:id, :name, :subject, now() - :age, now() - :age, '{"email": "dalia@example.org"}',
            :source, :hook, :trace_context)
""")
DELIVERY = text("""
    INSERT INTO kratos_sync.deliveries
           (event_id, subject, consumer, attempts, owed_at, due_at, leased, last_error, failed_at,
            error_type, error_shape)
    VALUES (:event_id, :subject, :consumer, :attempts, now() - :age, now() + :due_in, :leased,
            :last_error, now() - CAST(:failed_ago AS interval), :error_type, :error_shape)
""")
ATTEMPT = text("""
    INSERT INTO kratos_sync.attempts
           (event_id, consumer, number, outcome, started_at, duration, error)
    VALUES (:event_id, :consumer, :number, :outcome, now() - :age, :duration, :error)
""")
IDENTITY = text("""
    INSERT INTO kratos_sync.kratos_identities (id, state, traits, deleted_at, synced_at, version)
    VALUES (:id, 'active', '{"email": "dalia@example.org"}', :deleted_at, now(), :version)
""")


def _write(engine: Engine, statement: TextClause, **parameters: object) -> None:
    with engine.begin() as connection:
        connection.execute(statement, parameters)


def add_event(
    engine: Engine,
    *,
    name: str = "kratos_identity.updated",
    subject: UUID = SOMEBODY,
    age: timedelta = AT_ONCE,
    source: str = "webhook",
    hook: str | None = None,
    trace_id: str | None = None,
) -> UUID:
    event_id = uuid4()
    _write(
        engine,
        EVENT,
        id=event_id,
        name=name,
        subject=subject,
        age=age,
        source=source,
        hook=hook,
        trace_context=trace_id and f"00-{trace_id}-00f067aa0ba902b7-01",
    )
    return event_id


def add_delivery(
    engine: Engine,
    consumer: str,
    event_id: UUID | None = None,
    *,
    age: timedelta = AT_ONCE,
    attempts: int = 0,
    due_in: timedelta = AT_ONCE,
    leased: bool = False,
    last_error: str | None = None,
    failed_ago: timedelta | None = None,
    error_type: str | None = None,
    error_shape: str | None = None,
) -> UUID:
    event_id = event_id or add_event(engine, age=age)
    _write(
        engine,
        DELIVERY,
        event_id=event_id,
        subject=SOMEBODY,
        consumer=consumer,
        age=age,
        attempts=attempts,
        due_in=due_in,
        leased=leased,
        last_error=last_error,
        failed_ago=failed_ago,
        error_type=error_type,
        error_shape=error_shape,
    )
    return event_id


def log_attempt(
    engine: Engine,
    consumer: str,
    event_id: UUID | None = None,
    *,
    number: int = 1,
    outcome: str = "succeeded",
    age: timedelta = AT_ONCE,
    duration: timedelta = timedelta(milliseconds=8),
    error: str | None = None,
) -> None:
    _write(
        engine,
        ATTEMPT,
        event_id=event_id or uuid4(),
        consumer=consumer,
        number=number,
        outcome=outcome,
        age=age,
        duration=duration,
        error=error,
    )


def add_identity(
    engine: Engine, identity_id: UUID = SOMEBODY, *, deleted_at: object = None, version: int = 1
) -> None:
    _write(engine, IDENTITY, id=identity_id, deleted_at=deleted_at, version=version)
