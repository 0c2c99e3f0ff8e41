"""Under a role of its own the console serves every page, and carries out every action."""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from http import HTTPStatus
from typing import NamedTuple
from uuid import UUID, uuid4

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, make_url, text
from starlette.applications import Starlette

from kratos_sync.api.http.console.app import ConsoleRoute
from kratos_sync.api.http.console.rates import Rates
from kratos_sync.application.consumers.count_registrations import CountRegistrations
from kratos_sync.application.consumers.delete_kratos_identity import DeleteKratosIdentity
from kratos_sync.application.consumers.fetch_kratos_identity import FetchKratosIdentity
from kratos_sync.application.consumers.forget_identity import ForgetIdentity
from kratos_sync.application.consumers.sync_kratos_identity import SyncKratosIdentity
from kratos_sync.application.ports.operations import How, OperationRequest
from kratos_sync.domain.events import DomainEvent, IdentityDeletionRequested, IdentityRegistered
from kratos_sync.infrastructure.container import Container
from kratos_sync.infrastructure.embedded import EmbeddedPostgres
from kratos_sync.infrastructure.ledger.recording import record_many
from kratos_sync.infrastructure.postgres.engine import connect
from kratos_sync.infrastructure.settings import Settings
from kratos_sync.testing.kratos import InMemoryDocuments
from tests.api.cli.invoking import kratos_sync
from tests.api.http.console.visiting import EVERYTHING, Visitor, console_of, open_routes, shown
from tests.databases import empty_tables
from tests.deploy.test_roles import AFTER, BEFORE, BEFORE_OWN
from tests.domain.people import ADA, GRACE, minutes
from tests.environment import application_history, migrate_all
from tests.infrastructure.ledger.rows import SOMEBODY, add_identity
from tests.kratos.admin_stand_in import AdminStandIn
from tests.kratos.persons import person
from tests.suites.occurrences import WEBHOOK, gone, hinted, updated
from tests.waiting import until

ROLE = "kratos_sync_console"
SYNC = SyncKratosIdentity.name
ADDRESS = "grace@example.org"


class Ledger(NamedTuple):
    """What each test finds: Ada and Grace are held, Kratos has Ada alone."""

    url: str
    engine: Engine
    event: UUID
    """Of a webhook, which is a dead letter."""
    operation: int
    """One that runs."""

    def one(self, statement: str) -> object:
        with self.engine.connect() as connection:
            return connection.execute(text(statement)).scalar_one()

    def record(self, event: DomainEvent) -> UUID:
        with self.engine.begin() as connection:
            record_many(connection, [(event, WEBHOOK)])
        return event.id


def url_of(url: str, role: str) -> str:
    return make_url(url).set(username=role).render_as_string(hide_password=False)


