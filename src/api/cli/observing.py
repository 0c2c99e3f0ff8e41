"""What a long-running process shows of itself: metrics, health, traces and errors."""

import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

import click
import structlog

from kratos_sync.infrastructure.observability import definitions as define
from kratos_sync.infrastructure.observability import otlp_wanted
from kratos_sync.infrastructure.observability.errors import start as errors
from kratos_sync.infrastructure.observability.health import LONGEST_TURN_SECONDS, Health
from kratos_sync.infrastructure.observability.http_server import ObservabilityServer, Response
from kratos_sync.infrastructure.observability.service_manager import ServiceManager
from kratos_sync.infrastructure.observability.tracing.start import started
from kratos_sync.infrastructure.worker.child_processes import wait_until_free

if TYPE_CHECKING:
    from kratos_sync.infrastructure.container import Container
    from kratos_sync.infrastructure.worker.supervisor import Supervised

OTLP_SECONDS: Final = 60.0
"""How often metrics are exported by OTLP, unless OTEL_METRIC_EXPORT_INTERVAL says otherwise."""

TRACED: Final = frozenset({"api", "worker", "reconcile", define.DELIVERY})
"""A relay reads pointers, and no events with their traces."""

LONGEST_TURN: Final = {"api": 30.0, "worker": 30.0, "console": 30.0}
"""Seconds in which these loops turn many times: event loops, and the worker's watchdog."""

log = structlog.get_logger()


@contextmanager
def observed(
    container: "Container", process: str, supervised: "Supervised | None" = None
) -> Iterator[None]:
    """Count and trace what this process does, and serve or export it, as far as it is configured.

    Its errors are reported likewise, and what leaves the context as a crash.
    To be entered before what is to be observed is taken from the container. A process that replaces
    another one takes the port once it is free. The first one of a supervisor waits some seconds for
    it: a child whose supervisor was killed may still have it. Raises CannotListen.
    """
    settings = container.settings()
    with ExitStack() as undo:
        reports = errors.started(
            process, settings.sentry_dsn, settings.sentry_environment, _is_expected
        )
        container.error_reports.override(undo.enter_context(reports))
        if process in TRACED:
            tracing = started(
                process, settings.traces_per_second, with_statements=settings.traces_statements
            )
            container.tracing.override(undo.enter_context(tracing))
        exports = _exports_metrics()
        if exports or settings.metrics_port is not None:
            _count(container, process, undo, exports=exports)
        loops = {
            loop: LONGEST_TURN.get(loop, LONGEST_TURN_SECONDS)
            for loop in define.PARTS.get(process, (process,))
        }
        health = Health(process, container.observer(), ServiceManager(os.environ), loops)
        container.health.override(health)
        # Its supervisor goes on if this process ends by itself.
        undo.callback(health.stopping, is_replaced=process in {"worker", define.DELIVERY})
        if settings.metrics_port is not None:
            host, port = settings.metrics_host, settings.metrics_port
            routes = {**container.observer().routes, **health.routes}
            if process == define.DELIVERY:
                from kratos_sync.infrastructure.bus.memory import ROUTE

                routes[ROUTE] = partial(_waiting, container)
            server = ObservabilityServer(host, port, routes)
            undo.callback(server.stop)
            if supervised is None:
                server.start()
            elif supervised.is_successor:
                server.start_when_free()
            else:
                wait_until_free(host, port)
                server.start()
        yield


def _is_expected(error: Exception) -> bool:
    """Whether it ends the process in one line, and is no crash."""
    from kratos_sync.api.cli.process import explained

    is_told = isinstance(error, click.ClickException | click.Abort | click.exceptions.Exit)
    return is_told or explained(error) is not None


def ledger_export(container: "Container") -> Mapping[str, Callable[[threading.Event], None]]:
    """What a relay runs beside its work, by the name of the thread, to export the ledger's metrics.

    The container's broker must exist already.
    """
    observer, broker = container.observer(), container.broker()
    if not observer.is_counting:
        return {}
    from kratos_sync.infrastructure.bus.broker import TIMEOUT_SECONDS, BrokerUnavailable
    from kratos_sync.infrastructure.observability.ledger_exporter import LedgerExporter

    consumers = list(container.subscriptions().consumers)
    exporter = LedgerExporter(container.settings().direct_url, consumers)
    for metric in define.LEDGER:
        observer.watch(metric, partial(exporter.values, metric))
    messages: dict[tuple[str, ...], float] = {}

    def check_broker() -> None:
        nonlocal messages
        try:
            waiting = broker.waiting(consumers, TIMEOUT_SECONDS)
        except BrokerUnavailable:
            messages = {}
            raise
        messages = {(name,): float(number) for name, number in waiting.items()}

    observer.watch_broker(check_broker)
    observer.watch(define.BROKER_MESSAGES, lambda: messages if exporter.is_exporting else {})
    return {"ledger-metrics": exporter.run}


def _waiting(container: "Container") -> Response:
    """The waiting messages, for `kratos-sync status`: another process has no other way to them."""
    waiting = container.broker().waiting(list(container.subscriptions().consumers), 1.0)
    return Response(json.dumps(waiting).encode(), "application/json")


def _exports_metrics() -> bool:
    if not otlp_wanted.is_wanted("METRICS", os.environ):
        return False
    if reason := otlp_wanted.why_not("METRICS", os.environ):
        log.warning("otlp_metrics_off", reason=reason)
        return False
    return True


def _count(container: "Container", process: str, undo: ExitStack, *, exports: bool) -> None:
    # Imported only now: most commands, and processes without metrics, need none of it.
    from kratos_sync.infrastructure.ledger.status import DatabaseReadiness
    from kratos_sync.infrastructure.observability.metrics import Metrics

    installed = version("kratos-identity-sync")
    metrics = Metrics(process, installed, container.subscriptions().consumers)
    undo.callback(metrics.stop)
    container.observer.override(metrics)
    # All connections of a worker's pool may be with its threads.
    is_worker = process in {"worker", define.DELIVERY}
    engine = container.spare_engine() if is_worker else container.engine()
    metrics.watch_ledger(DatabaseReadiness(engine).check)
    if exports:
        from kratos_sync.infrastructure.observability.otlp import OtlpExport

        resource = {
            "service.name": os.environ.get("OTEL_SERVICE_NAME") or f"kratos-sync-{process}",
            "service.version": installed,
        }
        export = OtlpExport(metrics.registry, resource, _otlp_seconds())
        undo.callback(export.stop)
        export.start()


def _otlp_seconds() -> float:
    given = os.environ.get("OTEL_METRIC_EXPORT_INTERVAL", "")
    return max(int(given) / 1000, 1.0) if given.isdecimal() else OTLP_SECONDS
