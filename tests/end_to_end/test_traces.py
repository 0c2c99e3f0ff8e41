"""One trace from Kratos' call to Kratos' Admin API, as a collector receives it.

The service runs as it is deployed, with PostgreSQL and Valkey. KEEP_TRACE=FILE keeps the spans for
the picture in the documentation.
"""

import json
import os
import signal
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import psycopg
import pytest
from psycopg.rows import dict_row

from kratos_sync.infrastructure.observability.tracing import names
from kratos_sync.testing.kratos import InMemoryDocuments
from tests.databases import MigratedDatabase
from tests.end_to_end.planted import EVERYTHING, PEOPLE
from tests.end_to_end.processes import Processes
from tests.end_to_end.steps import body_about
from tests.infrastructure.observability.tracing.receiver import OtlpReceiver, ReceivedSpan
from tests.kratos.admin_stand_in import AdminStandIn
from tests.kratos.reply import says
from tests.waiting import until

ROOT = Path(__file__).parents[2]
KEY = "a-key-of-no-worth"
KRATOS = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
SYNC, SYNCED, ASKED = (
    "POST /kratos/sync-identity",
    "process SyncKratosIdentity",
    "process AskKratos",
)
REQUEST = "GET /admin/identities/{id}"
REFUSED = says(json.dumps({"error": PEOPLE["an e-mail address"]}).encode(), 400)


@dataclass(frozen=True)
class Story:
    """What was received and written, and the spans by what they are."""

    receiver: OtlpReceiver
    events: Mapping[str, str]
    asked_kratos: list[Mapping[str, str]]
    log: str
    person: str
    pids: set[int]

    def one(self, name: str, number: int = 0) -> ReceivedSpan:
        return self.receiver.named(name)[number]

    def inside(self, name: str, parent: ReceivedSpan) -> ReceivedSpan:
        (found,) = [e for e in self.receiver.named(name) if e.parent_id == parent.span_id]
        assert found.trace_id == parent.trace_id
        return found


@pytest.fixture(scope="module")
def story(
    migrated_database: MigratedDatabase,
    broker_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Story]:
    """A person registers; a consumer fails, its worker is killed, it succeeds and is replayed."""
    person = str(uuid4())
    with (
        OtlpReceiver() as receiver,
        AdminStandIn(InMemoryDocuments()) as kratos,
        migrated_database() as url,
        psycopg.connect(url, autocommit=True, row_factory=dict_row) as connection,
        Processes(
            tmp_path_factory.mktemp("traced"),
            {
                "DATABASE_URL": url,
                "BROKER_URL": broker_url,
                "KRATOS_WEBHOOK_API_KEYS": KEY,
                "KRATOS_ADMIN_URL": kratos.url,
                "KRATOS_SYNC_APP": "tests.end_to_end.traced_app:app",
                "PYTHONPATH": str(ROOT),
                "LOG_FORMAT": "json",
                "LEASE_SECONDS": "5",
                "TRACES_STATEMENTS": "true",
                "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
                "OTEL_BSP_SCHEDULE_DELAY": "200",
            },
        ) as processes,
    ):

        def attempts(outcome: str) -> int:
            statement = (
                "SELECT count(*) AS number FROM kratos_sync.attempts"
                " WHERE consumer = 'AskKratos' AND outcome = %s"
            )
            (row,) = connection.execute(statement, [outcome]).fetchall()
            return int(row["number"])

        kratos.always = REFUSED
        for name in ("relay", "worker"):
            processes.start(name, name)
        processes.wait_for("worker", '"worker_started"')
        processes.start_api()
        headers = {"X-Api-Key": KEY, "Content-Type": "application/json", "traceparent": KRATOS}
        answer = processes.http.post(
            "/kratos/sync-identity", content=body_about(person), headers=headers
        )
        assert answer.status_code == 200
        until(lambda: attempts("failed"))
        until(lambda: receiver.named(ASKED))

        supervisor = psutil.Process(processes.pid_of("worker"))
        (worker,) = supervisor.children()
        worker.send_signal(signal.SIGKILL)
        kratos.always = None
        until(lambda: attempts("succeeded") == 1)
        (successor,) = supervisor.children()

        code, said = processes.run("replay", "--consumer", "AskKratos", "--since", "1h", "--yes")
        assert code == 0, said
        until(lambda: attempts("succeeded") == 2)
        processes.stop("api", "worker", "relay")
        rows = connection.execute("SELECT name, trace_context FROM kratos_sync.events").fetchall()
        yield Story(
            receiver,
            {row["name"]: row["trace_context"] for row in rows},
            [seen.headers for seen in kratos.seen],
            processes.said("worker"),
            person,
            {worker.pid, successor.pid},
        )