@pytest.fixture(scope="module")
def postgres_of_roles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of its own, as roles belong to a whole server, set up as the page says."""
    with EmbeddedPostgres(tmp_path_factory.mktemp("console_role")) as postgres:
        own = application_history()
        with psycopg.connect(postgres.url, autocommit=True) as superuser:
            superuser.execute(BEFORE.encode())
            if own is not None:
                superuser.execute(BEFORE_OWN.replace("acme_sync", own.schema).encode())
        owner = url_of(postgres.url, "kratos_sync_owner")
        migrate_all(owner)
        with psycopg.connect(owner, autocommit=True) as connection:
            connection.execute(AFTER.encode())
        yield postgres.url


@pytest.fixture
def ledger(postgres_of_roles: str) -> Iterator[Ledger]:
    with psycopg.connect(postgres_of_roles, autocommit=True) as superuser:
        superuser.execute("ALTER TABLE kratos_sync.operations DISABLE TRIGGER ALL")
        empty_tables(superuser)
        superuser.execute("ALTER TABLE kratos_sync.operations ENABLE TRIGGER ALL")
    engine = connect(SecretStr(postgres_of_roles), pool_size=2)
    for each in (ADA, GRACE):
        add_identity(engine, each)
    container = Container()
    url = url_of(postgres_of_roles, ROLE)
    container.settings.override(settings(url))
    running = OperationRequest("replay", "cleo", How.CLI, consumer=SYNC)
    found = Ledger(url, engine, updated(1).id, container.operations().begin(running, uuid4(), 10))
    container.engine().dispose()
    found.record(updated(1))
    with engine.begin() as connection:
        connection.execute(
            text("""
                UPDATE kratos_sync.deliveries
                SET failed_at = now() - interval '1 minute', attempts = 12, leased = false,
                    last_error = 'OSError: gone', error_type = 'OSError', error_shape = 'gone'
            """)
        )
        connection.execute(
            text("""
                UPDATE kratos_sync.kratos_identities
                SET verifiable_addresses =
                    jsonb_build_array(jsonb_build_object('value', CAST(:a AS text)))
                WHERE id = :id
            """),
            {"a": ADDRESS, "id": GRACE},
        )
    yield found
    engine.dispose()


def settings(url: str, kratos_url: str | None = None) -> Settings:
    return Settings(
        _env_file=None,
        database_url=url,
        broker_url="redis://127.0.0.1:1",
        kratos_admin_url=kratos_url,
        console_kept_seconds=0,
    )


@pytest.fixture
def container(ledger: Ledger) -> Iterator[Container]:
    with ExitStack() as undo:
        kratos = undo.enter_context(AdminStandIn(InMemoryDocuments([person(ADA)])))
        container = Container()
        container.settings.override(settings(ledger.url, kratos.url))
        undo.callback(container.engine().dispose)
        undo.callback(container.wake_relay().stop)
        yield container


@pytest.fixture
def rates(container: Container) -> Rates:
    return Rates(container.activity())


@pytest.fixture
def routes(container: Container, rates: Rates) -> Iterator[list[ConsoleRoute]]:
    with open_routes(container, rates) as routes:
        yield routes


@pytest.fixture
def app(container: Container, routes: list[ConsoleRoute]) -> Starlette:
    return console_of(container, EVERYTHING, routes)


@pytest.fixture
def visitor(app: Starlette) -> Visitor:
    return Visitor(app)


PAGES = [
    "/",
    "/failures",
    "/failures/{key}",
    "/identity",
    "/identity/{id:uuid}",
    "/events",
    "/events/{id:uuid}",
    "/kratos",
    "/audit",
    "/audit.csv",
    "/audit/{id:int}",
]
"""By GET, as the routes name them."""
FORMS: dict[str, dict[str, str]] = {
    "/consumers/pause": {"consumer": SYNC},
    "/consumers/resume": {"consumer": SYNC},
    "/failures/{key}/retry": {"which": "all"},
    "/failures/{key}/discard": {"which": "one"},
    "/failures/{key}/replay": {"consumer": "CountRegistrations", "confirmed": "yes"},
    "/identity": {"known": ADDRESS},
    "/identity/{id:uuid}/data": {},
    "/identity/{id:uuid}/sync": {},
    "/identity/{id:uuid}/replay": {"consumer": SYNC, "confirmed": "yes"},
    "/identity/{id:uuid}/delete": {},
    "/identity/{id:uuid}/erase": {},
    "/events/replay": {"consumer": SYNC, "since": "2020-01-01T00:00", "confirmed": "yes"},
    "/events/{id:uuid}/data": {},
    "/events/{id:uuid}/try": {"consumer": SYNC},
    "/kratos/check": {"configuration": "selfservice: {}"},
    "/kratos/reconcile": {"allow_deletes": "10"},
    "/kratos/unlisted": {},
    "/audit/{id:int}/stop": {},
}
"""What each route by POST is sent."""
NOT_RECORDED = {"/identity", "/kratos/check", "/audit/{id:int}/stop"}
"""They read, or ask another operation to stop."""


def path_of(route: str, visitor: Visitor, ledger: Ledger) -> str:
    """The route with what is there."""
    identity_or_event = ADA if route.startswith("/identity") else ledger.event
    path = route.replace("{id:uuid}", str(identity_or_event))
    path = path.replace("{id:int}", str(ledger.operation))
    if "{key}" in path:
        found = re.search(r'href="/failures/([0-9a-f]{16})"', visitor.get("/failures").text)
        assert found is not None
        path = path.replace("{key}", found[1])
    return path


def send(route: str, visitor: Visitor, ledger: Ledger, **more: str) -> str:
    """Send the route's form; give the page that follows, once its operation has ended."""
    path = path_of(route, visitor, ledger)
    of_group = shown(visitor, path.rpartition("/")[0]) if "{key}" in route else {}
    form = {"reason": "a test", "ticket": uuid4().hex, **of_group, **FORMS[route], **more}
    answer = visitor.post(path, form)
    if answer.status_code == HTTPStatus.SEE_OTHER:
        where = answer.headers["location"]
        if route not in NOT_RECORDED:
            return until(lambda: None if 'id="stop"' in (page := visitor.get(where).text) else page)
        answer = visitor.get(where)
    assert answer.status_code == HTTPStatus.OK, answer.text
    return answer.text


