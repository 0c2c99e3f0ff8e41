"""Nothing says a key, a URL's password or anything of a person: at every level, whatever fails."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.api.cli.invoking import kratos_sync
from tests.end_to_end.canaries import forms
from tests.end_to_end.flow import ROLE, Flow, logs_in
from tests.end_to_end.guarded_servers import GuardedPostgres, GuardedValkey, Monitor
from tests.end_to_end.planted import AT_THE_BROKER, EVERYTHING, GARBAGE, PEOPLE, SECRETS, SENT
from tests.end_to_end.processes import Processes
from tests.end_to_end.steps import STEPS
from tests.infrastructure.observability.sentry_receiver import receiving


@pytest.fixture(scope="module")
def servers(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[GuardedPostgres, GuardedValkey]]:
    folder = tmp_path_factory.mktemp("guarded")
    valkey = GuardedValkey(folder / "valkey", SECRETS["the broker's password"])
    (folder / "postgres").mkdir()
    with GuardedPostgres(folder / "postgres") as postgres:
        password = SECRETS["PostgreSQL's password"]
        postgres.execute(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{password}'")
        valkey.start()
        try:
            yield postgres, valkey
        finally:
            valkey.go_away()


@pytest.fixture(
    scope="module",
    # All that is logged at the levels between is logged at DEBUG too.
    params=[("DEBUG", "json"), ("ERROR", "console")],
    ids="-".join,
)
def flow(
    request: pytest.FixtureRequest,
    servers: tuple[GuardedPostgres, GuardedValkey],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Flow]:
    """Everything that can happen, once; then everything has ended."""
    postgres, valkey = servers
    level, log_format = request.param
    database = f"run_{uuid4().hex}"
    postgres.execute(f"CREATE DATABASE {database} OWNER {ROLE}")
    settings = {
        "DATABASE_URL": postgres.url_for(ROLE, SECRETS["PostgreSQL's password"], database),
        "BROKER_URL": valkey.url_with(SECRETS["the broker's password"]),
        "KRATOS_WEBHOOK_API_KEYS": f"{SECRETS['the new key']},{SECRETS['the old key']}",
        "LEASE_SECONDS": "5",
        "LOG_LEVEL": level,
        "LOG_FORMAT": log_format,
        "PYTHONFAULTHANDLER": "1",
    }
    monitor = Monitor(valkey)
    with (
        monitor.listening(),
        receiving() as sentry,
        Processes(
            tmp_path_factory.mktemp("flow"), {**settings, "SENTRY_DSN": sentry.dsn}
        ) as processes,
    ):
        flow = Flow(level, postgres, valkey, processes, database, settings["DATABASE_URL"])
        flow.run("migrate")
        for name in ("relay", "worker", "api"):
            flow.start(name)
        for step in STEPS:
            step(flow)
    flow.said.update(logs_in(flow.processes.folder))
    flow.said.update((f"report {number} to Sentry", raw) for number, raw in enumerate(sentry.raw))
    flow.reported.update(event["tags"]["what"] for event in sentry.events)
    flow.said["PostgreSQL's log"] = postgres.logged()
    flow.at_the_broker["Valkey's files"] = valkey.written()
    flow.at_the_broker["MONITOR"] = monitor.lines()
    yield flow
    postgres.execute(f"DROP DATABASE {database} WITH (FORCE)")


def test_nothing_is_said_of_secrets_or_people(flow: Flow) -> None:
    for search, places in ((EVERYTHING, flow.said), (AT_THE_BROKER, flow.at_the_broker)):
        size = sum(map(len, places.values()))
        print(f"\n{flow.level}: {len(places)} places, {size:,} bytes, {search.forms:,} spellings")
        found = search.found_in(places)
        assert not found, "\n".join(found)


def test_all_of_it_happened(flow: Flow) -> None:
    assert {200, 400, 403, 404, 405, 413, 415, 422, 500} <= set(flow.statuses)
    ((traits,),) = flow.ask(
        "SELECT string_agg(traits::text, '') FROM kratos_sync.kratos_identities"
    )
    ((errors,),) = flow.ask("SELECT string_agg(error, '') FROM kratos_sync.attempts")
    assert "kratos_sync_failures_total{" in str(flow.said)
    for text in (str(traits), str(errors)):
        assert PEOPLE["an e-mail address"] in text
        assert PEOPLE["a name"] in text
    assert flow.reported >= {
        "dead_letter",
        "parse_failed_closed",
        "thread_crashed",
        "uvicorn.error",
    }
    said = {name: content.decode() for name, content in logs_in(flow.processes.folder).items()}
    assert "parse_failed_closed" in said["api.log"]
    assert "Exception in callback" in said["api.log"]
    assert "Task exception was never retrieved" in said["api.log"]
    for words in ("thread_crashed", "error_ignored", "could not be logged", "Fatal Python error"):
        assert words in said["worker.log"]
    assert ("garbage_dropped" in said["worker.log"]) is (flow.level != "ERROR")
    assert ("webhook_accepted" in said["api.log"]) is (flow.level in {"DEBUG", "INFO"})
    assert ("dispatched" in said["relay.log"]) is (flow.level == "DEBUG")
    assert "duration:" in flow.postgres.logged()
    assert b"hset" in bytes(flow.at_the_broker["MONITOR"]).lower()
    assert b"event_ids" in bytes(flow.at_the_broker["Valkey's files"])


def test_every_spelling_of_a_canary_would_be_found_in_a_log(tmp_path: Path) -> None:
    log = tmp_path / "planted.log"
    line = b'{"event": "delivered", "consumer": "SyncKratosIdentity"}\n'
    log.write_bytes(line)
    assert EVERYTHING.found_in(logs_in(tmp_path)) == []
    for name, canary in {**SECRETS, **PEOPLE, **SENT, **GARBAGE}.items():
        for form, spelled in forms(canary).items():
            for planted in (spelled, spelled.upper()):
                log.write_bytes(line + b"x" + planted + b"y" + line)
                found = EVERYTHING.found_in(logs_in(tmp_path))
                assert [each for each in found if each.startswith(f"{name} as ")], (name, form)


WRONG_DATABASES = [
    "postgresql://kratos:{password}@127.0.0.1:port/kratos",
    "postgresql://kratos:{password}@[::1/kratos",
    "mysql://kratos:{password}@127.0.0.1/kratos",
    "{password}",
]
WRONG_BROKERS = [
    "redis://:{password}@127.0.0.1:port/0",
    "redis://:{password}@[::1/0",
    "http://:{password}@127.0.0.1/0",
    "{password}",
]


def test_a_start_that_fails_says_so_in_one_line_and_without_a_password(
    servers: tuple[GuardedPostgres, GuardedValkey],
    tmp_path: Path,
) -> None:
    postgres, valkey = servers
    password = SECRETS["a wrong password"]
    right = {
        "DATABASE_URL": postgres.url_for(ROLE, SECRETS["PostgreSQL's password"], "postgres"),
        "BROKER_URL": valkey.url_with(SECRETS["the broker's password"]),
        "KRATOS_WEBHOOK_API_KEYS": SECRETS["the new key"],
        "LOG_LEVEL": "DEBUG",
    }
    said = {}
    with Processes(tmp_path, right) as processes:
        unknown = postgres.url_for(ROLE, password, "postgres")
        for command in ("api", "relay", "worker", "migrate", "status"):
            code, said[command] = processes.run(command, DATABASE_URL=unknown)
            assert (code, said[command].count("\n")) == (1, 1), said[command]
        for name, urls in (("DATABASE_URL", WRONG_DATABASES), ("BROKER_URL", WRONG_BROKERS)):
            for url in urls:
                given = {**right, name: url.format(password=password)}
                ran = kratos_sync("status", **given)
                said[url] = ran.output
                assert (ran.exit_code, name in ran.output) == (2, True), ran.output
        odd = {"LOG_LEVEL": password, "LEASE_SECONDS": password, "KRATOS_WEBHOOK_API_KEYS": ","}
        code, said["settings"] = processes.run("api", **odd)
        assert code == 2
    assert EVERYTHING.found_in(said) == []
