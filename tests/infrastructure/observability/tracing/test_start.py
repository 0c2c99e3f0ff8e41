"""Traces are off unless they are configured, and then nothing of OpenTelemetry is loaded."""

import subprocess
import sys
import threading
import time

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from structlog.testing import capture_logs

from kratos_sync.infrastructure.observability.tracing.provider import (
    STOP_SECONDS,
    OpenTelemetry,
    provider_of,
    resource_of,
)
from kratos_sync.infrastructure.observability.tracing.sampling import CappedSampler
from kratos_sync.infrastructure.observability.tracing.start import NOT_TRACED, started
from tests.infrastructure.observability.tracing.receiver import OtlpReceiver
from tests.waiting import DEADLINE_SECONDS

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}


def test_without_an_endpoint_nothing_is_traced() -> None:
    with started("worker", 10, environment={}) as tracing:
        assert tracing is NOT_TRACED


def test_a_protocol_that_is_not_supported_is_said_and_stops_nothing() -> None:
    environment = {**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}

    with capture_logs() as lines, started("worker", 10, environment=environment) as tracing:
        assert tracing is NOT_TRACED

    assert [line["event"] for line in lines] == ["not_traced"]


WITHOUT = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "opentelemetry":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Hidden())
from kratos_sync.infrastructure.observability.tracing.start import NOT_TRACED, started
with started("worker", 10, environment={"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}) as tracing:
    assert tracing is NOT_TRACED
"""
# The Redis client imports what it finds of OpenTelemetry, and uses none of it.
COMPOSED = """
import sys
import redis
by_redis = set(sys.modules)
from kratos_sync.api.cli import api, process, reconcile, relay, worker
from kratos_sync.api.http import app
from kratos_sync.infrastructure.container import Container
from kratos_sync.infrastructure.kratos import admin_api
from kratos_sync.infrastructure.observability.tracing.start import started
from kratos_sync.infrastructure.worker import process
with started("worker", 10, environment={}):
    others = sys.modules.keys() - by_redis
    print(sorted(name for name in others if name.startswith("opentelemetry")))
    print(*(name for name in ("opentelemetry.sdk.trace", "requests") if name in sys.modules))
"""


def ran(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=True,
    )


def test_a_process_without_the_extra_says_so_and_works() -> None:
    assert "extra otel" in ran(WITHOUT).stdout


def test_nothing_of_opentelemetry_is_loaded_by_default() -> None:
    assert ran(COMPOSED).stdout == "[]\n\n"


def traced_to(receiver: OtlpReceiver) -> OpenTelemetry:
    exporter = OTLPSpanExporter(f"{receiver.endpoint}/v1/traces")
    return OpenTelemetry(provider_of("worker", CappedSampler(1_000), exporter))


def a_span_of(tracing: OpenTelemetry) -> None:
    with tracing.spans.request("find", "GET", "http://kratos", "/admin/identities/{id}"):
        pass


def test_the_last_spans_are_exported_when_a_process_ends() -> None:
    with OtlpReceiver() as receiver:
        tracing = traced_to(receiver)
        a_span_of(tracing)
        tracing.stop()

        (span,) = receiver.spans
        assert (span.name, span.process) == ("GET /admin/identities/{id}", "worker")
        assert span.schema_url.startswith("https://opentelemetry.io/schemas/")


def test_a_collector_that_takes_nothing_holds_up_no_end() -> None:
    with OtlpReceiver() as receiver:
        receiver.is_refusing = True
        tracing = traced_to(receiver)
        a_span_of(tracing)
        began = time.monotonic()
        tracing.stop()

        assert time.monotonic() - began < DEADLINE_SECONDS / 2
        assert receiver.tried
        assert STOP_SECONDS < 5


def test_spans_are_exported_from_a_thread_of_the_process_itself() -> None:
    with OtlpReceiver() as receiver:
        before = set(threading.enumerate())
        tracing = traced_to(receiver)
        assert set(threading.enumerate()) - before
        tracing.stop()
        assert not [thread for thread in set(threading.enumerate()) - before if not thread.daemon]


def test_a_process_says_who_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_SERVICE_NAME", raising=False)
    own, other = resource_of("api").attributes, resource_of("api").attributes
    assert own["service.name"] == "kratos-sync-api"
    assert own["service.instance.id"] != other["service.instance.id"]

    monkeypatch.setenv("OTEL_SERVICE_NAME", "people")
    assert resource_of("api").attributes["service.name"] == "people"