def test_every_route_of_the_console_is_tried_here(routes: list[ConsoleRoute]) -> None:
    tried = {("GET", path) for path in PAGES} | {("POST", path) for path in FORMS}
    assert {(each.method, each.path) for each in routes} == tried


@pytest.mark.parametrize("route", PAGES)
def test_every_page_is_served(visitor: Visitor, ledger: Ledger, route: str) -> None:
    answer = visitor.get(path_of(route, visitor, ledger))
    assert answer.status_code == HTTPStatus.OK, answer.text


@pytest.mark.parametrize("route", FORMS)
def test_every_action_is_carried_out(visitor: Visitor, ledger: Ledger, route: str) -> None:
    page = send(route, visitor, ledger)
    assert "It would fail" not in page
    if route not in NOT_RECORDED:
        last = "SELECT {} FROM kratos_sync.operations ORDER BY id DESC LIMIT 1"
        assert ledger.one(last.format("outcome")) == "completed", page
        assert ledger.one(last.format("role")) == ROLE


@pytest.mark.parametrize(
    "query", ["name=a", "source=a", "hook=a", f"consumer={SYNC}", "outcome=failed", "outcome=dead"]
)
def test_events_are_searched(visitor: Visitor, query: str) -> None:
    assert visitor.get(f"/events?{query}").status_code == HTTPStatus.OK


def test_a_retried_dead_letter_is_pending_and_a_discarded_one_is_gone(
    visitor: Visitor, ledger: Ledger
) -> None:
    count = "SELECT count(*) FROM kratos_sync.deliveries WHERE failed_at IS {}"
    send("/failures/{key}/retry", visitor, ledger)
    assert (ledger.one(count.format("NULL")), ledger.one(count.format("NOT NULL"))) == (1, 0)
    with ledger.engine.begin() as connection:
        connection.execute(text("UPDATE kratos_sync.deliveries SET failed_at = now()"))
    send("/failures/{key}/discard", visitor, ledger)
    assert ledger.one("SELECT count(*) FROM kratos_sync.deliveries") == 0


def test_a_reconciliation_records_what_differs_and_who_is_deleted(
    visitor: Visitor, ledger: Ledger
) -> None:
    send("/kratos/reconcile", visitor, ledger, dry_run="yes")
    recorded = "SELECT array_agg(name ORDER BY name) FROM kratos_sync.events WHERE source = '{}'"
    assert ledger.one(recorded.format("reconcile")) is None
    send("/kratos/reconcile", visitor, ledger)
    assert ledger.one(recorded.format("reconcile")) == [
        "kratos_identity.gone",
        "kratos_identity.updated",
    ]
    send("/identity/{id:uuid}/sync", visitor, ledger)
    assert ledger.one(recorded.format("sync")) == ["kratos_identity.updated"]


def test_an_erased_person_leaves_a_tombstone_and_no_payload(
    visitor: Visitor, ledger: Ledger
) -> None:
    send("/identity/{id:uuid}/erase", visitor, ledger)
    copy = f"kratos_sync.kratos_identities WHERE id = '{ADA}'"
    assert ledger.one(f"SELECT traits FROM {copy}") is None
    assert ledger.one(f"SELECT forgotten_at IS NOT NULL FROM {copy}")
    assert ledger.one("SELECT count(*) FROM kratos_sync.events WHERE payload::text ~ 'ada@'") == 0


