"""What is reported to Sentry of errors, and what is not."""

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
import structlog
from pydantic import SecretStr
from structlog.testing import capture_logs

from kratos_sync.application.consumer import Consumer
from kratos_sync.application.pipeline import Batch, pipeline
from kratos_sync.application.ports.dead_letters import FailedAttempt
from kratos_sync.domain.events import KratosIdentityUpdated
from kratos_sync.infrastructure.observability.errors import sentry, start
from kratos_sync.infrastructure.observability.errors.sentry import SentryReports
from kratos_sync.infrastructure.telemetry import configure_logging
from kratos_sync.testing.ledger import InMemoryLedger
from tests.api.cli.invoking import process_state_kept
from tests.domain.people import cause
from tests.end_to_end.canaries import Search
from tests.infrastructure.observability.sentry_receiver import KEY, SentryReceiver, receiving
from tests.suites.occurrences import WEBHOOK, subscribed, updated

CANARIES = {
    "an address": "zoe.canary+4711@mail.test",
    "a name": "Zoë Ünïcanary 姓名 😀",
    "a word": "canary",
    "a header": "headerC4nary",
}
EVERYTHING = Search(CANARIES)
CANARY = " ".join(CANARIES.values())


@pytest.fixture
def received() -> Iterator[SentryReceiver]:
    with receiving() as receiver:
        yield receiver
        assert EVERYTHING.found_in(dict(enumerate(receiver.raw))) == []  # type: ignore[arg-type]


@pytest.fixture
def reports(received: SentryReceiver) -> Iterator[SentryReports]:
    reports = SentryReports(received.dsn, "worker", "kratos-identity-sync@1.2.3", "testing")
    with process_state_kept():
        configure_logging("json", "INFO")
        with reports.running(lambda error: isinstance(error, TimeoutError)):
            yield reports


def mail(address: str) -> None:
    """Fail with everything that can be known of a person."""
    headers = {"X-Api-Key": CANARIES["a header"]}
    try:
        {}[f"{address} {headers}"]
    except KeyError as error:
        raise ValueError(f"cannot mail {address}: {headers}") from error


def test_a_report_has_types_files_functions_and_lines_and_nothing_else(
    received: SentryReceiver, reports: SentryReports
) -> None:
    with suppress(ValueError):
        mail(CANARY)
    try:
        mail(CANARY)
    except ValueError as error:
        reports.report("odd", error, consumer="Mail", event_name=None)

    event = received.received("odd")
    assert event.keys() == {
        *("environment", "event_id", "exception", "fingerprint", "level", "platform", "release"),
        *("sdk", "tags", "timestamp"),
    }
    assert (event["release"], event["environment"]) == ("kratos-identity-sync@1.2.3", "testing")
    assert event["tags"] == {"what": "odd", "process": "worker", "number": "1", "consumer": "Mail"}
    cause, thrown = event["exception"]["values"]
    assert (cause["type"], cause["value"], thrown["type"], thrown["value"]) == (
        "KeyError",
        "",
        "ValueError",
        "",
    )
    assert {key for each in (cause, thrown) for key in each} == {"type", "value", "stacktrace"}
    *_, frame = thrown["stacktrace"]["frames"]
    assert frame.keys() == {"filename", "function", "lineno", "in_app"}
    assert frame["filename"].endswith("tests/infrastructure/observability/test_error_reports.py")
    assert (frame["function"], frame["in_app"]) == ("mail", True)
    assert not frame["filename"].startswith("/")
    assert event["sdk"]["integrations"] == []


def test_a_library_s_frames_are_named_by_their_place_in_it(
    received: SentryReceiver, reports: SentryReports
) -> None:
    try:
        structlog.get_config()["processors"][0](None, None, CANARY)
        structlog.stdlib.ProcessorFormatter(processors=[])
    except Exception as error:  # noqa: BLE001  # whatever it is
        reports.report("odd", error)

    frames = received.received("odd")["exception"]["values"][-1]["stacktrace"]["frames"]
    assert frames[-1]["filename"].startswith("structlog/")
    assert frames[-1]["in_app"] is False


