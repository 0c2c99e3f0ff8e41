"""The database roles of docs/operating.md: each can do its work, and nothing else."""

import re
from collections.abc import Iterator, Mapping
from contextlib import chdir
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import make_url

from kratos_sync.api.cli import watching
from kratos_sync.domain.events import (
    EVENTS,
    IMPERSONAL,
    DomainEvent,
    IdentityDeleted,
    IdentityDeletionRequested,
    KratosIdentityGone,
    KratosIdentityHinted,
    KratosIdentityUpdated,
    KratosTemplateFailed,
)
from kratos_sync.infrastructure.embedded import EmbeddedPostgres, EmbeddedValkey
from kratos_sync.infrastructure.migrations import newest_revision
from kratos_sync.infrastructure.observability import definitions as define
from kratos_sync.testing.kratos import InMemoryDocuments
from tests.api.cli.invoking import kratos_sync
from tests.end_to_end.observed import scrape
from tests.end_to_end.processes import Processes
from tests.environment import application_history
from tests.kratos.admin_stand_in import AdminStandIn
from tests.kratos.persons import person
from tests.ports import free_port
from tests.recorded import thirteen_calls
from tests.waiting import until

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "operating.md"
GRANTS = ROOT / "deploy" / "postgres" / "grants.sql"
SECTION = PAGE.read_text().partition("## Database roles\n")[2].partition("\n## ")[0]
SQL = re.compile(r"```sql\n(.*?)```", re.DOTALL)
(BEFORE,) = SQL.findall(SECTION)
AFTER = GRANTS.read_text()
OWN_TABLES = PAGE.with_name("consumers.md").read_text().partition("\n## Your own tables\n")[2]
BEFORE_OWN, AFTER_OWN = SQL.findall(OWN_TABLES.partition("\n## ")[0])
KEY = "a-key-of-no-worth"
CALL = thirteen_calls().calls[0]
SCHEMA = "kratos_sync"
LOGINS = [
    "kratos_sync_api",
    "kratos_sync_relay",
    "kratos_sync_worker",
    "kratos_sync_operator",
    "kratos_sync_eraser",
    "kratos_sync_console",
]
EVERYBODY = [*LOGINS, "application"]
PEOPLE = ["SELECT traits FROM kratos_identities", "SELECT value FROM identity_addresses"]
CONTENT = ["SELECT payload FROM events"]
ERRORS = ["SELECT last_error FROM deliveries", "SELECT error FROM attempts"]
HISTORY_IS_NOT_CHANGED = [
    "UPDATE attempts SET outcome = 'succeeded'",
    "UPDATE events SET payload = '{}'",
    "DELETE FROM kratos_identities",
]
NOBODY = "ARRAY[gen_random_uuid()]"
RECORD_IS_KEPT = [
    "SELECT runner FROM operations",
    "INSERT INTO operations (operation, by) VALUES ('sync', 'ada')",
    "UPDATE operations SET by = 'ada'",
    "UPDATE operations SET outcome = 'completed', ended_at = now()",
    "DELETE FROM operations",
    "TRUNCATE operations",
    "DELETE FROM audit",
    "UPDATE audit SET reason = NULL",
]
REMOVE_OPERATIONS = "SELECT purge_operations(now(), 1)"
CANCEL_OPERATION = "SELECT cancel_operation(1, 'ada')"
BEGIN_OPERATION = (
    "SELECT begin_operation('sync', 'ada', 'cli', NULL, NULL, NULL, '{}', NULL,"
    " gen_random_uuid(), NULL)"
)
READ_OPERATIONS = "SELECT FROM audit"


def recording(
    event: str = KratosIdentityHinted.name,
    *,
    by: str = "webhook",
    source: str = "webhook",
    key: str = "NULL",
) -> str:
    """A call of the function by which a role records an event."""
    nulls = ", ".join(["'{NULL}'"] * 3)
    return (
        f"SELECT record_{by}_events({NOBODY}, '{{{event}}}', {NOBODY}, ARRAY[now()],"
        f" ARRAY['{{}}'::json], '{{{source}}}', ARRAY[{key}]::text[], {nulls})"
    )


