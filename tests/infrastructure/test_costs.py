"""What a batch costs, counted: what time would show only on a quiet machine."""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine

from kratos_sync.application.application import Subscriptions
from kratos_sync.application.consumers.sync_kratos_identity import SyncKratosIdentity
from kratos_sync.application.pipeline import Batch, deliver
from kratos_sync.application.subscriptions import SUBSCRIPTIONS
from kratos_sync.infrastructure.bus.redis import WakefulRedisBroker
from kratos_sync.infrastructure.bus.relay import Relay
from kratos_sync.infrastructure.deletion import AWAITED
from kratos_sync.infrastructure.identities.recorded_webhooks import AFTER, AFTER_ANSWERS
from kratos_sync.infrastructure.identities.rows import LOAD, STORE
from kratos_sync.infrastructure.kratos.refetch import ANSWERED
from kratos_sync.infrastructure.ledger.claims import CLAIM, CLAIM_IN_ORDER, PostgresClaims
from kratos_sync.infrastructure.ledger.inbox import OPEN, POSTPONE, SETTLE, WAKE
from kratos_sync.infrastructure.ledger.notifications import WakeUpListener
from kratos_sync.infrastructure.ledger.recording import RECORD
from kratos_sync.infrastructure.reconciliation.comparison import COMPARE, COMPARE_NOTHING, PENDING
from tests.domain.people import cause
from tests.infrastructure.statements import statements
from tests.suites.ledgers import PostgresLedger, policies_of
from tests.suites.occurrences import WEBHOOK, person, updated

BYTES_PER_EVENT = 40
"""An id as text is 36 bytes, its quotes and comma four more."""
BYTES_PER_MESSAGE = 400


@pytest.fixture
def ledger(engine: Engine) -> PostgresLedger:
    return PostgresLedger(engine)


def received_about(ledger: PostgresLedger, people: Sequence[UUID], first: int = 1) -> list[UUID]:
    events = [cause(number) for number in range(first, first + len(people))]
    for number, who in enumerate(people, start=first):
        assert ledger.publish(updated(number, who), WEBHOOK)
    return events


def asked_by(ledger: PostgresLedger, events: Sequence[UUID]) -> list[str]:
    """What delivering these events in one batch asks of PostgreSQL, each by its first words."""
    before = len(ledger.attempts)
    with statements() as seen:
        deliver(Batch(SyncKratosIdentity, events, ledger.unit_of_work(), ledger))
    assert len(ledger.attempts) == before + len(events)
    return [" ".join(statement.split()[:2]) for statement in seen]


@pytest.mark.parametrize("size", [1, 20, 100])
def test_a_batch_of_new_people_takes_nine_statements_however_many_they_are(
    ledger: PostgresLedger, size: int
) -> None:
    events = received_about(ledger, [person(number) for number in range(size)])

    assert asked_by(ledger, events) == [
        ";",  # is the connection alive?
        "SELECT set_config('statement_timeout',",
        "SELECT e.id,",  # lock the deliveries, load the events
        "SELECT id,",  # load the identities
        "SELECT pg_advisory_xact_lock(key)",  # wait for whoever adds the same ones
        "SELECT id,",
        "WITH event",  # record the facts and their deliveries
        "WITH settled",  # remove the deliveries, log the attempts
        "INSERT INTO",  # write the identities
    ]


def test_a_batch_that_changes_nothing_takes_five(ledger: PostgresLedger) -> None:
    people = [person(number) for number in range(100)]
    asked_by(ledger, received_about(ledger, people))

    stale = received_about(ledger, people, first=200)
    ledger.query("UPDATE kratos_sync.kratos_identities SET updated_at = updated_at + '1 year'")

    assert len(asked_by(ledger, stale)) == 5


STATEMENTS: dict[str, str | bytes] = {
    "record": RECORD,
    "claim": CLAIM,
    "claim in order": CLAIM_IN_ORDER,
    "open": OPEN,
    "wake": WAKE,
    "settle": SETTLE,
    "postpone": POSTPONE,
    "load": LOAD,
    "store": STORE,
    "compare": COMPARE,
    "compare ids": COMPARE_NOTHING,
    "pending of a page": PENDING,
    "answered": ANSWERED,
    "awaited": AWAITED,
    "webhooks after": AFTER,
    "webhooks after answers": AFTER_ANSWERS,
}
LARGE = ("events", "deliveries", "attempts", "kratos_identities", "kratos_answers")
DUE = {"deliveries_due", "deliveries_leased", "deliveries_large", "deliveries_unattempted"}
BY_THE_WHOLE = {
    # In the order of an index, up to a limit: these find what is due.
    "claim": DUE,
    "claim in order": DUE,
}


def scans(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The nodes of a plan that read a table."""
    if "Relation Name" in plan and plan["Node Type"] != "ModifyTable":
        yield plan
    for below in plan.get("Plans", ()):
        yield from scans(below)


@pytest.mark.parametrize("statement", STATEMENTS)
@pytest.mark.parametrize("believed", ["empty", "empty and vacuumed"])
def test_no_statement_reads_a_whole_table(engine: Engine, statement: str, believed: str) -> None:
    """Not even planned while PostgreSQL believes that all tables are empty.

    Such a plan is kept when they no longer are; and a vacuum beside a large transaction leaves a
    large table with no rows in the statistics.
    """
    given = STATEMENTS[statement]
    text = given if isinstance(given, str) else given.decode()
    with engine.connect() as connection:
        if believed == "empty and vacuumed":
            connection.exec_driver_sql(
                "UPDATE pg_class SET reltuples = 0, relpages = 100000"
                f" WHERE relnamespace = 'kratos_sync'::regnamespace AND relname IN {LARGE}"
            )
        found = connection.exec_driver_sql(f"EXPLAIN (GENERIC_PLAN, FORMAT JSON) {text}")
        plan = found.scalar_one()[0]["Plan"]

    read = [each for each in scans(plan) if each["Relation Name"] in LARGE]
    assert read or statement in {"record", "store"}
    for each in read:
        by_index = {"Index Cond", "TID Cond", "Recheck Cond"} & each.keys()
        assert by_index or each["Index Name"] in BY_THE_WHOLE.get(statement, ()), each


def test_a_dispatch_takes_few_statements_each_on_a_live_connection_and_few_bytes(
    ledger: PostgresLedger, broker: WakefulRedisBroker, database_url: str, engine: Engine
) -> None:
    received_about(ledger, [person(number) for number in range(250)])
    engine.connect().close()  # what SQLAlchemy asks on its first connection
    claims = PostgresClaims(engine, timedelta(seconds=30))
    relay = Relay(
        claims,
        broker,
        WakeUpListener(SecretStr(database_url)),
        Subscriptions(SUBSCRIPTIONS),
        policies_of(claims),
    )

    with statements() as seen:
        relay.turn()

    asked = Counter(" ".join(statement.split()[:2]) for statement in seen)
    queue = f"{broker.namespace}:{SyncKratosIdentity.name}.msgs"
    messages = list(broker.client.hgetall(queue).values())
    # The policies are read every half second.
    assert asked == {";": 3, "SELECT consumer,": 1, "SELECT wanted.name,": 1, "WITH expired": 1}
    assert len(messages) == -(-250 // SyncKratosIdentity.batch_size)
    assert sum(map(len, messages)) <= len(messages) * BYTES_PER_MESSAGE + 250 * BYTES_PER_EVENT