def test_the_webhook_continues_the_trace_of_kratos(story: Story) -> None:
    webhook = story.one(SYNC)

    assert (webhook.kind, webhook.process) == ("SERVER", "api")
    _, trace_id, span_id, _ = KRATOS.split("-")
    assert (webhook.trace_id, webhook.parent_id) == (trace_id, span_id)


def test_the_commit_is_part_of_the_webhook(story: Story) -> None:
    commit = story.inside(names.RECORD, story.one(SYNC))

    assert (commit.kind, commit.process) == ("PRODUCER", "api")
    assert story.events["kratos_identity.updated"] == story.one(SYNC).traceparent


def test_the_first_consumer_continues_the_webhook_and_its_fact_the_consumer(story: Story) -> None:
    synced = story.inside(SYNCED, story.one(SYNC))

    assert (synced.kind, synced.process) == ("CONSUMER", "worker")
    assert story.events["identity.registered"] == synced.traceparent


def test_the_second_consumer_continues_the_fact_and_asks_kratos(story: Story) -> None:
    failed = story.one(ASKED)
    request = story.inside(REQUEST, story.inside("ask", failed))

    assert failed.parent_id == story.one(SYNCED).span_id
    assert failed.trace_id == story.one(SYNC).trace_id
    assert (failed.is_error, failed.attributes["error.type"]) == (True, "RuntimeError")
    assert (request.kind, request.attributes["http.response.status_code"]) == ("CLIENT", 400)
    assert story.asked_kratos[0]["traceparent"] == request.traceparent


def test_a_retry_in_another_process_links_to_what_it_retries(story: Story) -> None:
    failed, retried, _ = story.receiver.named(ASKED)

    assert len(story.pids) == 2
    assert retried.attributes["kratos_sync.attempt"] == 2
    assert retried.instance != failed.instance
    assert retried.parent_id is None
    fact = story.one(SYNCED)
    assert retried.links == ((fact.trace_id, fact.span_id),)
    request = story.inside(REQUEST, story.inside("ask", retried))
    assert request.attributes["http.response.status_code"] == 404
    assert story.asked_kratos[1]["traceparent"] == request.traceparent


def test_a_replay_soon_after_is_part_of_the_trace(story: Story) -> None:
    *_, replayed = story.receiver.named(ASKED)

    assert replayed.parent_id == story.one(SYNCED).span_id
    assert not replayed.is_error


def test_lines_of_the_log_name_the_span(story: Story) -> None:
    lines = [json.loads(line) for line in story.log.splitlines() if line.startswith("{")]
    failed, retried, replayed = story.receiver.named(ASKED)
    of_consumer = [line for line in lines if line.get("consumer") == "AskKratos"]

    for span, event in (
        (failed, "delivery_failed"),
        (retried, "delivered"),
        (replayed, "delivered"),
    ):
        (line,) = [
            line
            for line in of_consumer
            if line.get("span_id") == span.span_id and line["event"] == event
        ]
        assert line["trace_id"] == span.trace_id


def test_every_span_of_ours_is_documented(story: Story) -> None:
    documented = {attribute.name for span in names.SPANS for attribute in span.attributes}

    for span in story.receiver.spans:
        if span.schema_url == names.SCHEMA_URL:
            assert span.attributes.keys() <= documented


def test_statements_are_part_of_the_consumer_that_makes_them(story: Story) -> None:
    statements = [span for span in story.receiver.spans if "db.system" in span.attributes]

    assert statements
    assert all(span.parent_id is not None for span in statements)


def test_no_span_tells_of_a_person(story: Story) -> None:
    received = {f"body {n}": body for n, body in enumerate(story.receiver.bodies)}

    assert EVERYTHING.found_in(received) == []
    assert not [body for body in received.values() if story.person.encode() in body]
    assert b"kratos_identity.updated" in b"".join(received.values())


def test_the_trace_is_kept_for_its_picture(story: Story, tmp_path: Path) -> None:
    kept = Path(os.environ.get("KEEP_TRACE", tmp_path / "trace.json"))
    spans: list[dict[str, Any]] = [
        asdict(span)
        for span in story.receiver.spans
        if span.schema_url == names.SCHEMA_URL or span.name == "ask"
    ]
    for span in spans:
        span["attributes"] = {
            name: value
            for name, value in span["attributes"].items()
            if name not in {"url.full", "server.address", "server.port"}
        }
    kept.write_text(json.dumps(spans, indent=1) + "\n")

    assert {SYNC, SYNCED, ASKED, REQUEST, names.RECORD} <= {span["name"] for span in spans}
