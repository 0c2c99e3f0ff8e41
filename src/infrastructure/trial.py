"""Trying a consumer on a recorded event: everything it writes is rolled back."""

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from time import monotonic
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, Engine, text

from kratos_sync.application.consumer import Consumer
from kratos_sync.application.pipeline.batch import read_event
from kratos_sync.application.ports.trials import NoTrial, Trial, Writes
from kratos_sync.application.ports.unit_of_work import PendingDelivery
from kratos_sync.infrastructure.ledger.inbox import PostgresUnitOfWork
from kratos_sync.infrastructure.postgres.engine import readable, translate_errors

EVENT: Final = text(f"""
    SELECT name, subject, {readable("occurred_at")}, payload::text, trace_context, source,
           recorded_at, hook, erased_at
    FROM kratos_sync.events WHERE id = :event_id
""")  # noqa: S608  # the columns are ours
# Counted by PostgreSQL, rolled back or not; with what the connection wrote shortly before the
# transaction, until that is added to the statistics of all.
WRITTEN: Final = text("""
    SELECT schemaname || '.' || relname, n_tup_ins, n_tup_upd, n_tup_del
    FROM pg_stat_xact_user_tables
    WHERE n_tup_ins + n_tup_upd + n_tup_del > 0
    ORDER BY 1
""")


class PostgresTrials:
    """The Trials port."""

    def __init__(self, engine: Engine, unit_of_work: Callable[[], PostgresUnitOfWork]) -> None:
        self._engine = engine
        self._unit_of_work = unit_of_work

    def run(self, consumer: type[Consumer[Any]], event_id: UUID, events: Collection[str]) -> Trial:
        delivery = self._delivery(event_id)
        if delivery.name not in events:
            raise NoTrial(f"{consumer.name} is not subscribed to {delivery.name}")
        try:
            event = read_event(delivery)
        except ValueError as unreadable:
            kind = type(unreadable).__name__
            raise NoTrial(f"the event {event_id} cannot be read ({kind})") from None
        unit, began = self._unit_of_work(), monotonic()
        writes, raised, error = [], [], None
        with unit.begin(consumer.time_limit):
            unit.subjects = (event.subject,)
            before = _written(unit.connection)
            try:
                if (awaitable := unit.consumer(consumer).consume(event)) is not None:
                    asyncio.run(_wait_for(awaitable))
                raised = unit.collect_events()
                unit.flush()
                writes = list(_more(_written(unit.connection), before))
            except Exception:  # noqa: BLE001  # it is what one wants to see
                error = traceback.format_exc()
        return Trial(event, writes, raised, error, monotonic() - began)

    def _delivery(self, event_id: UUID) -> PendingDelivery:
        with translate_errors(), self._engine.connect() as connection:
            row = connection.execute(EVENT, {"event_id": event_id}).one_or_none()
        if row is None:
            raise NoTrial(f"no event {event_id} is recorded")
        name, subject, occurred_at, payload, trace, source, recorded_at, hook, erased_at = row
        if erased_at is not None:
            raise NoTrial(f"the event {event_id} was erased")
        delivery = PendingDelivery(event_id, 1, name, subject, occurred_at, payload, trace)
        return delivery._replace(source=source, recorded_at=recorded_at, hook=hook)


def _written(connection: Connection) -> dict[str, Writes]:
    return {row[0]: Writes(*row) for row in connection.execute(WRITTEN)}


def _more(written: Mapping[str, Writes], before: Mapping[str, Writes]) -> Iterator[Writes]:
    for table, each in written.items():
        _, inserted, updated, deleted = before.get(table, Writes(table, 0, 0, 0))
        more = (each.inserted - inserted, each.updated - updated, each.deleted - deleted)
        if any(more):
            yield Writes(table, *more)


async def _wait_for(awaitable: Awaitable[None]) -> None:
    await awaitable
