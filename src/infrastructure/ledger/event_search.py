"""Searching the log of events in PostgreSQL: by its index on time, a bounded part at a time."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final
from uuid import UUID

from sqlalchemy import Connection, Engine, text

from kratos_sync.application.ports.activity import FAILURES
from kratos_sync.application.ports.event_search import (
    DEAD,
    FAILED,
    MOST_READ,
    PENDING,
    EventFilter,
    FoundEvent,
    FoundEvents,
)
from kratos_sync.application.ports.position import BEGIN, END, Position
from kratos_sync.infrastructure.ledger.snapshot import snapshot
from kratos_sync.infrastructure.postgres.engine import BY_THE_INDEX

FEW: Final = 500
"""So many deliveries are looked through in place of the log."""

_STATES: Final = {PENDING: "d.failed_at IS NULL", DEAD: "d.failed_at IS NOT NULL"}
# An index leads to each part of those that are pending.
_PARTS: Final = {
    PENDING: ("d.failed_at IS NULL AND NOT d.leased", "d.failed_at IS NULL AND d.leased"),
    DEAD: (_STATES[DEAD],),
}
_OF_CONSUMER: Final = "d.consumer = coalesce(CAST(:of_consumer AS text), d.consumer)"
ORIGIN: Final = {
    "name": "e.name = :name",
    "source": "e.source = :source",
    "hook": "e.hook = :hook",
    "trace_id": "split_part(e.trace_context, '-', 2) = :trace_id",
}
"""Conditions on ``events e`` by the field that is set."""
_RANGE: Final = """
    (e.recorded_at, e.id) < (:before_at, :before_id)
    AND e.recorded_at < coalesce(CAST(:until AS timestamptz), 'infinity')
    AND e.recorded_at >= coalesce(CAST(:since AS timestamptz), '-infinity')
"""
# The last that is searched, and whether there is one more.
LAST_SEARCHED: Final = text(f"""
    SELECT e.recorded_at, e.id FROM kratos_sync.events e WHERE {_RANGE}
    ORDER BY e.recorded_at DESC, e.id DESC OFFSET :read - 1 LIMIT 2
""")  # noqa: S608  # every part is ours
# The lower bound is there twice: at that of both columns alone the scan of the index does not end.
_IN_LOG: Final = "e.recorded_at >= :last_at AND (e.recorded_at, e.id) >= (:last_at, :last_id)"
_AMONG: Final = "e.id = ANY(:event_ids)"
SEARCH: Final = f"""
    SELECT e.id, e.name, e.subject, e.source, e.hook, e.recorded_at FROM kratos_sync.events e
    WHERE {_RANGE} AND {{conditions}}
    ORDER BY e.recorded_at DESC, e.id DESC LIMIT :most
"""  # noqa: S608  # every part is ours
STATES: Final = text("""
    SELECT event_id, consumer, failed_at IS NOT NULL
    FROM kratos_sync.deliveries WHERE event_id = ANY(:event_ids) ORDER BY consumer
""")


def outcome_conditions(outcome: str | None, consumer: str | None) -> Sequence[str]:
    """Conditions on ``events e``: what became of an event, at any consumer or at this one."""
    state = _STATES.get(outcome or "", "true")
    is_in = f"""
        EXISTS (SELECT FROM kratos_sync.deliveries d
                WHERE d.event_id = e.id AND {_OF_CONSUMER} AND {state})
    """
    was = f"""
        EXISTS (SELECT FROM kratos_sync.attempts d
                WHERE d.event_id = e.id AND {_OF_CONSUMER}
                  AND (CAST(:outcomes AS text[]) = '{{}}' OR d.outcome = ANY(:outcomes)))
    """
    if outcome in _STATES:
        return [is_in]
    if outcome is not None:
        return [was]
    return [f"({is_in} OR {was})"] if consumer is not None else []


def outcome_parameters(outcome: str | None, consumer: str | None) -> dict[str, object]:
    """Of these conditions: an attempt also failed if it was the last."""
    outcomes = FAILURES if outcome == FAILED else [] if outcome is None else [outcome]
    return {"of_consumer": consumer, "outcomes": list(outcomes)}


class PostgresEventSearch:
    """The EventSearch port."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def newest(
        self, wanted: EventFilter, most: int, before: Position | None, read: int = MOST_READ
    ) -> FoundEvents:
        before = before or END
        asked = {
            **asdict(wanted),
            **outcome_parameters(wanted.outcome, wanted.consumer),
            "before_at": before.recorded_at,
            "before_id": before.event_id,
            "most": most + 1,
        }
        conditions = [
            *(condition for name, condition in ORIGIN.items() if getattr(wanted, name)),
            *outcome_conditions(wanted.outcome, wanted.consumer),
        ]
        with snapshot(self._engine) as connection:
            connection.execute(BY_THE_INDEX)
            last = None
            if (few := _few(connection, wanted)) is not None:
                conditions.append(_AMONG)
                asked["event_ids"] = few
            else:
                searched = connection.execute(LAST_SEARCHED, {**asked, "read": read}).all()
                last = Position(*searched[0]) if len(searched) > 1 else None
                bound = last or BEGIN
                conditions.append(_IN_LOG)
                asked |= {"last_at": bound.recorded_at, "last_id": bound.event_id}
            statement = text(SEARCH.format(conditions=" AND ".join(conditions)))
            found = connection.execute(statement, asked).all()
            if len(found) > most:
                found = found[:most]
                last = Position(found[-1].recorded_at, found[-1].id)
            states: dict[UUID, dict[str, str]] = defaultdict(dict)
            ids = {"event_ids": [row.id for row in found]}
            for event_id, consumer, is_dead in connection.execute(STATES, ids):
                states[event_id][consumer] = DEAD if is_dead else PENDING
        return FoundEvents([FoundEvent._make([*row, states[row.id]]) for row in found], last)


def _few(connection: Connection, wanted: EventFilter) -> list[UUID] | None:
    """The events of the deliveries in the state that is wanted, unless they are many."""
    parts = _PARTS.get(wanted.outcome or "", ())
    of_consumer = "true" if wanted.consumer is None else "d.consumer = :consumer"
    found = set[UUID]()
    for part in parts:
        statement = f"""
            SELECT d.event_id FROM kratos_sync.deliveries d WHERE {part} AND {of_consumer}
            LIMIT :few
        """  # noqa: S608  # every part is ours
        asked = {"few": FEW + 1 - len(found), "consumer": wanted.consumer}
        found |= set(connection.execute(text(statement), asked).scalars())
        if len(found) > FEW:
            return None
    return list(found) if parts else None
