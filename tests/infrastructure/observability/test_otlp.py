"""The same metrics by OTLP."""

from collections.abc import Iterator

import pytest
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE

from kratos_sync.infrastructure.observability import otlp_wanted
from kratos_sync.infrastructure.observability.metrics import Metrics
from kratos_sync.infrastructure.observability.otlp import OtlpExport
from tests.infrastructure.observability.otlp_receiver import OtlpReceiver, receiving
from tests.waiting import until

RESOURCE = {"service.name": "kratos-sync-worker", "service.version": "1.2.3"}
NEVER = 1_000.0


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def metrics() -> Metrics:
    metrics = Metrics("reconcile", "1.2.3", ["Greet"])
    for seconds in (0.003, 0.003, 0.3, 99.0):
        metrics.kratos_answered("find", 200, seconds)
    metrics.circuit(is_open=True)
    return metrics


def export_of(metrics: Metrics, receiver: OtlpReceiver, seconds: float = NEVER) -> OtlpExport:
    exporter = OTLPMetricExporter(endpoint=f"{receiver.url}/v1/metrics", timeout=5)
    export = OtlpExport(metrics.registry, RESOURCE, seconds, exporter)
    export.start()
    return export


@pytest.fixture
def received(metrics: Metrics, receiver: OtlpReceiver) -> OtlpReceiver:
    export_of(metrics, receiver).stop()
    until(lambda: receiver.received)
    return receiver


def test_a_counter_is_a_cumulative_monotonic_sum(received: OtlpReceiver) -> None:
    total = received.metrics["kratos_sync_kratos_requests"].sum
    assert total.is_monotonic
    assert total.aggregation_temporality == AGGREGATION_TEMPORALITY_CUMULATIVE
    (point,) = total.data_points
    assert {each.key: each.value.string_value for each in point.attributes} == {
        "operation": "find",
        "status": "200",
    }
    assert point.as_double == 4
    assert 0 < point.start_time_unix_nano < point.time_unix_nano


def test_a_histogram_keeps_its_buckets_sum_and_count(received: OtlpReceiver) -> None:
    metric = received.metrics["kratos_sync_kratos_request_duration_seconds"]
    assert metric.unit == "s"
    points = {each.attributes[0].value.string_value: each for each in metric.histogram.data_points}
    find = points["find"]
    assert (find.count, find.sum) == (4, pytest.approx(99.306))
    assert list(find.explicit_bounds) == [
        0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30,
    ]  # fmt: skip
    assert list(find.bucket_counts) == [0, 2, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1]
    assert not find.HasField("min")
    assert sum(points["page"].bucket_counts) == 0


def test_a_gauge_is_what_it_is_now(received: OtlpReceiver) -> None:
    (point,) = received.metrics["kratos_sync_kratos_circuit_open"].gauge.data_points
    assert point.as_double == 1


def test_everything_that_is_scraped_is_sent_and_nothing_else(
    received: OtlpReceiver, metrics: Metrics
) -> None:
    scraped = {family.name for family in metrics.registry.collect() if family.samples}
    assert received.metrics.keys() == scraped


def test_the_resource_says_which_service_it_is(received: OtlpReceiver) -> None:
    assert received.resource.items() >= RESOURCE.items()


def test_metrics_are_sent_again_and_again(metrics: Metrics, receiver: OtlpReceiver) -> None:
    export = export_of(metrics, receiver, 0.01)
    until(lambda: len(receiver.received) > 2)
    export.stop()


def test_a_receiver_that_refuses_is_one_line_and_ends_nothing(
    metrics: Metrics, receiver: OtlpReceiver, capsys: pytest.CaptureFixture[str]
) -> None:
    receiver.status = 400
    export = export_of(metrics, receiver, 0.01)
    until(lambda: len(receiver.received) > 2)
    receiver.status = 200
    received = len(receiver.received)
    until(lambda: len(receiver.received) > received)
    export.stop()
    written = capsys.readouterr()
    assert (written.out + written.err).count("otlp_metrics_not_exported") == 1


ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, False),
        (ENDPOINT, True),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://collector:4318/v1/metrics"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, False),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "true"}, False),
        ({**ENDPOINT, "OTEL_METRICS_EXPORTER": "none"}, False),
        ({**ENDPOINT, "OTEL_METRICS_EXPORTER": "prometheus,otlp"}, True),
    ],
)
def test_opentelemetrys_variables_say_whether_metrics_are_sent(
    environment: dict[str, str], wanted: bool
) -> None:
    assert otlp_wanted.is_wanted("METRICS", environment) is wanted


def test_a_protocol_that_is_not_supported_is_named() -> None:
    reason = otlp_wanted.why_not("METRICS", {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
    assert reason == "OTEL_EXPORTER_OTLP_PROTOCOL is grpc, and only http/protobuf is supported"
    assert otlp_wanted.why_not("METRICS", {}) is None
