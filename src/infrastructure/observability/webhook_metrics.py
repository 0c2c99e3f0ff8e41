"""The metrics of answered webhooks, which are noted one by one and counted many at a time.

An api answers thousands a second: to count each at once would cost it some of its rate.
"""

import threading
from collections.abc import Iterator, Mapping
from typing import Final

from prometheus_client import Metric as Family
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from kratos_sync.infrastructure.observability import definitions as define
from kratos_sync.infrastructure.observability.histograms import Observations, histogram_family

MOST_NOTED: Final = 256


class AnsweredWebhooks:
    """The calls of one endpoint."""

    def __init__(self) -> None:
        self._noted: list[tuple[str, float]] = []
        self._lock = threading.Lock()
        self.results = dict.fromkeys(define.RESULTS, 0)
        self.durations = Observations(define.WEBHOOK_DURATION.buckets)

    def answered(self, result: str, seconds: float) -> None:
        """Note a call."""
        self._noted.append((result, seconds))
        if len(self._noted) >= MOST_NOTED:
            self.count()

    def count(self) -> None:
        """Count what was noted."""
        with self._lock:
            # Another thread may append meanwhile, behind these.
            noted = self._noted[:]
            del self._noted[: len(noted)]
            for result, _ in noted:
                self.results[result] += 1
        self.durations.add(*(seconds for _, seconds in noted))


class WebhookMetrics(Collector):
    """Those of all endpoints."""

    def __init__(self, endpoints: Mapping[str, AnsweredWebhooks]) -> None:
        self._endpoints = endpoints

    def collect(self) -> Iterator[Family]:
        """Give them in the form of Prometheus."""
        metric = define.WEBHOOKS
        total = CounterMetricFamily(metric.name, metric.help, labels=list(metric.labels))
        for endpoint, calls in self._endpoints.items():
            calls.count()
            for result, number in calls.results.items():
                total.add_metric((endpoint, result), number)
        yield total
        durations: dict[tuple[str, ...], Observations] = {
            (endpoint,): calls.durations for endpoint, calls in self._endpoints.items()
        }
        yield histogram_family(define.WEBHOOK_DURATION, durations)