WEBHOOK_EVENTS = [KratosIdentityUpdated, KratosIdentityHinted, KratosTemplateFailed]
ANSWERS = {KratosIdentityUpdated.name, KratosIdentityGone.name}
OTHER_EVENTS = sorted(EVENTS.keys() - {each.name for each in WEBHOOK_EVENTS})
NO_ROWS_BUT_THROUGH_FUNCTIONS = [
    "INSERT INTO events (name) VALUES ('kratos_identity.updated')",
    "INSERT INTO deliveries (consumer) VALUES ('DeleteFromKratos')",
]
HISTORY_IS_KEPT = [*HISTORY_IS_NOT_CHANGED, "DELETE FROM events", "DELETE FROM attempts"]
DELIVERIES_ARE_KEPT = [
    "UPDATE deliveries SET failed_at = now()",
    "UPDATE deliveries SET due_at = 'infinity'",
    "UPDATE deliveries SET last_error = NULL",
    "DELETE FROM deliveries",
    "INSERT INTO deliveries (event_id, consumer, subject, failed_at)"
    " SELECT gen_random_uuid(), 'SyncKratosIdentity', gen_random_uuid(), now()",
]
FORBIDDEN = {
    "kratos_sync_api": [
        *PEOPLE,
        *CONTENT,
        *ERRORS,
        *HISTORY_IS_KEPT,
        "SELECT FROM deliveries",
        "UPDATE deliveries SET due_at = now()",
        "DELETE FROM deliveries",
        "UPDATE kratos_identities SET state = 'active'",
        "INSERT INTO kratos_identities (id) SELECT gen_random_uuid()",
        "INSERT INTO attempts (consumer) VALUES ('SyncKratosIdentity')",
        "UPDATE hooks_heard SET label = 'another'",
        "DELETE FROM hooks_heard",
        "SELECT FROM reconciliations",
        "SELECT FROM events",
        *NO_ROWS_BUT_THROUGH_FUNCTIONS,
        *(recording(event) for event in OTHER_EVENTS),
        "INSERT INTO subscriptions VALUES ('kratos_identity.updated', 'DeleteFromKratos')",
        "SELECT FROM subscriptions",
        *(recording(source=source) for source in ("application", "erase", "reconcile")),
        recording(key="'reconcile:1'"),
        recording(by="erase"),
        f"SELECT record_webhook_events({', '.join(['NULL'] * 10)})",
        "SELECT record_for_application('identity.deletion_requested', gen_random_uuid(), '{}')",
        "SELECT purge_events(now(), '-infinity', gen_random_uuid(), 1, true)",
        BEGIN_OPERATION,
        READ_OPERATIONS,
        REMOVE_OPERATIONS,
    ],
    "kratos_sync_relay": [
        *PEOPLE,
        *CONTENT,
        *ERRORS,
        *HISTORY_IS_KEPT,
        "DELETE FROM deliveries",
        "UPDATE deliveries SET attempts = 0",
        "SELECT trace_context FROM events",
        "SELECT id, external_id FROM kratos_identities",
        "SELECT event_id FROM attempts",
        "SELECT page_token, last_id FROM reconciliations",
        *NO_ROWS_BUT_THROUGH_FUNCTIONS,
        recording(),
        recording(by="erase"),
        "SELECT reason FROM erasures",
        "INSERT INTO erasures (identity_id) SELECT gen_random_uuid()",
        "SELECT delete_identity(gen_random_uuid())",
        READ_OPERATIONS,
        CANCEL_OPERATION,
    ],
    "kratos_sync_worker": [
        *HISTORY_IS_KEPT,
        "SELECT discard_dead_letters('SyncKratosIdentity', '{}', now(), 'by nobody')",
        "SELECT retry_dead_letters('SyncKratosIdentity', '{}', now(), 'by nobody')",
        "SELECT FROM purges",
        "SELECT error FROM attempts",
        "SELECT erase_events('{}', '{}', gen_random_uuid(), 1)",
        "SELECT erase_texts('{}', '{}')",
        "SELECT purge_attempts(now(), 0, 1, true)",
        CANCEL_OPERATION,
        REMOVE_OPERATIONS,
    ],
    "kratos_sync_operator": [
        *PEOPLE,
        *HISTORY_IS_KEPT,
        *DELIVERIES_ARE_KEPT,
        "INSERT INTO attempts (consumer) VALUES ('SyncKratosIdentity')",
        recording(),
        recording(by="answer"),
        "SELECT erase_events('{}', '{}', gen_random_uuid(), 1)",
        "INSERT INTO erasures (identity_id) SELECT gen_random_uuid()",
        "INSERT INTO events (name) VALUES ('kratos_identity.updated')",
        "UPDATE kratos_identities SET state = 'active'",
        "UPDATE hooks_heard SET calls = 0",
        "UPDATE reconciliations SET outcome = NULL",
        REMOVE_OPERATIONS,
    ],
    "kratos_sync_console": [
        *HISTORY_IS_KEPT,
        *DELIVERIES_ARE_KEPT,
        "INSERT INTO events (name) VALUES ('kratos_identity.updated')",
        "INSERT INTO attempts (consumer) VALUES ('SyncKratosIdentity')",
        recording(),
        *(recording(e, by="answer", source="sync") for e in EVENTS if e not in ANSWERS),
        *(
            recording(KratosIdentityUpdated.name, by="answer", source=source)
            for source in ("webhook", "application", "erase", "FetchKratosIdentity")
        ),
        recording(KratosIdentityUpdated.name, by="answer", source="sync", key="'webhook:1'"),
        *(recording(e, by="erase", source="erase") for e in EVENTS if e != IdentityDeleted.name),
        "SELECT record_for_application('identity.deletion_requested', gen_random_uuid(), '{}')",
        "SELECT purge_events(now(), '-infinity', gen_random_uuid(), 1, true)",
        "SELECT purge_attempts(now(), 0, 1, true)",
        "INSERT INTO purges DEFAULT VALUES",
        "UPDATE consumer_policies SET rate = '1/s'",
        "INSERT INTO consumer_policies (consumer, concurrency) VALUES ('SyncKratosIdentity', 1)",
        "DELETE FROM consumer_policies",
        "UPDATE hooks_heard SET calls = 0",
        "DELETE FROM hooks_heard",
        "INSERT INTO subscriptions VALUES ('kratos_identity.updated', 'DeleteFromKratos')",
        "UPDATE erasures SET by = 'nobody'",
        "DELETE FROM erasures",
        "UPDATE kratos_answers SET identity_id = gen_random_uuid()",
        "DELETE FROM kratos_answers",
        "DELETE FROM registrations_per_day",
        "UPDATE unseen_identities SET identity_id = gen_random_uuid()",
        "SELECT value FROM identity_addresses",
        REMOVE_OPERATIONS,
    ],
    "kratos_sync_eraser": [
        *CONTENT,
        *ERRORS,
        *HISTORY_IS_KEPT,
        "DELETE FROM deliveries",
        "UPDATE deliveries SET due_at = now()",
        "DELETE FROM erasures",
        "UPDATE erasures SET by = 'nobody'",
        *NO_ROWS_BUT_THROUGH_FUNCTIONS,
        recording(),
        *(recording(e, by="erase", source="erase") for e in EVENTS if e != IdentityDeleted.name),
        recording(IdentityDeleted.name, by="erase", source="webhook"),
        "SELECT delete_identity(gen_random_uuid())",
        READ_OPERATIONS,
        CANCEL_OPERATION,
        REMOVE_OPERATIONS,
    ],
    "application": [
        *CONTENT,
        *ERRORS,
        *HISTORY_IS_KEPT,
        "SELECT FROM hooks_heard",
        "SELECT FROM reconciliations",
        "SELECT FROM events",
        "SELECT FROM deliveries",
        "SELECT FROM attempts",
        "SELECT FROM alembic_version",
        BEGIN_OPERATION,
        READ_OPERATIONS,
        "UPDATE kratos_identities SET state = 'active'",
        "INSERT INTO kratos_identities (id) SELECT gen_random_uuid()",
    ],
}
OWNERS_ONLY = [
    "CREATE TABLE mine ()",
    "CREATE INDEX ON events (name)",
    "ALTER TABLE events ADD COLUMN mine text",
    "ALTER TABLE kratos_identities DISABLE TRIGGER ALL",
    "DROP TABLE attempts",
    "DROP VIEW identity_addresses",
    "DROP SCHEMA kratos_sync CASCADE",
    "TRUNCATE kratos_identities",
    "TRUNCATE deliveries",
    "UPDATE alembic_version SET version_num = '9999'",
    "UPDATE deployment SET id = gen_random_uuid()",
    "DELETE FROM deployment",
    "ALTER TABLE kratos_identities OWNER TO CURRENT_USER",
    "CREATE SCHEMA mine",
    "CREATE TABLE public.mine ()",
]


