"""What a process counts, as Prometheus reads it."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import ClassVar
from uuid import UUID, uuid4

import pytest
from prometheus_client.parser import text_string_to_metric_families

from kratos_sync.api.http.webhooks import handler
from kratos_sync.application.consumer import Consumer, RetryLater
from kratos_sync.application.pipeline import Batch, pipeline
from kratos_sync.application.ports.dead_letters import FailedAttempt
from kratos_sync.application.ports.event_bus import LedgerUnavailable
from kratos_sync.application.ports.purge import Removed
from kratos_sync.domain.events import KratosIdentityUpdated
from kratos_sync.infrastructure.observability import definitions as define
from kratos_sync.infrastructure.observability.definitions import METRICS, PROCESSES, Metric
from kratos_sync.infrastructure.observability.metrics import MOST_ERROR_TYPES, Metrics
from kratos_sync.infrastructure.observability.observer import reporting
from kratos_sync.testing.ledger import InMemoryLedger
from tests.domain.people import cause
from tests.suites.occurrences import WEBHOOK, person, subscribed, updated

Samples = dict[tuple[str, ...], float]


class Greet(Consumer[KratosIdentityUpdated]):
    """Does with each event what the test wants."""

    name = "Greet"
    max_attempts = 2
    first_backoff = timedelta()
    errors: ClassVar[dict[UUID, Exception]] = {}

    def consume(self, event: KratosIdentityUpdated) -> None:
        if (error := self.errors.get(event.id)) is not None:
            raise error


@pytest.fixture(autouse=True)
def errors() -> dict[UUID, Exception]:
    Greet.errors = {}
    return Greet.errors


def metrics_of(process: str) -> Metrics:
    return Metrics(process, "1.2.3", ["Greet", "Mourn"])


def text(metrics: Metrics) -> str:
    return metrics.routes["/metrics"]().body.decode()


def samples(metrics: Metrics, metric: Metric, suffix: str = "") -> Samples:
    """The values of a metric by the values of its labels, in their order."""
    return {
        tuple(sample.labels[name] for name in metric.labels): sample.value
        for family in text_string_to_metric_families(text(metrics))
        for sample in family.samples
        if sample.name == metric.name + suffix
    }


def changed(metrics: Metrics, metric: Metric, suffix: str = "") -> Samples:
    """Those that are not 0."""
    return {labels: value for labels, value in samples(metrics, metric, suffix).items() if value}


def consumed(metrics: Metrics, ledger: InMemoryLedger, *numbers: int) -> None:
    """Deliver these events as a worker does."""
    ids = [cause(number) for number in numbers]
    batch = Batch(Greet, ids, ledger.unit_of_work(), ledger)
    pipeline(reporting(metrics))(batch)


@pytest.fixture
def ledger() -> Iterator[InMemoryLedger]:
    ledger = InMemoryLedger()
    with subscribed(ledger, KratosIdentityUpdated, Greet):
        for number in range(1, 6):
            ledger.publish(updated(number, person(number)), WEBHOOK)
        yield ledger


def test_attempts_count_by_their_outcome_and_each_once(
    ledger: InMemoryLedger, errors: dict[UUID, Exception]
) -> None:
    metrics = metrics_of("worker")
    errors[cause(2)] = LookupError("no such person: robin@example.org")
    errors[cause(3)] = RetryLater(timedelta(minutes=1))
    consumed(metrics, ledger, 1, 2, 3, 4)
    consumed(metrics, ledger, 2)
    assert changed(metrics, define.ATTEMPTS) == {
        ("Greet", "succeeded"): 2,
        ("Greet", "failed"): 1,
        ("Greet", "dead"): 1,
        ("Greet", "postponed"): 1,
    }
    assert samples(metrics, define.FAILURES) == {("Greet", "LookupError"): 2}


def test_a_batch_shows_its_size_its_duration_and_how_late_each_delivery_was(
    ledger: InMemoryLedger,
) -> None:
    metrics = metrics_of("worker")
    consumed(metrics, ledger, 1, 2, 3)
    consumed(metrics, ledger, 4, 5)
    assert changed(metrics, define.BATCH_SIZE, "_sum") == {("Greet",): 5}
    assert changed(metrics, define.BATCH_DURATION, "_count") == {("Greet",): 2}
    assert changed(metrics, define.LATENCY, "_count") == {("Greet",): 5}


def test_a_batch_that_was_not_committed_counts_nothing(ledger: InMemoryLedger) -> None:
    metrics = metrics_of("worker")
    ledger.is_unavailable = True
    with pytest.raises(LedgerUnavailable):
        consumed(metrics, ledger, 1, 2)
    assert changed(metrics, define.ATTEMPTS) == {}


def test_a_lost_attempt_counts_as_one() -> None:
    metrics = metrics_of("worker")
    metrics.attempt_lost(failed("WorkerDied"))
    assert changed(metrics, define.ATTEMPTS) == {("Greet", "failed"): 1}
    assert samples(metrics, define.FAILURES) == {("Greet", "WorkerDied"): 1}


def failed(error_type: str | None) -> FailedAttempt:
    return FailedAttempt(
        uuid4(), "Greet", 1, datetime.now(UTC), timedelta(), "", timedelta(), error_type
    )


def test_error_types_are_bounded_in_number() -> None:
    metrics = metrics_of("worker")
    for number in range(MOST_ERROR_TYPES + 5):
        metrics.attempt_lost(failed(f"errors.Error{number}"))
    metrics.attempt_lost(failed("errors.Error0"))
    found = samples(metrics, define.FAILURES)
    assert len(found) == MOST_ERROR_TYPES + 1
    assert found["Greet", "other"] == 5
    assert found["Greet", "errors.Error0"] == 2


@pytest.mark.parametrize(
    "name",
    [
        "robin@example.org",
        "NoSuchPerson: Robin Example",
        "Error_7f3c0f0e-8f5b-4d0e-9d4e-0c6a0b7f4a11",
        "Error20261123",
        "x" * 200,
        "Fehler_ä",
        "",
    ],
)
def test_what_is_no_plain_name_is_no_label(name: str) -> None:
    metrics = metrics_of("worker")
    metrics.attempt_lost(failed(name))
    assert samples(metrics, define.FAILURES) == {("Greet", "other"): 1}


def test_counters_begin_at_zero_for_every_consumer_that_is_subscribed() -> None:
    metrics = metrics_of("worker")
    assert samples(metrics, define.ATTEMPTS) == {
        (consumer, outcome): 0 for consumer in ("Greet", "Mourn") for outcome in define.OUTCOMES
    }


def test_webhooks_count_by_result() -> None:
    metrics = metrics_of("api")
    answered = metrics.webhooks("sync-identity")
    answered("accepted", 0.003)
    answered("accepted", 0.004)
    answered("unavailable", 25.0)
    assert changed(metrics, define.WEBHOOKS) == {
        ("sync-identity", "accepted"): 2,
        ("sync-identity", "unavailable"): 1,
    }
    assert changed(metrics, define.WEBHOOK_DURATION, "_count") == {("sync-identity",): 3}


def test_every_result_of_a_handler_is_known() -> None:
    results = {handler._result_of(status) for status in range(200, 600)}
    noted = {"duplicate", "refused", "misrouted", "failed", "disconnected"}
    assert results | noted == set(define.RESULTS)


def test_a_relay_counts_what_it_dispatches_and_purges() -> None:
    metrics = metrics_of("relay")
    metrics.dispatched("Greet", 20)
    metrics.leases_expired("Mourn", 3)
    metrics.purged(Removed(events=7, attempts=9))
    assert changed(metrics, define.DISPATCHED) == {("Greet",): 20}
    assert changed(metrics, define.EXPIRED_LEASES) == {("Mourn",): 3}
    assert changed(metrics, define.PURGED) == {("events",): 7, ("attempts",): 9}


def test_requests_to_kratos_count_by_status_and_the_circuit_shows() -> None:
    metrics = metrics_of("reconcile")
    metrics.kratos_answered("page", 200, 0.1)
    metrics.kratos_answered("find", None, 5.0)
    metrics.kratos_answered("find", 799, 0.1)
    metrics.circuit(is_open=True)
    assert samples(metrics, define.KRATOS_REQUESTS) == {
        ("page", "200"): 1,
        ("find", "none"): 1,
        ("find", "other"): 1,
    }
    assert samples(metrics, define.CIRCUIT_OPEN) == {(): 1}
    metrics.circuit(is_open=False)
    assert samples(metrics, define.CIRCUIT_OPEN) == {(): 0}


def test_what_is_watched_is_read_when_it_is_exported() -> None:
    metrics, held = metrics_of("api"), [3]
    metrics.watch(define.HELD, lambda: float(held[0]))
    assert samples(metrics, define.HELD) == {(): 3}
    held[0] = 4
    assert samples(metrics, define.HELD) == {(): 4}


def test_a_process_exports_no_metric_of_another() -> None:
    metrics = metrics_of("api")
    metrics.watch(define.THREADS_BUSY, lambda: 1.0)
    assert define.THREADS_BUSY.name not in text(metrics)


@pytest.mark.parametrize("process", PROCESSES)
def test_every_process_says_what_it_is_and_what_it_costs(process: str) -> None:
    metrics = metrics_of(process)
    assert samples(metrics, define.BUILD) == {("1.2.3", process): 1}
    written = text(metrics)
    assert "process_resident_memory_bytes" in written
    assert "python_gc_collections_total" in written
    assert "_created" not in written


def test_a_service_that_cannot_be_used_is_down_at_once_and_its_outage_counted() -> None:
    metrics, is_checked = metrics_of("relay"), threading.Event()
    try:
        metrics.watch_ledger(is_checked.set)
        assert is_checked.wait(60)
        while not metrics.ledger.is_up:
            pass
        metrics.ledger_unavailable()
        metrics.ledger_unavailable()
        assert samples(metrics, define.LEDGER_OUTAGES) == {(): 1}
    finally:
        metrics.stop()


def test_the_help_is_that_of_the_definitions() -> None:
    written = "".join(text(metrics_of(process)) for process in PROCESSES)
    counted = [metric for metric in METRICS if metric.kind != "gauge"]
    shown = [metric for metric in counted if f"# HELP {metric.name} {metric.help}\n" in written]
    watched = {define.LEDGER_OUTAGES, define.BROKER_OUTAGES, define.REPLACED}
    assert set(counted) - set(shown) == watched | {define.REFUSED_CONNECTIONS}


def test_calls_are_counted_once_however_many_threads_read_them_meanwhile() -> None:
    metrics, has_ended = metrics_of("api"), threading.Event()
    answered = metrics.webhooks("sync-identity")

    def scrape() -> None:
        while not has_ended.is_set():
            text(metrics)

    threads = [threading.Thread(target=scrape, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(20_000):
        answered("accepted", 0.003)
    has_ended.set()
    for thread in threads:
        thread.join(60)
    assert changed(metrics, define.WEBHOOKS) == {("sync-identity", "accepted"): 20_000}
    assert changed(metrics, define.WEBHOOK_DURATION, "_count") == {("sync-identity",): 20_000}


def test_a_process_that_is_relay_and_worker_exports_what_both_do() -> None:
    exported = {
        role: {family.name for family in text_string_to_metric_families(text(metrics_of(role)))}
        for role in ("relay", "worker", "delivery")
    }

    assert exported["delivery"] == exported["relay"] | exported["worker"]
    assert samples(metrics_of("delivery"), define.BUILD).keys() == {
        ("1.2.3", "relay"),
        ("1.2.3", "worker"),
    }