@pytest.mark.parametrize(
    ("consumer", "event"),
    [
        (SyncKratosIdentity.name, updated(2, SOMEBODY)),
        (DeleteKratosIdentity.name, gone(3)),
        (FetchKratosIdentity.name, hinted(4)),
        (CountRegistrations.name, IdentityRegistered(hinted(5).id, minutes(5), ADA, 1, {}, None)),
        (ForgetIdentity.name, IdentityDeletionRequested(hinted(6).id, minutes(6), ADA)),
    ],
)
def test_every_consumer_of_the_service_can_be_tried(
    visitor: Visitor, ledger: Ledger, consumer: str, event: DomainEvent
) -> None:
    tried = ledger._replace(event=ledger.record(event))
    page = send("/events/{id:uuid}/try", visitor, tried, consumer=consumer)
    assert f"{consumer} was tried, and everything was rolled back" in page
    assert "It would fail" not in page
    assert ledger.one("SELECT count(*) FROM kratos_sync.registrations_per_day") == 0


@pytest.fixture
def old_grants(postgres_of_roles: str) -> Iterator[psycopg.Connection]:
    """The owner, who takes rights away; all are given again in the end."""
    owner = url_of(postgres_of_roles, "kratos_sync_owner")
    with psycopg.connect(owner, autocommit=True) as connection:
        yield connection
        connection.execute(AFTER.encode())


RUN_GRANTS = (
    "lacks a right (permission denied for table {}): run <code>kratos-sync migrate --grants"
    " deploy/postgres/grants.sql</code> as the owner of the schema."
)


def test_without_the_newest_grant_the_first_page_works_and_says_what_to_run(
    visitor: Visitor, old_grants: psycopg.Connection
) -> None:
    old_grants.execute("REVOKE SELECT ON kratos_sync.deployment FROM kratos_sync_console")
    answer = visitor.get("/")
    assert answer.status_code == HTTPStatus.OK, answer.text
    assert "The broker is not asked. The database role of this process " in answer.text
    assert RUN_GRANTS.format("deployment") in answer.text
    assert f'id="{SYNC}"' in answer.text
    old_grants.execute(AFTER.encode())
    assert "lacks a right" not in visitor.get("/").text


def test_a_page_whose_grant_is_missing_says_what_to_run(
    visitor: Visitor, old_grants: psycopg.Connection
) -> None:
    old_grants.execute("REVOKE SELECT ON kratos_sync.hooks_heard FROM kratos_sync_console")
    for path in ("/", "/kratos"):
        answer = visitor.get(path)
        assert answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE
        assert RUN_GRANTS.format("hooks_heard") in answer.text
    assert visitor.get("/failures").status_code == HTTPStatus.OK


def test_commands_say_the_same_of_a_missing_grant(
    ledger: Ledger, old_grants: psycopg.Connection
) -> None:
    addresses = {"DATABASE_URL": ledger.url, "BROKER_URL": "redis://127.0.0.1:1"}
    run = "run `kratos-sync migrate --grants deploy/postgres/grants.sql` as the owner"
    old_grants.execute("REVOKE SELECT ON kratos_sync.deployment FROM kratos_sync_console")
    report = kratos_sync("status", **addresses)
    assert report.exit_code == 0
    assert run in " ".join(report.stdout.split())
    old_grants.execute("REVOKE SELECT ON kratos_sync.hooks_heard FROM kratos_sync_console")
    refused = kratos_sync("status", **addresses)
    assert refused.exit_code == 1
    assert run in " ".join(refused.output.split())
    assert "DATABASE_URL" not in refused.output


def test_rates_are_counted(container: Container, ledger: Ledger) -> None:
    activity = container.activity()
    before = activity.position()
    ledger.record(hinted(7))
    assert activity.counted(before, activity.position()).events == 1