@dataclass(frozen=True)
class Cluster:
    """A server of its own, since roles belong to a whole server, and the commands run on it."""

    url: str
    processes: Processes
    settings: Mapping[str, str]
    metrics_ports: Mapping[str, int] = field(
        default_factory=lambda: {name: free_port() for name in ("api", "relay", "worker")}
    )

    def url_of(self, role: str) -> str:
        return make_url(self.url).set(username=role).render_as_string(hide_password=False)

    def execute(self, role: str, statement: str) -> None:
        """Run a statement as psql would: several at once too."""
        with psycopg.connect(self.url_of(role), autocommit=True) as connection:
            connection.execute(f"SET search_path = {SCHEMA}, public")
            connection.execute(statement.encode())

    def run(self, role: str, *command: str, **settings: str) -> tuple[int, str]:
        """Run a command in that role: its exit code, and all it said."""
        given = {**self.settings, **settings, "DATABASE_URL": self.url_of(role)}
        with chdir(self.processes.folder):
            ran = kratos_sync(*command, **given)
        return ran.exit_code, ran.output

    def count(self, rows: str) -> int:
        with psycopg.connect(self.url) as connection:
            (found,) = connection.execute(f"SELECT count(*) FROM {SCHEMA}.{rows}").fetchone() or (
                0,
            )  # type: ignore[call-overload]  # not a literal
        return int(found)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One identity came by webhook, and was consumed, each process in its own role."""
    folder = tmp_path_factory.mktemp("roles")
    with (
        EmbeddedPostgres(folder / "postgres") as postgres,
        EmbeddedValkey(folder / "valkey") as valkey,
    ):
        with psycopg.connect(postgres.url, autocommit=True) as superuser:
            superuser.execute("CREATE DATABASE application")
        url = make_url(postgres.url).set(database="application")
        settings = {
            "BROKER_URL": valkey.url,
            "KRATOS_WEBHOOK_API_KEYS": KEY,
            "LEASE_SECONDS": "5",
            "LOG_FORMAT": "json",
        }
        with Processes(folder, settings) as processes:
            yield _set_up(Cluster(url.render_as_string(hide_password=False), processes, settings))


def _set_up(cluster: Cluster) -> Cluster:
    own = application_history()
    cluster.execute("postgres", BEFORE)
    if own is not None:
        cluster.execute("postgres", BEFORE_OWN.replace("acme_sync", own.schema))
    code, said = cluster.run("kratos_sync_owner", "migrate", "--grants", str(GRANTS))
    assert code == 0, said
    if own is not None:
        cluster.execute("kratos_sync_owner", AFTER_OWN.replace("acme_sync", own.schema))
    cluster.execute("postgres", "CREATE ROLE application LOGIN IN ROLE kratos_sync_reader")
    processes = cluster.processes
    for name in ("relay", "worker"):
        processes.start(name, name, **settings_of(cluster, name))
        processes.wait_for(name, f'"{name}_started"')
    processes.start_api(**settings_of(cluster, "api"))
    return cluster


def settings_of(cluster: Cluster, name: str) -> dict[str, str]:
    """What a process needs to work in its own role, with metrics."""
    url, port = cluster.url_of(f"kratos_sync_{name}"), cluster.metrics_ports[name]
    return {"DATABASE_URL": url, "METRICS_PORT": str(port)}


def call_webhook(cluster: Cluster, trigger: str | None = None) -> int:
    """Let Kratos call once more, about the same change."""
    trigger = trigger or str(uuid4())
    headers = {**CALL.headers, "X-Api-Key": KEY, "Ory-Webhook-Trigger-Id": trigger}
    http = cluster.processes.http
    return http.post("/kratos/sync-identity", content=CALL.body, headers=headers).status_code


def test_a_webhook_becomes_a_row_with_each_process_in_its_own_role(cluster: Cluster) -> None:
    before = cluster.count("attempts")
    assert call_webhook(cluster) == 200
    until(lambda: cluster.count("deliveries") == 0 and cluster.count("attempts") > before)
    assert cluster.count(f"kratos_identities WHERE id = '{CALL.person}'") == 1
    assert cluster.count("attempts WHERE outcome <> 'succeeded'") == 0
    for name in ("api", "relay", "worker"):
        assert "InsufficientPrivilege" not in cluster.processes.said(name)


def test_each_role_may_read_what_its_process_exports(cluster: Cluster) -> None:
    for name, port in cluster.metrics_ports.items():
        until(lambda port=port: scrape(port).value(define.LEDGER_UP) == 1)
        assert scrape(port).values(define.BUILD), name
    relay = cluster.metrics_ports["relay"]
    until(lambda: scrape(relay).value(define.LEDGER_READ))
    assert cluster.count("attempts WHERE outcome = 'succeeded'")
    until(lambda: scrape(relay).values(define.LAST_SUCCESS))
    assert "ledger_metrics_left_out" not in cluster.processes.said("relay")


def test_kratos_second_attempt_is_known_to_the_api(cluster: Cluster) -> None:
    trigger = str(uuid4())
    assert [call_webhook(cluster, trigger), call_webhook(cluster, trigger)] == [200, 200]
    assert cluster.count(f"events WHERE dedupe_key LIKE 'webhook:{trigger}:%'") == 1


def test_the_api_records_which_hooks_called_and_the_operator_sees_it(
    cluster: Cluster,
) -> None:
    label = CALL.headers["X-Kratos-Hook"]
    assert call_webhook(cluster) == 200
    until(lambda: cluster.count(f"hooks_heard WHERE label = '{label}'") == 1)
    code, said = cluster.run("kratos_sync_operator", "status")
    assert (code, label in said) == (0, True)
    assert "hook_activity_not_written" not in cluster.processes.said("api")


def dead_letter(cluster: Cluster) -> str:
    """An event of long ago whose delivery became a dead letter."""
    event = str(uuid4())
    cluster.execute(
        "postgres",
        f"""
        INSERT INTO events (id, name, subject, occurred_at, recorded_at, payload, source)
        VALUES ('{event}', 'kratos_identity.updated', '{CALL.person}', now(),
                now() - interval '400 d', '{{"identity": {{"id": "{CALL.person}"}}}}', 'webhook');
        INSERT INTO deliveries
               (event_id, consumer, subject, attempts, failed_at, last_error, error_type)
        VALUES ('{event}', 'SyncKratosIdentity', '{CALL.person}', 12, now(), 'OSError: gone',
                'OSError');
        INSERT INTO attempts (event_id, consumer, number, outcome, started_at, duration, error)
        VALUES ('{event}', 'SyncKratosIdentity', 12, 'gave_up', now() - interval '400 d', '1 s',
                'OSError: gone')
        """,
    )
    return event


@pytest.mark.parametrize(
    "command",
    [
        ("status",),
        ("status", "--json"),
        ("history", CALL.person, "--verbose"),
        ("failed", "list", "--verbose"),
        ("failed", "list", "--each"),
        ("failed", "show", "EVENT", "--payload"),
        ("failed", "retry", "EVENT", "--yes"),
        ("failed", "retry", "--all", "--yes"),
        ("failed", "discard", "EVENT", "--reason", "known", "--yes"),
        ("replay", "--consumer", "SyncKratosIdentity", "--since", "1h", "--yes"),
        ("purge",),
        ("pause", "SyncKratosIdentity", "--reason", "a migration"),
        ("resume", "SyncKratosIdentity"),
        ("limit", "SyncKratosIdentity", "--reset"),
        ("audit",),
        ("audit", "--running", "--json"),
    ],
    ids=" ".join,
)
def test_the_operator_can_look_and_decide(cluster: Cluster, command: tuple[str, ...]) -> None:
    event = dead_letter(cluster)
    code, said = cluster.run(
        "kratos_sync_operator", *[event if word == "EVENT" else word for word in command]
    )
    assert code == 0, said
    cluster.execute("postgres", "DELETE FROM deliveries WHERE failed_at IS NOT NULL")
    until(lambda: cluster.count("deliveries") == 0)


@pytest.mark.parametrize("command", [("tail",), ("status", "--watch")], ids=" ".join)
def test_the_operator_can_watch(
    cluster: Cluster, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = iter(range(3))

    def pause(_: float) -> None:
        if next(looks, None) is None:
            raise KeyboardInterrupt

    monkeypatch.setattr(watching, "sleep", pause)
    code, said = cluster.run("kratos_sync_operator", *command)
    assert code == 0, said


@pytest.mark.parametrize("role", ["kratos_sync_relay", "kratos_sync_operator"])
def test_old_events_and_attempts_are_purged(cluster: Cluster, role: str) -> None:
    event = dead_letter(cluster)
    cluster.execute("postgres", "DELETE FROM deliveries")
    ages = ["--events-older-than", "300d", "--attempts-older-than", "300d"]
    code, said = cluster.run(role, "purge", *ages)
    assert code == 0, said
    assert cluster.count(f"events WHERE id = '{event}'") == 0
    assert cluster.count(f"attempts WHERE event_id = '{event}'") == 0
    by_it = f"operations WHERE operation = 'purge' AND role = '{role}' AND outcome = 'completed'"
    assert cluster.count(by_it)


def erased(cluster: Cluster, whom: str) -> int:
    return cluster.count(f"erasures WHERE identity_id = '{whom}' AND erased_at IS NOT NULL")


def dead_letter_about(cluster: Cluster, whom: str) -> str:
    event = dead_letter(cluster)
    cluster.execute("postgres", f"UPDATE events SET subject = '{whom}' WHERE id = '{event}'")
    return event


def test_the_eraser_erases_a_person_and_the_relay_what_comes_later(cluster: Cluster) -> None:
    grace = str(uuid4())
    event = dead_letter_about(cluster, grace)
    command = ("erase", grace, "--reason", "by letter", "--yes")
    code, said = cluster.run("kratos_sync_eraser", *command)
    assert code == 0, said
    assert erased(cluster, grace) == 1
    about_her = f"operations WHERE operation = 'erase' AND subject = '{grace}'"
    assert cluster.count(f"{about_her} AND role = 'kratos_sync_eraser'") == 1
    assert cluster.count(f"attempts WHERE event_id = '{event}' AND error IS NOT NULL") == 0

    late = dead_letter_about(cluster, grace)
    cluster.execute("postgres", "UPDATE erasures SET look_at = now()")
    until(lambda: cluster.count(f"events WHERE id = '{late}' AND erased_at IS NOT NULL") == 1)
    by_relay = "operations WHERE operation = 'erase' AND role = 'kratos_sync_relay'"
    until(lambda: cluster.count(by_relay))
    assert "InsufficientPrivilege" not in cluster.processes.said("relay")


def test_the_relay_removes_old_operations_and_none_of_the_last_day(cluster: Cluster) -> None:
    cluster.execute("kratos_sync_operator", BEGIN_OPERATION)
    cluster.execute("kratos_sync_relay", "SELECT purge_operations('infinity', 9999)")
    assert cluster.count("operations WHERE operation = 'sync' AND by = 'ada'") >= 1


def test_the_operator_has_a_person_deleted_and_erased(cluster: Cluster) -> None:
    town = InMemoryDocuments()
    grace = town.put(person())
    with AdminStandIn(town) as kratos:
        settings = {
            "DATABASE_URL": cluster.url_of("kratos_sync_worker"),
            "KRATOS_ADMIN_URL": kratos.url,
        }
        cluster.processes.stop("worker")
        cluster.processes.start("worker", "worker", **settings)
        command = ("delete", str(grace), "--yes", "--wait", "--erase", "--timeout", "100")
        code, said = cluster.run("kratos_sync_operator", *command, KRATOS_ADMIN_URL=kratos.url)
    assert code == 0, said
    assert town.documents == {}
    assert erased(cluster, str(grace)) == 1


def test_the_application_reads_people_and_their_addresses(cluster: Cluster) -> None:
    assert call_webhook(cluster) == 200
    until(lambda: cluster.count("deliveries") == 0)
    with psycopg.connect(cluster.url_of("application")) as connection:
        people = connection.execute("SELECT traits FROM kratos_sync.kratos_identities").fetchall()
        addresses = connection.execute("SELECT * FROM kratos_sync.identity_addresses").fetchall()
    assert people
    assert addresses


def test_the_worker_s_role_asks_kratos_and_notes_when(cluster: Cluster) -> None:
    town = InMemoryDocuments()
    ada = town.put(person())
    with AdminStandIn(town) as kratos:
        settings = {
            "DATABASE_URL": cluster.url_of("kratos_sync_worker"),
            "KRATOS_ADMIN_URL": kratos.url,
        }
        command = ("sync", str(ada), "--wait")
        code, said = cluster.run("kratos_sync_worker", *command, KRATOS_ADMIN_URL=kratos.url)
        assert code == 0, said
        cluster.processes.stop("worker")
        cluster.processes.start("worker", "worker", **settings)
        cluster.execute("postgres", f"SELECT identity_changed('{ada}')")
        until(lambda: cluster.count("deliveries") == 0)
    assert cluster.count(f"kratos_identities WHERE id = '{ada}'") == 1
    assert cluster.count("kratos_answers") == 1


def test_the_worker_s_role_compares_with_kratos(cluster: Cluster) -> None:
    with AdminStandIn(InMemoryDocuments([])) as kratos:
        code, said = cluster.run("kratos_sync_worker", "reconcile", KRATOS_ADMIN_URL=kratos.url)
    assert code == 1
    assert "Kratos lists no identity" in said
    assert cluster.count("operations WHERE operation = 'reconcile' AND outcome = 'failed'") == 1


def test_the_application_says_that_somebody_changed_once_it_may(cluster: Cluster) -> None:
    call = f"SELECT identity_changed('{uuid4()}')"
    for role in (*LOGINS, "application"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            cluster.execute(role, call)
    cluster.execute(
        "kratos_sync_owner", "GRANT EXECUTE ON FUNCTION identity_changed TO application"
    )
    try:
        cluster.execute("application", call)
    finally:
        cluster.execute("postgres", "REVOKE EXECUTE ON FUNCTION identity_changed FROM application")
        cluster.execute("postgres", "DELETE FROM deliveries WHERE consumer = 'FetchKratosIdentity'")


@pytest.mark.parametrize(
    ("role", "statement"),
    [(role, statement) for role, statements in FORBIDDEN.items() for statement in statements]
    + [(role, each) for role in EVERYBODY for each in (*OWNERS_ONLY, *RECORD_IS_KEPT)],
)
def test_a_role_cannot_do_what_is_not_its_work(cluster: Cluster, role: str, statement: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        cluster.execute(role, statement)


@pytest.mark.parametrize("event", WEBHOOK_EVENTS)
def test_the_api_records_what_a_webhook_may_say(cluster: Cluster, event: type[DomainEvent]) -> None:
    consumer = "Nobody"
    subscription = f"event = '{event.name}' AND consumer = '{consumer}'"
    cluster.execute("postgres", f"INSERT INTO subscriptions VALUES ('{event.name}', '{consumer}')")
    key = f"'webhook:{uuid4()}'"
    cluster.execute("kratos_sync_api", recording(event.name, key=key))
    recorded = cluster.count(f"events WHERE dedupe_key = {key} AND name = '{event.name}'")
    pending = cluster.count(f"deliveries WHERE consumer = '{consumer}'")
    cluster.execute("postgres", f"DELETE FROM subscriptions WHERE {subscription}")
    its_event = f"SELECT id FROM events WHERE dedupe_key = {key}"
    cluster.execute("postgres", f"DELETE FROM deliveries WHERE event_id IN ({its_event})")
    assert (recorded, pending) == (1, 1)


@pytest.mark.parametrize("role", ["kratos_sync_relay", "kratos_sync_operator"])
def test_nobody_purges_what_is_outstanding_or_of_today(cluster: Cluster, role: str) -> None:
    pending = dead_letter(cluster)
    young = str(uuid4())
    cluster.execute(
        "postgres",
        f"""INSERT INTO events (id, name, subject, occurred_at, payload, source)
            VALUES ('{young}', 'kratos_identity.updated', '{CALL.person}', now(), '{{}}', 'w')""",
    )
    first = "'00000000-0000-0000-0000-000000000000'"
    cluster.execute(role, f"SELECT purge_events('infinity', '-infinity', {first}, 9999, true)")
    cluster.execute(role, "SELECT purge_attempts('infinity', 0, 9999, true)")

    assert cluster.count(f"events WHERE id IN ('{pending}', '{young}')") == 2
    assert cluster.count(f"attempts WHERE event_id = '{pending}'") == 1
    with pytest.raises(psycopg.errors.InvalidTransactionState):
        cluster.execute(
            role,
            "BEGIN ISOLATION LEVEL REPEATABLE READ;"
            f" SELECT purge_events('infinity', '-infinity', {first}, 1, true)",
        )
    cluster.execute("postgres", "DELETE FROM deliveries WHERE failed_at IS NOT NULL")


@pytest.mark.parametrize("role", ["kratos_sync_operator", "kratos_sync_console"])
@pytest.mark.parametrize("function", ["retry_dead_letters", "discard_dead_letters"])
def test_nobody_decides_about_a_pending_delivery_or_an_unseen_dead_letter(
    cluster: Cluster, role: str, function: str
) -> None:
    pending, unseen = dead_letter(cluster), dead_letter(cluster)
    far = "due_at = 'infinity'"
    cluster.execute(
        "postgres",
        f"UPDATE deliveries SET failed_at = NULL, {far} WHERE event_id = '{pending}';"
        f" UPDATE deliveries SET failed_at = now() WHERE event_id = '{unseen}'",
    )
    ids = f"'{{{pending},{unseen}}}'"
    before = "now() - interval '1 minute'"
    cluster.execute(role, f"SELECT {function}('SyncKratosIdentity', {ids}, {before}, 'by me')")
    kept = f"event_id = '{pending}' AND {far} OR event_id = '{unseen}' AND failed_at IS NOT NULL"
    try:
        assert cluster.count(f"deliveries WHERE {kept}") == 2
        assert cluster.count(f"attempts WHERE event_id = ANY({ids}) AND error = 'by me'") == 0
    finally:
        cluster.execute("postgres", f"DELETE FROM deliveries WHERE event_id = ANY({ids})")


def test_the_relay_erases_no_deletion_that_was_asked_for(cluster: Cluster) -> None:
    grace, event = str(uuid4()), dead_letter(cluster)
    name = IdentityDeletionRequested.name
    cluster.execute(
        "postgres",
        f"""UPDATE events SET subject = '{grace}', name = '{name}' WHERE id = '{event}';
            INSERT INTO erasures (identity_id, by, reason) VALUES ('{grace}', 'Ada', 'asked')""",
    )
    call = f"SELECT erase_events('{{{grace}}}', '{{}}', gen_random_uuid(), 9)".replace(
        "gen_random_uuid()", "'00000000-0000-0000-0000-000000000000'"
    )
    cluster.execute("kratos_sync_relay", call)

    assert name in IMPERSONAL
    assert cluster.count(f"deliveries WHERE event_id = '{event}'") == 1
    cluster.execute("postgres", f"DELETE FROM deliveries WHERE event_id = '{event}'")


def rights(cluster: Cluster) -> str:
    """What each role may do, as the table of the page."""
    roles = [*LOGINS, "kratos_sync_reader"]
    with psycopg.connect(cluster.url) as connection:
        tables = connection.execute(
            """SELECT relname, array_agg(CASE
                          WHEN has_table_privilege(role, c.oid, what) THEN lower(what)
                          WHEN what <> 'DELETE' AND has_any_column_privilege(role, c.oid, what)
                          THEN lower(what) || '*' END ORDER BY role_place, place)
               FROM pg_class c, unnest(%s::text[]) WITH ORDINALITY AS r (role, role_place),
                    unnest('{SELECT,INSERT,UPDATE,DELETE}'::text[]) WITH ORDINALITY
                        AS p (what, place)
               WHERE relnamespace = 'kratos_sync'::regnamespace AND relkind IN ('r', 'v')
               GROUP BY relname ORDER BY relname""",
            [roles],
        ).fetchall()
        functions = connection.execute(
            """SELECT proname || '()', array_agg(CASE WHEN has_function_privilege(
                          role, p.oid, 'EXECUTE') THEN 'call' END ORDER BY role_place)
               FROM pg_proc p, unnest(%s::text[]) WITH ORDINALITY AS r (role, role_place)
               WHERE pronamespace = 'kratos_sync'::regnamespace
               GROUP BY proname ORDER BY proname""",
            [roles],
        ).fetchall()
    heads = [role.removeprefix("kratos_sync_") for role in roles]
    lines = [f"| | {' | '.join(heads)} |", "|---" * (len(roles) + 1) + "|"]
    for name, found in [*tables, *functions]:
        of_each = len(found) // len(roles)
        cells = [found[at : at + of_each] for at in range(0, len(found), of_each)]
        words = [", ".join(filter(None, cell)) or "–" for cell in cells]
        lines.append(f"| `{name}` | {' | '.join(words)} |")
    return "\n".join(lines)


def test_the_page_says_what_each_role_may_do(cluster: Cluster) -> None:
    assert rights(cluster) in SECTION


@pytest.mark.parametrize("role", LOGINS)
def test_only_the_owner_can_move_the_schema_along(cluster: Cluster, role: str) -> None:
    move = "UPDATE alembic_version SET version_num"
    cluster.execute("postgres", f"{move} = '0000'")
    try:
        code, said = cluster.run(role, "migrate")
    finally:
        cluster.execute("postgres", f"{move} = '{newest_revision()}'")
    assert code == 1, said


def test_the_owner_migrates_without_a_privilege_on_the_database(cluster: Cluster) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        cluster.execute("kratos_sync_owner", "CREATE SCHEMA mine")
    code, said = cluster.run("kratos_sync_owner", "migrate")
    assert (code, "nothing to do" in said) == (0, True)


def test_the_grants_stand_in_one_file_that_the_page_names() -> None:
    granting = re.compile(r"^\s*GRANT .* ON (FUNCTION )?kratos_sync\.", re.MULTILINE)
    files = [PAGE, *GRANTS.parent.glob("*.sql")]

    assert "](../deploy/postgres/grants.sql)" in SECTION
    assert [path for path in files if granting.search(path.read_text())] == [GRANTS]


@pytest.mark.parametrize(
    ("content", "code", "sentence"),
    [
        (b"BEGIN; GRANT SELECT ON kratos_sync.events TO nobody_there; COMMIT", 1, "nobody_there"),
        (b"GRANT", 1, "some.sql failed with SQLSTATE 42601 (syntax error at end of input)"),
        (b"\xff", 2, "--grants some.sql cannot be read as text."),
    ],
)
def test_grants_that_cannot_be_run_are_refused_in_a_sentence(
    cluster: Cluster, tmp_path: Path, content: bytes, code: int, sentence: str
) -> None:
    (tmp_path / "some.sql").write_bytes(content)
    ran = cluster.run("kratos_sync_owner", "migrate", "--grants", str(tmp_path / "some.sql"))

    assert (ran[0], sentence in ran[1]) == (code, True), ran[1]
    assert "Traceback" not in ran[1]


def test_the_grants_may_run_again_while_the_service_runs(cluster: Cluster) -> None:
    cluster.execute("kratos_sync_owner", AFTER)
    assert call_webhook(cluster) == 200
    until(lambda: cluster.count("deliveries") == 0)


def test_a_later_releases_table_is_the_workers_at_once(cluster: Cluster) -> None:
    cluster.execute("kratos_sync_owner", "CREATE TABLE later (id int)")
    try:
        cluster.execute("kratos_sync_worker", "INSERT INTO later VALUES (1); DELETE FROM later")
        for role in EVERYBODY:
            if role != "kratos_sync_worker":
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    cluster.execute(role, "SELECT * FROM later")
    finally:
        cluster.execute("kratos_sync_owner", "DROP TABLE later")
