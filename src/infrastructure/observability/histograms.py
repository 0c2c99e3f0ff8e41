"""Histograms that take the observations of a whole batch at once.

Those of prometheus-client lock and search for each; with 200 deliveries a batch that shows.
"""

import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client import Metric as Family
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from kratos_sync.infrastructure.observability.definitions import Metric


class Observations:
    """The observations with the same labels."""

    __slots__ = ("_bounds", "_counts", "_lock", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        self._lock = threading.Lock()

    def add(self, *values: float) -> None:
        """Add observations."""
        bounds, counts = self._bounds, self._counts
        with self._lock:
            for value in values:
                counts[bisect_left(bounds, value)] += 1
            self._sum += sum(values)

    def read(self) -> tuple[list[int], float]:
        """How many were at most each bound, the last without one; and the sum of all."""
        with self._lock:
            return list(accumulate(self._counts)), self._sum


class Histogram(Collector):
    """A histogram whose labels have these values, and no others."""

    def __init__(self, metric: Metric, labels: Iterable[tuple[str, ...]]) -> None:
        self._metric = metric
        self._of = {each: Observations(metric.buckets) for each in labels}

    def of(self, *labels: str) -> Observations:
        """Those with these values of the labels."""
        return self._of[labels]

    def collect(self) -> Iterator[Family]:
        """Give them in the form of Prometheus."""
        yield histogram_family(self._metric, self._of)


def histogram_family(metric: Metric, of: Mapping[tuple[str, ...], Observations]) -> Family:
    """A histogram in the form of Prometheus."""
    names = [floatToGoString(bound) for bound in (*metric.buckets, float("inf"))]  # type: ignore[no-untyped-call]  # of the library
    family = HistogramMetricFamily(metric.name, metric.help, labels=list(metric.labels))
    for labels, observations in of.items():
        counts, total = observations.read()
        buckets = [(name, float(count)) for name, count in zip(names, counts, strict=True)]
        family.add_metric(labels, buckets, total)
    return family
