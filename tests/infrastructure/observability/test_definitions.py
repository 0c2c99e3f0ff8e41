"""The names, labels and buckets of metrics."""

import re

from kratos_sync.infrastructure.observability import definitions as define
from kratos_sync.infrastructure.observability.definitions import METRICS, PREFIX

UNBOUNDED = {"consumer", "hook", "table", "error_type", "status", "version"}
"""Labels whose values are bounded where they are read, and not in the definitions."""


def test_each_metric_has_a_name_of_its_own_and_says_what_it_is() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    assert all(re.fullmatch(rf"{PREFIX}[a-z][a-z_]+[a-z]", metric.name) for metric in METRICS)
    assert all(metric.help.endswith(".") for metric in METRICS)


def test_a_name_tells_counters_from_other_metrics() -> None:
    for metric in METRICS:
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert bool(metric.buckets) == (metric.kind == "histogram")


def test_buckets_rise() -> None:
    assert all(list(metric.buckets) == sorted(set(metric.buckets)) for metric in METRICS)


def test_every_label_is_bounded() -> None:
    """An id, an address or a message has no place in any of them."""
    labels = {name for metric in METRICS for name, values in metric.labels.items() if not values}
    assert labels == UNBOUNDED


def test_the_ledgers_metrics_are_the_relays() -> None:
    assert {metric.processes for metric in define.LEDGER} == {("relay",)}


def test_every_process_exports_some() -> None:
    assert {name for metric in METRICS for name in metric.processes} == set(define.PROCESSES)
