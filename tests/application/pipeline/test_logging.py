"""What the log says of a delivery, and what it never says."""

from typing import Any

import structlog
from structlog.testing import capture_logs

from kratos_sync.application.consumer import Consumer
from kratos_sync.application.consumers.sync_kratos_identity import SyncKratosIdentity
from kratos_sync.application.pipeline.outcomes import add_delivery
from kratos_sync.application.ports.event_bus import Provenance
from kratos_sync.application.ports.unit_of_work import ConcurrencyConflict
from kratos_sync.domain.events import KratosIdentityUpdated
from kratos_sync.testing.ledger import InMemoryLedger
from tests.application.delivering import deliver_to
from tests.domain.people import ADA, GRACE, cause
from tests.suites.occurrences import WEBHOOK, subscribed, updated

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
log = structlog.get_logger()


class Greet(Consumer[KratosIdentityUpdated]):
    """Says so in the log; fails for Grace, and quotes her address in its error."""

    name = "Greet"
    max_attempts = 2

    def consume(self, event: KratosIdentityUpdated) -> None:
        log.info("greeting")
        if event.identity.id == GRACE:
            raise ValueError("cannot greet grace@example.org")


def lines_of(consumer: type[Consumer[Any]], ledger: InMemoryLedger) -> list[dict[str, Any]]:
    with capture_logs(processors=[add_delivery]) as lines:
        deliver_to(consumer, ledger)
    return [dict(line) for line in lines]


def test_a_delivery_logs_one_line_with_whose_it_was(ledger: InMemoryLedger) -> None:
    ledger.publish(updated(1), Provenance("webhook", traceparent=TRACEPARENT))

    (line,) = lines_of(SyncKratosIdentity, ledger)

    assert line.pop("milliseconds") >= 0
    assert line == {
        "event": "delivered",
        "log_level": "info",
        "event_id": str(cause(1)),
        "event_name": "kratos_identity.updated",
        "consumer": "SyncKratosIdentity",
        "attempt": 1,
        "identity_id": str(ADA),
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    }


def test_a_batch_logs_one_line_that_counts(ledger: InMemoryLedger) -> None:
    ledger.publish(updated(1, ADA), WEBHOOK)
    ledger.publish(updated(2, GRACE), WEBHOOK)

    (line,) = lines_of(SyncKratosIdentity, ledger)

    assert (line["event"], line["consumer"], line["events"]) == (
        "delivered",
        "SyncKratosIdentity",
        2,
    )


def test_nothing_pending_logs_nothing(ledger: InMemoryLedger) -> None:
    ledger.publish(updated(1), WEBHOOK)
    deliver_to(SyncKratosIdentity, ledger)

    with capture_logs() as lines:
        deliver_to(SyncKratosIdentity, ledger, cause(1))

    assert lines == []


def test_what_a_consumer_logs_carries_the_delivery(ledger: InMemoryLedger) -> None:
    with subscribed(ledger, KratosIdentityUpdated, Greet):
        ledger.publish(updated(1), Provenance("webhook", traceparent=TRACEPARENT))

    greeting, delivered = lines_of(Greet, ledger)

    assert greeting == {
        "event": "greeting",
        "log_level": "info",
        "event_id": str(cause(1)),
        "event_name": "kratos_identity.updated",
        "consumer": "Greet",
        "attempt": 1,
        "identity_id": str(ADA),
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    }
    assert delivered["event"] == "delivered"


def test_what_is_bound_for_one_delivery_is_let_go_before_the_next(ledger: InMemoryLedger) -> None:
    with subscribed(ledger, KratosIdentityUpdated, Greet):
        ledger.publish(updated(1, GRACE), WEBHOOK)
        ledger.publish(updated(2, ADA), WEBHOOK)

    with capture_logs(processors=[add_delivery]) as lines:
        deliver_to(Greet, ledger)
        log.info("idle")

    greetings = [line["event_id"] for line in lines if line["event"] == "greeting"]
    assert greetings == [str(cause(1)), str(cause(2))]
    assert lines[-1] == {"event": "idle", "log_level": "info"}


def test_a_failure_is_logged_by_its_kind_and_place_and_not_its_text(ledger: InMemoryLedger) -> None:
    with subscribed(ledger, KratosIdentityUpdated, Greet):
        ledger.publish(updated(1, GRACE), WEBHOOK)

    failed = lines_of(Greet, ledger)[-1]

    assert (failed["event"], failed["log_level"]) == ("delivery_failed", "warning")
    assert (failed["event_id"], failed["identity_id"]) == (str(cause(1)), str(GRACE))
    assert (failed["consumer"], failed["attempt"]) == ("Greet", 1)
    assert failed["error"] == "ValueError"
    assert failed["at"].startswith("test_logging.py:")
    assert 0.8 <= failed["retry_after_seconds"] <= 1.0
    assert "grace@example.org" not in str(failed)


def test_giving_up_is_logged_as_such(ledger: InMemoryLedger) -> None:
    with subscribed(ledger, KratosIdentityUpdated, Greet):
        ledger.publish(updated(1, GRACE), WEBHOOK)
    deliver_to(Greet, ledger)
    ledger.deliveries["Greet", cause(1)].due_at = ledger.now

    gave_up = lines_of(Greet, ledger)[-1]

    assert (gave_up["event"], gave_up["attempt"]) == ("delivery_gave_up", 2)
    assert gave_up["retry_after_seconds"] is None


def test_a_retry_at_once_is_not_logged_as_giving_up(ledger: InMemoryLedger) -> None:
    class Insist(Greet):
        name = "Insist"
        first_backoff = Greet.first_backoff * 0

    with subscribed(ledger, KratosIdentityUpdated, Insist):
        ledger.publish(updated(1, GRACE), WEBHOOK)

    failed = lines_of(Insist, ledger)[-1]

    assert (failed["event"], failed["retry_after_seconds"]) == ("delivery_failed", 0)


def test_no_line_has_traits_or_addresses(ledger: InMemoryLedger) -> None:
    with subscribed(ledger, KratosIdentityUpdated, Greet, SyncKratosIdentity):
        ledger.publish(updated(1, ADA), WEBHOOK)
        ledger.publish(updated(2, GRACE), WEBHOOK)
    ledger.commit_errors.append(ConcurrencyConflict("ada@example.org was there first"))

    lines = str([*lines_of(SyncKratosIdentity, ledger), *lines_of(Greet, ledger)])

    assert lines.count("delivered") == 2
    assert "example.org" not in lines
    assert "Lovelace" not in lines