def test_errors_of_a_kind_are_counted_and_reported_once_in_a_while(
    received: SentryReceiver, reports: SentryReports, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(sentry, "monotonic", lambda: now)
    for _ in range(100):
        with_a_text = ValueError(CANARY)
        reports.report("odd", with_a_text)
    reports.report("odd", KeyError(CANARY))
    now += sentry.ONCE_IN_SECONDS
    reports.report("odd", ValueError(CANARY))
    reports.report("last")

    received.received("last")
    sent = [(e["exception"]["values"][0]["type"], e["tags"]["number"]) for e in received.events]
    assert sent == [("ValueError", "1"), ("KeyError", "1"), ("ValueError", "100"), ("last", "1")]


def test_only_so_many_kinds_are_remembered(reports: SentryReports) -> None:
    for number in range(2 * sentry.MOST_KINDS):
        reports.report(f"odd {number}")

    assert len(reports._kinds) == sentry.MOST_KINDS


def test_a_sentry_that_does_not_answer_holds_up_nobody(
    received: SentryReceiver, reports: SentryReports
) -> None:
    received.answers.clear()
    began = time.monotonic()
    for number in range(10 * sentry.MOST_QUEUED):
        reports.report(f"odd {number}")
    assert time.monotonic() - began < 10 * sentry.END_SECONDS
    received.answers.set()
    reports._client.flush(10)

    assert len(received.events) <= sentry.MOST_QUEUED + 1


def test_a_report_that_fails_disturbs_nobody(
    reports: SentryReports, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed: list[object] = []

    def fail(event: object) -> None:
        failed.append(event)
        raise RuntimeError

    monkeypatch.setattr(reports._client, "capture_event", fail)
    reports.report("odd")

    assert len(failed) == 1


def test_the_end_of_a_process_sends_what_waits(received: SentryReceiver) -> None:
    reports = SentryReports(received.dsn, "relay", "1", "testing")
    with reports.running(lambda _: False):
        reports.report("odd")

    assert [event["tags"]["what"] for event in received.events] == ["odd"]


def test_a_crash_is_reported_and_one_that_is_expected_is_not(received: SentryReceiver) -> None:
    for error in (ValueError(CANARY), TimeoutError(CANARY)):
        reports = SentryReports(received.dsn, "relay", "1", "testing")
        with (
            pytest.raises(type(error)),
            reports.running(lambda error: isinstance(error, TimeoutError)),
        ):
            raise error

    (event,) = received.events
    assert event["tags"]["what"] == "crashed"
    assert event["exception"]["values"][-1]["type"] == "ValueError"


@pytest.mark.usefixtures("reports")
def test_a_thread_that_crashes_is_reported(received: SentryReceiver) -> None:
    thread = threading.Thread(target=mail, args=(CANARY,), name="mailing")
    thread.start()
    thread.join()

    event = received.received("thread_crashed")
    assert event["exception"]["values"][-1]["type"] == "ValueError"
    assert [each["tags"]["what"] for each in received.events] == ["thread_crashed"]


def logged_by_us(log: Any) -> None:
    try:
        mail(CANARY)
    except ValueError:
        log.error("batch_abandoned", consumer="Mail", reason=CANARY)  # noqa: TRY400  # as we do


def logged_without_an_error(log: Any) -> None:
    log.error("consumer_hangs", consumer="Mail", event_id="7", identity_id=CANARY, at=CANARY)


def logged_by_a_library(_: Any) -> None:
    try:
        mail(CANARY)
    except ValueError:
        logging.getLogger("uvicorn.error").exception("odd: %s", CANARY)


@pytest.mark.usefixtures("reports")
@pytest.mark.parametrize(
    ("happen", "what", "kind", "tags"),
    [
        (logged_by_us, "batch_abandoned", "ValueError", {"consumer": "Mail"}),
        (
            logged_without_an_error,
            "consumer_hangs",
            "consumer_hangs",
            {"consumer": "Mail", "event_id": "7"},
        ),
        (logged_by_a_library, "uvicorn.error", "ValueError", {}),
    ],
)
def test_what_is_logged_as_an_error_is_reported_without_the_line(
    received: SentryReceiver,
    happen: Callable[[Any], None],
    what: str,
    kind: str,
    tags: dict[str, str],
) -> None:
    happen(structlog.get_logger("kratos_sync.test"))

    event = received.received(what)
    assert event["exception"]["values"][-1]["type"] == kind
    assert event["tags"] == {"what": what, "process": "worker", "number": "1", **tags}


@pytest.mark.usefixtures("reports")
def test_warnings_and_lines_without_an_error_of_libraries_are_not_reported(
    received: SentryReceiver, reports: SentryReports
) -> None:
    structlog.get_logger("kratos_sync.test").warning("delivery_failed", error=CANARY)
    logging.getLogger("a.library").error("odd: %s", CANARY)
    reports.report("last")

    received.received("last")
    assert len(received.events) == 1


class LoseHeart(Consumer[KratosIdentityUpdated]):
    """Fails each time, with everything that it knows of a person."""

    name = "LoseHeart"
    max_attempts = 2
    first_backoff = timedelta(seconds=10)

    def consume(self, event: KratosIdentityUpdated) -> None:
        mail(CANARY)


def test_a_consumer_s_last_failure_is_reported_and_those_before_it_are_not(
    received: SentryReceiver, reports: SentryReports
) -> None:
    ledger = InMemoryLedger()
    with subscribed(ledger, KratosIdentityUpdated, LoseHeart):
        ledger.publish(updated(1), WEBHOOK)
    deliver = pipeline(*reports.observers)
    deliver(Batch(LoseHeart, [cause(1)], ledger.unit_of_work(), ledger))
    assert received.events == []
    ledger.now += timedelta(hours=2)
    deliver(Batch(LoseHeart, [cause(1)], ledger.unit_of_work(), ledger))

    event = received.received("dead_letter")
    assert event["exception"]["values"][-1]["type"] == "ValueError"
    assert event["tags"] == {
        "what": "dead_letter",
        "process": "worker",
        "number": "1",
        "error_type": "ValueError",
        "consumer": "LoseHeart",
        "event_name": "kratos_identity.updated",
        "event_id": str(cause(1)),
        "attempt": "2",
    }


class Recorded:
    """The Failures port, that remembers."""

    def __init__(self) -> None:
        self.attempts: list[FailedAttempt] = []

    def record(self, attempt: FailedAttempt) -> None:
        self.attempts.append(attempt)


def test_a_last_attempt_that_was_lost_is_recorded_and_reported_by_its_type(
    received: SentryReceiver, reports: SentryReports
) -> None:
    attempts = [
        FailedAttempt(
            uuid4(),
            "LoseHeart",
            number,
            datetime.now(UTC),
            timedelta(),
            CANARY,
            retry_after,
            error_type="WorkerDied",
        )
        for number, retry_after in ((1, timedelta(seconds=1)), (2, None))
    ]
    recorded = Recorded()
    failures = reports.of_lost(recorded)
    for attempt in attempts:
        failures.record(attempt)

    event = received.received("dead_letter")
    assert recorded.attempts == attempts
    assert event["tags"]["error_type"] == "WorkerDied"
    assert event["tags"]["attempt"] == "2"


def test_without_a_dsn_sentry_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, sentry.__name__)
    with start.started("relay", None, "testing") as reports:
        assert reports.observers == ()
    assert sentry.__name__ not in sys.modules


def test_without_the_extra_a_process_says_so_and_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "find_spec", lambda _: None)
    dsn = SecretStr(f"https://{KEY}@sentry.example/7")
    with capture_logs() as logs, start.started("relay", dsn, "testing") as reports:
        assert reports.observers == ()
    assert [line["event"] for line in logs] == ["errors_not_reported"]
    assert KEY not in str(logs)
