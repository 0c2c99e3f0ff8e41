"""The history of one identity, read from the ledger."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, Row, text

from kratos_sync.application.ports.history import (
    Attempt,
    Delivery,
    IdentityHistory,
    IdentitySummary,
    Outstanding,
    RecordedEvent,
)
from kratos_sync.application.ports.position import END, Position
from kratos_sync.domain.fields import from_text
from kratos_sync.domain.json_values import Json
from kratos_sync.infrastructure.erasure import erasure_of
from kratos_sync.infrastructure.ledger.snapshot import snapshot
from kratos_sync.infrastructure.postgres.engine import readable

IDENTITY = text("""
    SELECT state, version, created_at, updated_at, deleted_at, synced_at, forgotten_at
    FROM kratos_sync.kratos_identities WHERE id = :identity_id
""")

EVENTS = text(f"""
    SELECT id, name, source,
           {readable("occurred_at")} AS occurred_at, recorded_at, erased_at, hook
    FROM kratos_sync.events
    WHERE subject = :identity_id AND (recorded_at, id) < (:before_at, :before_id)
    ORDER BY recorded_at DESC, id DESC
    LIMIT :newest
""")  # noqa: S608  # all of it is ours

# An event is recorded soon after it occurred, and what it causes soon after that: a person's other
# events, which may be many, are not looked at.
OF_MOMENT = text("""
    WITH later AS (
        SELECT * FROM kratos_sync.events
        WHERE subject = :identity_id
          AND recorded_at > CAST(:occurred_at AS timestamptz) - interval '1 hour'
        ORDER BY recorded_at, id LIMIT 1000
    )
    SELECT id, name, source, occurred_at, recorded_at, erased_at, hook
    FROM later WHERE occurred_at = :occurred_at ORDER BY recorded_at, id LIMIT 50
""")

RECORDED = text("SELECT count(*) FROM kratos_sync.events WHERE subject = :identity_id")

ATTEMPTS = text("""
    SELECT event_id, consumer, number, outcome, started_at, duration, error
    FROM kratos_sync.attempts WHERE event_id = ANY(:event_ids)
    ORDER BY id
""")

OUTSTANDING = text("""
    SELECT event_id, consumer, attempts, due_at, leased, failed_at, last_error,
           error_shape
    FROM kratos_sync.deliveries WHERE event_id = ANY(:event_ids)
""")


COPY = text("""
    SELECT CAST(to_jsonb(i) - CAST(:internal AS text[]) AS text)
    FROM kratos_sync.kratos_identities i WHERE id = :identity_id
""").bindparams(internal=["footprint", "part_recency", "exact_at", "exact_numbers"])

# Each part by an index of its own: that of the addresses has the values of all of a row's.
FIND = text("""
    SELECT id FROM kratos_sync.kratos_identities WHERE id = :id
    UNION SELECT subject FROM (
        SELECT subject FROM kratos_sync.events WHERE subject = :id LIMIT 1
    ) AS recorded
    UNION SELECT id FROM kratos_sync.kratos_identities WHERE external_id = :known
    UNION SELECT id FROM kratos_sync.kratos_identities
    WHERE jsonb_path_query_array(
        coalesce(verifiable_addresses, '[]') || coalesce(recovery_addresses, '[]'), '$[*].value'
    ) ?| :addresses
    LIMIT :most
""")


class PostgresIdentitySearch:
    """The IdentitySearch port."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def find(self, known: str, most: int) -> Sequence[UUID]:
        asked = {
            "id": from_text(known.lower()),
            "known": known,
            "addresses": list({known, known.lower()}),
            "most": most,
        }
        with snapshot(self._engine) as connection:
            return connection.execute(FIND, asked).scalars().all()


class PostgresHistory:
    """The History port."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def of(
        self, identity_id: UUID, newest: int, before: Position | None = None
    ) -> IdentityHistory | None:
        person = {"identity_id": identity_id}
        before = before or END
        wanted = {**person, "newest": newest, "before_at": before[0], "before_id": before[1]}
        with snapshot(self._engine) as connection:
            now = connection.execute(text("SELECT now()")).scalar_one()
            identity = connection.execute(IDENTITY, person).one_or_none()
            rows = connection.execute(EVENTS, wanted).all()
            recorded: int = connection.execute(RECORDED, person).scalar_one()
            if identity is None and not recorded:
                return None
            erasure = erasure_of(connection, identity_id)
            deliveries = deliveries_of(connection, [row.id for row in rows])
        return IdentityHistory(
            identity_id=identity_id,
            at=now,
            identity=None if identity is None else IdentitySummary(*identity),
            recorded=recorded,
            events=_events(rows[::-1], deliveries),
            erasure=erasure,
        )

    def of_moment(self, identity_id: UUID, occurred_at: datetime) -> tuple[RecordedEvent, ...]:
        asked = {"identity_id": identity_id, "occurred_at": occurred_at}
        with snapshot(self._engine) as connection:
            rows = connection.execute(OF_MOMENT, asked).all()
            return _events(rows, deliveries_of(connection, [row.id for row in rows]))

    def copy_of(self, identity_id: UUID) -> dict[str, Json]:
        with snapshot(self._engine) as connection:
            copy = connection.execute(COPY, {"identity_id": identity_id}).scalar_one_or_none()
        columns: dict[str, Json] = {} if copy is None else json.loads(copy)
        return columns


def _events(
    rows: Sequence[Row[Any]], deliveries: Mapping[UUID, tuple[Delivery, ...]]
) -> tuple[RecordedEvent, ...]:
    return tuple(
        RecordedEvent(
            row.id,
            row.name,
            row.source,
            row.occurred_at,
            row.recorded_at,
            deliveries.get(row.id, ()),
            row.erased_at,
            row.hook,
        )
        for row in rows
    )


def deliveries_of(
    connection: Connection, event_ids: Sequence[UUID]
) -> dict[UUID, tuple[Delivery, ...]]:
    """For each of these events its deliveries: attempts, and what is pending."""
    attempts: dict[tuple[UUID, str], list[Attempt]] = defaultdict(list)
    for event_id, consumer, *attempt in connection.execute(ATTEMPTS, {"event_ids": event_ids}):
        attempts[event_id, consumer].append(Attempt(*attempt))
    outstanding = {
        (event_id, consumer): Outstanding(*row)
        for event_id, consumer, *row in connection.execute(OUTSTANDING, {"event_ids": event_ids})
    }
    deliveries: dict[UUID, tuple[Delivery, ...]] = defaultdict(tuple)
    for key in sorted(attempts.keys() | outstanding.keys()):
        event_id, consumer = key
        delivery = Delivery(consumer, tuple(attempts.get(key, ())), outstanding.get(key))
        deliveries[event_id] += (delivery,)
    return deliveries
