"""An application's own code says that it has changed an identity, in its own transaction."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.rows import dict_row
from sqlalchemy import Engine, create_engine, make_url
from sqlalchemy.orm import Session

from kratos_sync.application.consumer import Consumer
from kratos_sync.application.consumers.fetch_kratos_identity import FetchKratosIdentity
from kratos_sync.application.pipeline import Batch, deliver
from kratos_sync.application.trace_context import WELL_FORMED
from kratos_sync.domain.events import KratosIdentityHinted
from kratos_sync.infrastructure.kratos.refetch import identity_changed
from kratos_sync.infrastructure.ledger.notifications import CHANNEL
from tests.domain.people import ADA, document
from tests.suites.ledgers import PostgresLedger
from tests.suites.occurrences import subscribed
from tests.waiting import DEADLINE_SECONDS

CALL = "SELECT kratos_sync.identity_changed(%s)"
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def ledger(engine: Engine) -> PostgresLedger:
    return PostgresLedger(engine)


@pytest.fixture
def applications(database_url: str) -> "Iterator[Engine]":
    """An application's own connections."""
    url = make_url(database_url).set(drivername="postgresql+psycopg")
    engine = create_engine(url)
    yield engine
    engine.dispose()


def by_psycopg(engine: Engine, traceparent: str | None = None) -> UUID:
    with psycopg.connect(_dsn(engine), row_factory=dict_row) as connection:
        return identity_changed(connection, ADA, traceparent)


def by_connection(engine: Engine, traceparent: str | None = None) -> UUID:
    with engine.begin() as connection:
        return identity_changed(connection, ADA, traceparent)


def by_session(engine: Engine, traceparent: str | None = None) -> UUID:
    with Session(engine) as session, session.begin():
        return identity_changed(session, ADA, traceparent)


def _dsn(engine: Engine) -> str:
    url = engine.url.set(drivername="postgresql")
    return url.render_as_string(hide_password=False)


@pytest.mark.parametrize("say", [by_psycopg, by_connection, by_session])
def test_a_hint_and_its_deliveries_are_committed_with_the_application(
    ledger: PostgresLedger, applications: Engine, say: Callable[[Engine], UUID]
) -> None:
    event_id = say(applications)

    (event,) = ledger.events.values()
    assert event.id == event_id
    assert (event.name, event.subject, event.source) == (
        KratosIdentityHinted.name,
        ADA,
        "application",
    )
    assert list(ledger.deliveries) == [(FetchKratosIdentity.name, event_id)]


def test_the_hint_is_consumed_like_any_other(ledger: PostgresLedger, applications: Engine) -> None:
    ledger.kratos.people.put(document())
    event_id = by_connection(applications)

    deliver(Batch(FetchKratosIdentity, [event_id], ledger.unit_of_work(), ledger))

    assert [event.name for event in ledger.events.values()] == [
        "kratos_identity.hinted",
        "kratos_identity.updated",
    ]


def test_a_hint_that_is_rolled_back_was_never_recorded(
    ledger: PostgresLedger, applications: Engine
) -> None:
    with applications.connect() as connection:
        identity_changed(connection, ADA)
        connection.rollback()

    assert not ledger.events
    assert not ledger.deliveries


def test_the_event_s_id_is_a_uuid_of_its_moment(applications: Engine) -> None:
    event_id = by_connection(applications)

    assert (event_id.version, event_id.variant) == (7, "specified in RFC 4122")
    moment = datetime.fromtimestamp((event_id.int >> 80) / 1000, UTC)
    assert abs(datetime.now(UTC) - moment) < timedelta(seconds=10)


def test_a_hint_counts_from_its_call_and_not_from_the_transaction(
    ledger: PostgresLedger, applications: Engine
) -> None:
    with applications.begin() as connection:
        began = connection.exec_driver_sql("SELECT now()").scalar_one()
        identity_changed(connection, ADA)

    (row,) = ledger.query("SELECT owed_at, due_at FROM kratos_sync.deliveries")
    assert row["owed_at"] == row["due_at"] > began


def test_the_relay_is_woken_by_the_commit(database_url: str, applications: Engine) -> None:
    with psycopg.connect(database_url, autocommit=True) as listener:
        listener.execute(f"LISTEN {CHANNEL}")
        by_connection(applications)
        notified = list(listener.notifies(timeout=DEADLINE_SECONDS, stop_after=1))

    assert [notice.channel for notice in notified] == [CHANNEL]


