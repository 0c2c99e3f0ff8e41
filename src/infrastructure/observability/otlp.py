"""Exports the metrics of prometheus-client by OTLP too: what is counted once is sent twice.

Only processes with an endpoint for OTLP import this module.
"""

import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from time import time_ns
from typing import Final

import structlog
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.metrics.export import Metric as OtlpMetric
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client import CollectorRegistry
from prometheus_client import Metric as Family

from kratos_sync.application.errors import summary

SCOPE: Final = InstrumentationScope("kratos_sync")
TIMEOUT_SECONDS: Final = 10.0
LAST_SECONDS: Final = 3.0
"""How long the end of the process waits for the last export."""
CUMULATIVE: Final = AggregationTemporality.CUMULATIVE

log = structlog.get_logger()


class OtlpExport:
    """Sends all metrics of a registry every so often, from a thread of its own."""

    def __init__(
        self,
        registry: CollectorRegistry,
        resource: Mapping[str, str],
        seconds: float,
        exporter: MetricExporter | None = None,
    ) -> None:
        """The exporter is configured by the variables of OpenTelemetry, unless one is given."""
        self._registry = registry
        self._resource = Resource.create(dict(resource))
        self._seconds = seconds
        self._exporter = exporter or OTLPMetricExporter(timeout=TIMEOUT_SECONDS)
        self._began = time_ns()
        self._stopped = threading.Event()
        self._is_failing = False
        self._thread = threading.Thread(target=self._run, name="otlp-metrics", daemon=True)

    def start(self) -> None:
        """Begin to export."""
        self._thread.start()

    def stop(self) -> None:
        """Export once more, if that takes no more than some seconds."""
        self._stopped.set()
        self._thread.join(LAST_SECONDS)

    def _run(self) -> None:
        while not self._stopped.wait(self._seconds):
            self._export()
        self._export()

    def _export(self) -> None:
        try:
            data = metrics_data(self._registry.collect(), self._resource, self._began, time_ns())
            has_failed = self._exporter.export(data) is not MetricExportResult.SUCCESS
            reason = {"error": "not accepted"}
        except Exception as error:  # noqa: BLE001  # metrics end no process
            has_failed, reason = True, summary(error)
        if has_failed and not self._is_failing:
            log.warning("otlp_metrics_not_exported", **reason)
        self._is_failing = has_failed


def metrics_data(
    families: Iterable[Family], resource: Resource, began: int, now: int
) -> MetricsData:
    """Convert the families of prometheus-client; counters and histograms are cumulative.

    ``began`` and ``now`` are in nanoseconds.
    """
    metrics = [_converted(family, began, now) for family in families if family.samples]
    scope = ScopeMetrics(SCOPE, metrics, "")
    return MetricsData([ResourceMetrics(resource, [scope], "")])


def _converted(family: Family, began: int, now: int) -> OtlpMetric:
    data: Sum | Gauge | Histogram
    if family.type == "histogram":
        points = list(_histogram_points(family, began, now))
        data = Histogram(points, CUMULATIVE)
    elif family.type == "counter":
        data = Sum(list(_points(family, began, now)), CUMULATIVE, is_monotonic=True)
    else:
        data = Gauge(list(_points(family, began, now)))
    return OtlpMetric(family.name, family.documentation, _unit(family.name), data)


def _points(family: Family, began: int, now: int) -> Iterator[NumberDataPoint]:
    for sample in family.samples:
        if not sample.name.endswith("_created"):
            yield NumberDataPoint(sample.labels, began, now, sample.value)


def _histogram_points(family: Family, began: int, now: int) -> Iterator[HistogramDataPoint]:
    of_labels: dict[tuple[tuple[str, str], ...], _Buckets] = defaultdict(_Buckets)
    for sample in family.samples:
        labels = tuple(each for each in sample.labels.items() if each[0] != "le")
        of_labels[labels].add(sample.name, sample.labels.get("le"), sample.value)
    for labels, buckets in of_labels.items():
        yield buckets.point(dict(labels), began, now)


class _Buckets:
    """The samples of one histogram, which Prometheus writes cumulatively."""

    def __init__(self) -> None:
        self._up_to: dict[float, float] = {}
        self._sum = 0.0

    def add(self, name: str, bound: str | None, value: float) -> None:
        if bound is not None:
            self._up_to[float(bound)] = value
        elif name.endswith("_sum"):
            self._sum = value

    def point(self, labels: Mapping[str, str], began: int, now: int) -> HistogramDataPoint:
        bounds = sorted(self._up_to)
        up_to = [0.0, *(self._up_to[bound] for bound in bounds)]
        counts = [int(more - less) for less, more in pairwise(up_to)]
        return HistogramDataPoint(
            labels,
            began,
            now,
            count=int(up_to[-1]),
            sum=self._sum,
            bucket_counts=counts,
            explicit_bounds=bounds[:-1],
            min=None,  # type: ignore[arg-type]  # Prometheus does not keep it; then it is not sent
            max=None,  # type: ignore[arg-type]
        )


def _unit(name: str) -> str:
    if name.endswith("_seconds"):
        return "s"
    return "By" if name.endswith("_bytes") else "1"
