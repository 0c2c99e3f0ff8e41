"""Searching the log of events in PostgreSQL: by its index on time, a bounded part at a time."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict
from typing import Final
from uuid import UUID

from sqlalchemy import Engine, text

from kratos_sync.application.ports.event_search import (
    DEAD,
    PENDING,
    EventFilter,
    FoundEvent,
    FoundEvents,
)
from kratos_sync.application.ports.replay import BEGIN, END, Position
from kratos_sync.infrastructure.ledger.snapshot import snapshot
from kratos_sync.infrastructure.postgres.engine import BY_THE_INDEX

MOST_READ: Final = 2_000
"""How many events a page searches."""

_OF_CONSUMER: Final = "AND d.consumer = coalesce(CAST(:consumer AS text), d.consumer)"
_IS_IN: Final = f"""
    EXISTS (SELECT FROM kratos_sync.deliveries d WHERE d.event_id = e.id {_OF_CONSUMER}
            AND {{state}})
"""
_WAS: Final = f"""
    EXISTS (SELECT FROM kratos_sync.attempts d WHERE d.event_id = e.id {_OF_CONSUMER}
            AND d.outcome = coalesce(CAST(:outcome AS text), d.outcome))
"""
_STATES: Final = {PENDING: "d.failed_at IS NULL", DEAD: "d.failed_at IS NOT NULL"}
_CONDITIONS: Final = {
    "name": "e.name = :name",
    "source": "e.source = :source",
    "hook": "e.hook = :hook",
    "trace_id": "split_part(e.trace_context, '-', 2) = :trace_id",
}
_RANGE: Final = """
    (e.recorded_at, e.id) < (:before_at, :before_id)
    AND e.recorded_at < coalesce(CAST(:until AS timestamptz), 'infinity')
    AND e.recorded_at >= coalesce(CAST(:since AS timestamptz), '-infinity')
"""
LAST_SEARCHED: Final = text(f"""
    SELECT e.recorded_at, e.id FROM kratos_sync.events e WHERE {_RANGE}
    ORDER BY e.recorded_at DESC, e.id DESC OFFSET :read - 1 LIMIT 1
""")  # noqa: S608  # every part is ours
# The lower bound is there twice: at that of both columns alone the scan of the index does not end.
SEARCH: Final = f"""
    SELECT e.id, e.name, e.subject, e.source, e.hook, e.recorded_at FROM kratos_sync.events e
    WHERE {_RANGE} AND e.recorded_at >= :last_at
      AND (e.recorded_at, e.id) >= (:last_at, :last_id) {{conditions}}
    ORDER BY e.recorded_at DESC, e.id DESC LIMIT :most
"""  # noqa: S608  # every part is ours
STATES: Final = text("""
    SELECT event_id, consumer, failed_at IS NOT NULL
    FROM kratos_sync.deliveries WHERE event_id = ANY(:event_ids) ORDER BY consumer
""")


class PostgresEventSearch:
    """The EventSearch port."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def newest(self, wanted: EventFilter, most: int, before: Position | None) -> FoundEvents:
        before = before or END
        asked = {**asdict(wanted), "before_at": before.recorded_at, "before_id": before.event_id}
        with snapshot(self._engine) as connection:
            connection.execute(BY_THE_INDEX)
            row = connection.execute(LAST_SEARCHED, {**asked, "read": MOST_READ}).one_or_none()
            last = None if row is None else Position(*row)
            bound = last or BEGIN
            statement = text(SEARCH.format(conditions=" ".join(_conditions(wanted))))
            found = connection.execute(
                statement,
                {**asked, "most": most, "last_at": bound.recorded_at, "last_id": bound.event_id},
            ).all()
            states: dict[UUID, dict[str, str]] = defaultdict(dict)
            ids = {"event_ids": [row.id for row in found]}
            for event_id, consumer, is_dead in connection.execute(STATES, ids):
                states[event_id][consumer] = DEAD if is_dead else PENDING
        events = [FoundEvent._make([*row, states[row.id]]) for row in found]
        if len(events) == most:
            last = Position(events[-1].recorded_at, events[-1].id)
        return FoundEvents(events, last)


def _conditions(wanted: EventFilter) -> Iterator[str]:
    yield from (
        f"AND {condition}" for name, condition in _CONDITIONS.items() if getattr(wanted, name)
    )
    if wanted.outcome in _STATES:
        yield f"AND {_IS_IN.format(state=_STATES[wanted.outcome])}"
    elif wanted.outcome:
        yield f"AND {_WAS}"
    elif wanted.consumer:
        yield f"AND ({_IS_IN.format(state='true')} OR {_WAS})"