@pytest.mark.parametrize("nobody", [None, UUID(int=0)])
def test_the_nil_id_is_refused(database_url: str, nobody: UUID | None) -> None:
    with (
        psycopg.connect(database_url) as connection,
        pytest.raises(psycopg.errors.InvalidParameterValue, match="neither NULL nor all zeros"),
    ):
        connection.execute(CALL, [nobody])


@pytest.fixture
def application(database_url: str) -> Iterator[str]:
    """A role that has no rights but to use the schema."""
    role = f"application_{uuid4().hex[:8]}"
    with psycopg.connect(database_url, autocommit=True) as superuser:
        superuser.execute(f"CREATE ROLE {role}".encode())
        superuser.execute(f"GRANT USAGE ON SCHEMA kratos_sync TO {role}".encode())
        yield role
        superuser.execute(f"DROP OWNED BY {role}".encode())
        superuser.execute(f"DROP ROLE {role}".encode())


def as_role(database_url: str, role: str, *statements: str) -> Any:
    with psycopg.connect(database_url) as connection:
        connection.execute(f"SET ROLE {role}".encode())
        for statement in statements:
            connection.execute(statement.encode())
        return connection.execute(CALL, [ADA]).fetchone()


def test_only_a_role_with_the_grant_may_call_it(database_url: str, application: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        as_role(database_url, application)


def test_the_grant_alone_is_enough(
    ledger: PostgresLedger, database_url: str, application: str
) -> None:
    ledger.query(f"GRANT EXECUTE ON FUNCTION kratos_sync.identity_changed TO {application}")

    assert as_role(database_url, application)

    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        as_role(database_url, application, "SELECT FROM kratos_sync.events")


def test_a_caller_s_own_functions_are_not_run_with_the_owner_s_rights(
    ledger: PostgresLedger, database_url: str, application: str
) -> None:
    ledger.query(f"GRANT EXECUTE ON FUNCTION kratos_sync.identity_changed TO {application}")
    ledger.query(f"CREATE SCHEMA AUTHORIZATION {application}")
    mine = (
        f"CREATE FUNCTION {application}.pg_notify(text, text) RETURNS void LANGUAGE plpgsql"
        " AS $$ BEGIN RAISE 'run as %', current_user; END $$"
    )
    mine_first = f"SET search_path = {application}, pg_catalog"

    assert as_role(database_url, application, mine, mine_first)


class NoticeHints(Consumer[KratosIdentityHinted]):
    name = "NoticeHints"

    def consume(self, event: KratosIdentityHinted) -> None:
        raise NotImplementedError


def test_every_subscribed_consumer_receives_what_the_function_records(
    ledger: PostgresLedger, applications: Engine
) -> None:
    with subscribed(ledger, KratosIdentityHinted, FetchKratosIdentity, NoticeHints):
        event_id = by_connection(applications)

    assert sorted(ledger.deliveries) == [
        (FetchKratosIdentity.name, event_id),
        (NoticeHints.name, event_id),
    ]


@pytest.mark.parametrize("say", [by_psycopg, by_connection, by_session])
def test_a_hint_carries_the_trace_of_whoever_gives_it(
    ledger: PostgresLedger, applications: Engine, say: Callable[[Engine, str], UUID]
) -> None:
    say(applications, TRACEPARENT)

    (event,) = ledger.events.values()
    assert event.traceparent == TRACEPARENT


def test_a_transaction_names_the_trace_of_all_that_it_records(
    ledger: PostgresLedger, applications: Engine
) -> None:
    with applications.begin() as connection:
        connection.exec_driver_sql(f"SET LOCAL kratos_sync.traceparent = '{TRACEPARENT}'")
        identity_changed(connection, ADA)
        connection.exec_driver_sql("SELECT kratos_sync.delete_identity(%s)", (ADA,))
    by_connection(applications)

    assert {(event.name, event.traceparent) for event in ledger.events.values()} == {
        ("kratos_identity.hinted", TRACEPARENT),
        ("identity.deletion_requested", TRACEPARENT),
        ("kratos_identity.hinted", None),
    }


@pytest.mark.parametrize(
    "said",
    [
        "",
        "ada@example.org",
        TRACEPARENT.upper(),
        f"{TRACEPARENT}-extra",
        f" {TRACEPARENT}",
        f"{TRACEPARENT}\n",
        TRACEPARENT.replace("00-4", "ff-4"),
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-4bf92f3577b34da6a3ce929d0e0e4736-{'0' * 16}-01",
    ],
)
def test_only_a_well_formed_trace_is_kept(
    ledger: PostgresLedger, applications: Engine, said: str
) -> None:
    by_psycopg(applications, said)

    (event,) = ledger.events.values()
    assert event.traceparent is None
    assert WELL_FORMED.fullmatch(said) is None
