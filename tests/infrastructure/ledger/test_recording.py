"""Events as parameters."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine

from kratos_sync.application.consumer import Consumer
from kratos_sync.application.consumers.sync_kratos_identity import SyncKratosIdentity
from kratos_sync.application.ports.event_bus import Provenance
from kratos_sync.domain.events import KratosIdentityUpdated
from kratos_sync.infrastructure.ledger.recording import (
    RECORD,
    EventRow,
    arrays_of,
)
from tests.domain.people import GRACE, cause
from tests.suites.ledgers import PostgresLedger
from tests.suites.occurrences import gone, person, snapshot_of, subscribed, updated
from tests.suites.publishing import unread

EVENTS = [
    (updated(1, traits={"name": "Zoë ☃"}), Provenance("webhook", "ключ", "00-1-2-01")),
    (gone(2, GRACE), Provenance("Ünïcode")),
    *((updated(number, person(number)), Provenance("test")) for number in range(3, 50)),
]
IN_SYRACUSE = timezone(timedelta(hours=-5))
TIMES = [
    datetime(2000, 1, 1, tzinfo=UTC),
    datetime(1999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    datetime(2026, 11, 23, 4, 37, 43, 123457, tzinfo=IN_SYRACUSE),
    datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    datetime(1, 1, 1, tzinfo=UTC),
]


class NoticeUpdates(Consumer[KratosIdentityUpdated]):
    name = "NoticeUpdates"

    def consume(self, event: KratosIdentityUpdated) -> None:
        raise NotImplementedError


@pytest.fixture
def rows() -> list[EventRow]:
    return [EventRow.of(event, provenance) for event, provenance in EVENTS]


def test_recorded_events_and_deliveries_stand_in_the_ledger(
    rows: list[EventRow], database_url: str, engine: Engine
) -> None:
    two = (SyncKratosIdentity, NoticeUpdates)
    with (
        subscribed(PostgresLedger(engine), KratosIdentityUpdated, *two),
        psycopg.connect(database_url, autocommit=True) as connection,
    ):
        values = arrays_of(rows)
        result = connection.pgconn.exec_params(RECORD, values, param_formats=[1] * 10)
        assert result.ntuples == len(EVENTS), result.error_message
        assert written(connection) == expected()
        deliveries = connection.execute(
            "SELECT event_id, subject, consumer FROM kratos_sync.deliveries"
        ).fetchall()
    wanted = {
        (event.id, event.subject, consumer)
        for event, _ in EVENTS
        for consumer in (
            ["SyncKratosIdentity", "NoticeUpdates"]
            if isinstance(event, KratosIdentityUpdated)
            else ["DeleteKratosIdentity"]
        )
    }
    assert set(deliveries) == wanted
    assert len(deliveries) == len(wanted)


@pytest.mark.parametrize("moment", TIMES)
def test_times_are_exact_to_the_microsecond(moment: datetime, database_url: str) -> None:
    event = KratosIdentityUpdated(cause(1), moment, snapshot_of(GRACE))
    row = EventRow.of(event, Provenance("test"))
    assert stored(database_url, "timestamptz[]", arrays_of([row])[3], "= ARRAY[%s]", moment)


def test_a_payload_is_taken_as_it_is_where_it_is_given() -> None:
    event = updated(1)
    text = json.dumps(event.to_json(), indent=2).encode()
    assert EventRow.of(unread(event, text), Provenance("test")).payload[4:] == text


def test_what_json_cannot_hold_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="JSON"):
        EventRow.of(updated(1, traits={"n": float("nan")}), Provenance("test"))


def stored(url: str, kind: str, encoded: bytes, condition: str, value: object) -> Any:
    """What a condition on an encoded value is when the server has read it."""
    with psycopg.connect(url) as connection:
        result = connection.pgconn.exec_params(
            f"SELECT $1::{kind}::text".encode(), [encoded], param_formats=[1]
        )
        text = result.get_value(0, 0)
        assert text is not None, result.error_message
        statement = f"SELECT %s::{kind} {condition}"
        row = connection.execute(statement.encode(), [text.decode(), value]).fetchone()
        return row is not None and row[0]


def written(connection: psycopg.Connection[Any]) -> list[Any]:
    return connection.execute(
        "SELECT id, name, subject, occurred_at, payload, source, dedupe_key, trace_context"
        " FROM kratos_sync.events ORDER BY id"
    ).fetchall()


def expected() -> list[Any]:
    return [
        (
            event.id,
            event.name,
            event.subject,
            event.date_occurred,
            event.to_json(),
            provenance.source,
            provenance.dedupe_key,
            provenance.traceparent,
        )
        for event, provenance in EVENTS
    ]
