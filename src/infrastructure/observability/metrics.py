"""The metrics of a process, counted by prometheus-client.

Only processes with METRICS_PORT, or with an endpoint for OTLP, import this module.
"""

import re
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from http import HTTPStatus
from itertools import product
from time import monotonic, time
from typing import Final

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    GCCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client import (
    Metric as Family,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from kratos_sync.application.pipeline.batch import Batch, Result
from kratos_sync.application.ports.dead_letters import FailedAttempt
from kratos_sync.application.ports.purge import Removed
from kratos_sync.infrastructure.observability import definitions as define
from kratos_sync.infrastructure.observability.definitions import Metric
from kratos_sync.infrastructure.observability.dependencies import Dependency
from kratos_sync.infrastructure.observability.histograms import Histogram, Observations
from kratos_sync.infrastructure.observability.http_server import Response, Route
from kratos_sync.infrastructure.observability.observer import Observer, Reading
from kratos_sync.infrastructure.observability.webhook_metrics import (
    AnsweredWebhooks,
    WebhookMetrics,
)

CHECK_SECONDS: Final = 5.0
"""How often it is checked whether PostgreSQL and the broker can be used."""
MOST_ERROR_TYPES: Final = 50
OTHER: Final = "other"
NO_ANSWER: Final = "none"
_ERROR_TYPE: Final = re.compile(r"(?!.*\d{4})[A-Za-z_][A-Za-z0-9_.<>]{0,119}")
"""A dotted name, without what may be a number or an id."""
_OUTCOMES: Final = {"failed": "failed", "gave_up": "dead", "postponed": "postponed"}
_STATUS: Final = {status.value: str(status.value) for status in HTTPStatus}
_COUNTED: Final = frozenset(
    {
        define.EVENTS_PER_COMMIT,
        define.DISPATCHED,
        define.EXPIRED_LEASES,
        define.PURGED,
        define.ATTEMPTS,
        define.FAILURES,
        define.BATCH_SIZE,
        define.BATCH_DURATION,
        define.LATENCY,
        define.KRATOS_REQUESTS,
        define.KRATOS_DURATION,
    }
)
"""Metrics that are counted as things happen; all others are read when they are exported."""


class _Watched(Collector):
    """Metrics whose values are read when they are exported."""

    def __init__(self) -> None:
        self._reads: dict[Metric, Callable[[], Reading]] = {}

    def add(self, metric: Metric, read: Callable[[], Reading]) -> None:
        self._reads[metric] = read

    def collect(self) -> Iterator[Family]:
        for metric, read in list(self._reads.items()):
            reading = read()
            values = reading if isinstance(reading, Mapping) else {(): reading}
            kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
            family = kind(metric.name, metric.help, labels=list(metric.labels))
            for labels, value in values.items():
                family.add_metric(labels, value)
            yield family


class Metrics(Observer):
    """Counts what the process does, for consumers of these names."""

    def __init__(self, process: str, version: str, consumers: Collection[str]) -> None:
        super().__init__()
        disable_created_metrics()  # type: ignore[no-untyped-call]  # of the library
        self.registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._roles = define.PARTS.get(process, (process,))
        self._watched = _Watched()
        self.registry.register(self._watched)
        self._error_types: set[str] = set()
        self._lock = threading.Lock()
        self._circuit_is_open = False
        counted = [each for each in define.METRICS if self._has(each) and each in _COUNTED]
        self._counters = {
            each: _counter(each, self.registry, consumers)
            for each in counted
            if each.kind == "counter"
        }
        self._histograms = {
            each: Histogram(each, _values_of(each, consumers))
            for each in counted
            if each.kind == "histogram"
        }
        for histogram in self._histograms.values():
            self.registry.register(histogram)
        self.ledger = Dependency("ledger-check", CHECK_SECONDS)
        self.broker = Dependency("broker-check", CHECK_SECONDS)
        self._dependencies: dict[str, Dependency] = {}
        self._webhooks = {each: AnsweredWebhooks() for each in define.ENDPOINTS}
        if self._has(define.WEBHOOKS):
            self.registry.register(WebhookMetrics(self._webhooks))
        self.watch(define.BUILD, lambda: {(version, role): 1.0 for role in self._roles})
        self.watch(define.LOOP_AGE, lambda: max(map(self.age_of, self._roles)))
        self.watch(define.CIRCUIT_OPEN, lambda: float(self._circuit_is_open))

    @property
    def is_counting(self) -> bool:
        return True

    @property
    def routes(self) -> Mapping[str, Route]:
        return {"/metrics": self._scrape}

    def _scrape(self) -> Response:
        return Response(generate_latest(self.registry), CONTENT_TYPE_LATEST)

    def stop(self) -> None:
        """Check nothing any longer."""
        self.ledger.stop()
        self.broker.stop()

    def watch(self, metric: Metric, read: Callable[[], Reading]) -> None:
        """Export what `read` returns, if this process exports the metric."""
        if self._has(metric):
            self._watched.add(metric, read)

    def watch_ledger(self, check: Callable[[], None]) -> None:
        self.watch(define.LEDGER_UP, lambda: float(self.ledger.is_up))
        self.watch(define.LEDGER_OUTAGES, lambda: float(self.ledger.outages))
        self._dependencies["database"] = self.ledger
        self.ledger.start(check)

    def watch_broker(self, check: Callable[[], None]) -> None:
        self.watch(define.BROKER_UP, lambda: float(self.broker.is_up))
        self.watch(define.BROKER_OUTAGES, lambda: float(self.broker.outages))
        self._dependencies["broker"] = self.broker
        self.broker.start(check)

    @property
    def dependencies(self) -> Mapping[str, Dependency]:
        return self._dependencies

    def ledger_unavailable(self) -> None:
        self.ledger.failed()

    def broker_unavailable(self) -> None:
        self.broker.failed()

    def webhooks(self, endpoint: str) -> Callable[[str, float], None]:
        return self._webhooks[endpoint].answered

    def committed(self, events: int) -> None:
        self._observations(define.EVENTS_PER_COMMIT).add(events)

    def dispatched(self, consumer: str, deliveries: int) -> None:
        self._counter(define.DISPATCHED, consumer).inc(deliveries)

    def leases_expired(self, consumer: str, deliveries: int) -> None:
        self._counter(define.EXPIRED_LEASES, consumer).inc(deliveries)

    def purged(self, removed: Removed) -> None:
        for table, rows in removed._asdict().items():
            self._counter(define.PURGED, table).inc(rows)

    def delivered(self, batch: Batch, result: Result) -> None:
        done = len(result.succeeded) + len(result.failed)
        if not done:
            return
        consumer = batch.consumer.name
        self._observations(define.BATCH_SIZE, consumer).add(done)
        seconds = monotonic() - batch.started.monotonic
        self._observations(define.BATCH_DURATION, consumer).add(seconds)
        for failure in result.failed:
            self.attempt_lost(failure.attempt)
        if result.succeeded:
            self._counter(define.ATTEMPTS, consumer, "succeeded").inc(len(result.succeeded))
            recorded = [each.recorded_at for each in result.succeeded if each.recorded_at]
            now = time()
            late = [max(now - at.timestamp(), 0.0) for at in recorded]
            self._observations(define.LATENCY, consumer).add(*late)

    def attempt_lost(self, attempt: FailedAttempt) -> None:
        outcome = _OUTCOMES[attempt.outcome]
        self._counter(define.ATTEMPTS, attempt.consumer, outcome).inc()
        if not attempt.is_postponed:
            error_type = self._bounded(attempt.error_type or OTHER)
            self._counter(define.FAILURES, attempt.consumer, error_type).inc()

    def kratos_answered(self, operation: str, status: int | None, seconds: float) -> None:
        written = NO_ANSWER if status is None else _STATUS.get(status, OTHER)
        self._counter(define.KRATOS_REQUESTS, operation, written).inc()
        self._observations(define.KRATOS_DURATION, operation).add(seconds)

    def circuit(self, *, is_open: bool) -> None:
        self._circuit_is_open = is_open

    def _has(self, metric: Metric) -> bool:
        return not {*self._roles}.isdisjoint(metric.processes)

    def _bounded(self, error_type: str) -> str:
        """The type itself if it is a plain name, and one of the first MOST_ERROR_TYPES."""
        with self._lock:
            if error_type in self._error_types:
                return error_type
            is_full = len(self._error_types) >= MOST_ERROR_TYPES
            if is_full or _ERROR_TYPE.fullmatch(error_type) is None:
                return OTHER
            self._error_types.add(error_type)
            return error_type

    def _counter(self, metric: Metric, *labels: str) -> Counter:
        return self._counters[metric].labels(*labels)

    def _observations(self, metric: Metric, *labels: str) -> Observations:
        return self._histograms[metric].of(*labels)


def _counter(metric: Metric, registry: CollectorRegistry, consumers: Collection[str]) -> Counter:
    """A counter with 0 for each combination of labels that is known: rates see the first change."""
    made = Counter(metric.name, metric.help, list(metric.labels), registry=registry)
    for labels in _values_of(metric, consumers):
        made.labels(*labels)
    return made


def _values_of(metric: Metric, consumers: Collection[str]) -> Iterator[tuple[str, ...]]:
    """Every combination of the values of labels, as far as they are known in advance."""
    known = {**metric.labels, "consumer": tuple(consumers)}
    return product(*(known[name] for name in metric.labels))
