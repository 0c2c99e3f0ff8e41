"""What a process loads, serves and sends for those who observe it, and what it does not."""

import os
import subprocess
import sys

import pytest

from tests.environment import environment
from tests.infrastructure.observability.otlp_receiver import receiving
from tests.ports import free_port

PROGRAM = """
import sys
from kratos_sync.api.cli.process import opened_container
with opened_container(process="{process}") as container:
    observer = container.observer()
    container.deliver()
print(*sorted({{name.partition(".")[0] for name in sys.modules}}))
"""
METRICS, OTLP, SENTRY = "prometheus_client", "opentelemetry", "sentry_sdk"


def loaded(database_url: str, process: str = "worker", **settings: str) -> set[str]:
    """The packages that a process has loaded once it has opened its container."""
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(process=process)],
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
        env=environment(DATABASE_URL=database_url, BROKER_URL="redis://127.0.0.1:9/0", **settings),
    )
    return set(ran.stdout.split())


@pytest.fixture(autouse=True)
def no_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


def test_without_a_port_nothing_is_loaded_for_metrics(database_url: str) -> None:
    assert not {METRICS, OTLP} & loaded(database_url)


def test_with_a_port_prometheus_client_is_loaded_and_nothing_of_opentelemetry(
    database_url: str,
) -> None:
    modules = loaded(database_url, METRICS_PORT=str(free_port()))
    assert METRICS in modules
    assert OTLP not in modules


def test_sentry_is_loaded_only_with_a_dsn(database_url: str) -> None:
    assert SENTRY not in loaded(database_url, METRICS_PORT=str(free_port()))
    assert SENTRY in loaded(database_url, SENTRY_DSN=f"http://key@127.0.0.1:{free_port()}/7")


def test_with_an_endpoint_metrics_are_sent_without_a_port(database_url: str) -> None:
    with receiving() as receiver:
        modules = loaded(
            database_url,
            "api",
            OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=f"{receiver.url}/v1/metrics",
        )
        assert {METRICS, OTLP} <= modules
        assert "kratos_sync_build_info" in receiver.metrics
        assert receiver.resource["service.name"] == "kratos-sync-api"


def test_an_endpoint_that_is_away_delays_the_end_by_no_more_than_some_seconds(
    database_url: str,
) -> None:
    endpoint = f"http://127.0.0.1:{free_port()}/v1/metrics"
    assert METRICS in loaded(database_url, OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=endpoint)
