"""`kratos-sync api`."""

import asyncio
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from signal import Signals
from socket import socket
from typing import Final

import click
import structlog
import uvicorn
from uuid_utils.compat import uuid7

from kratos_sync.api.cli.process import expected_errors, freeze_garbage_collector, opened_container
from kratos_sync.api.http.app import PARSE, SYNC, create_app
from kratos_sync.api.http.connections import ConnectionLimits, bounded_http
from kratos_sync.api.http.webhooks.handler import KratosWebHookHandlerConfig
from kratos_sync.api.http.webhooks.hook_activity import HookActivityRecorder
from kratos_sync.api.http.webhooks.parse_identity import KratosIdentityParseHandler
from kratos_sync.api.http.webhooks.sync_identity import (
    KratosIdentityHintHandler,
    KratosIdentitySyncHandler,
)
from kratos_sync.application.application import InvalidApplication
from kratos_sync.application.ports.event_bus import LedgerUnavailable
from kratos_sync.infrastructure.container import Container
from kratos_sync.infrastructure.migrations import SchemaTooOld, require_schema
from kratos_sync.infrastructure.observability import definitions as define
from kratos_sync.infrastructure.observability.health import Health
from kratos_sync.infrastructure.observability.observer import Observer
from kratos_sync.infrastructure.observability.service_manager import listening_socket
from kratos_sync.infrastructure.postgres.connection_failures import is_refusal, why_unavailable
from kratos_sync.infrastructure.postgres.engine import translate_errors
from kratos_sync.infrastructure.worker.child_processes import wait_until_free
from kratos_sync.infrastructure.worker.in_flight import InFlightDeliveries
from kratos_sync.infrastructure.worker.shutdown import ShutdownSignals
from kratos_sync.infrastructure.worker.supervisor import ABORT, Supervised

ABORT_AFTER_SECONDS: Final = 26.0
"""Process managers usually wait half a minute before they kill."""
STOP_SECONDS: Final = 29
POLL_SECONDS: Final = 0.05
TURN_SECONDS: Final = 1.0
MOST_CONNECTIONS: Final = 8_192
OTHER_FILES: Final = 128
WAITING_SHARE: Final = 0.75
"""Share of the connections that may hold waiting calls; the rest is for health checks."""

log = structlog.get_logger()


class DrainingServer(uvicorn.Server):
    """Drains calls, then aborts them, as ShutdownSignals requests."""

    def __init__(
        self,
        config: uvicorn.Config,
        abort_waiting: Callable[[], None],
        health: Health,
        abort_signal: Signals | None = None,
    ) -> None:
        """`abort_waiting` has waiting calls answered at once; ShutdownSignals gets the signal."""
        super().__init__(config)
        self._abort_waiting = abort_waiting
        self._health = health
        self._loop: asyncio.AbstractEventLoop | None = None
        self.signals = ShutdownSignals(
            self._drain, self._abort, abort_after=ABORT_AFTER_SECONDS, abort_signal=abort_signal
        )

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to ShutdownSignals, where uvicorn would handle them itself."""
        self._loop = asyncio.get_running_loop()
        yield

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        if self.started:
            log.info("api_started", address=_address_of(self.servers[0].sockets[0]))
            self._health.started()

    def _drain(self) -> None:
        self.should_exit = True
        self._health.stopping()

    def _abort(self) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._abort_calls)

    def _abort_calls(self) -> None:
        self._abort_waiting()
        # Connections of calls that are answered now close by themselves.
        for connection in list(self.server_state.connections):
            connection.shutdown()
        asyncio.get_running_loop().call_later(0.5, self._abort_connections)

    def _abort_connections(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535))
def api(host: str, port: int) -> None:
    """Receive Kratos' webhooks. Run as many as needed, behind one address.

    While PostgreSQL is unavailable each call waits up to 25 s for it. With a socket from systemd
    it listens there, and not on a port.
    """
    serve_api(host, port, listening_socket(os.environ))


def serve_api(
    host: str, port: int, listening: socket | None, supervised: Supervised | None = None
) -> None:
    """Serve until a signal, on a socket that listens already if there is one.

    A supervisor sees that it works while its event loop turns.
    """
    beat = None if supervised is None else InFlightDeliveries(supervised.memory).beat
    with opened_container(migrated=False, process="api", supervised=supervised) as container:
        if supervised is not None and supervised.is_successor:
            log.error("api_replaced", predecessor=supervised.predecessor)
        _require_database(container)
        limits = ConnectionLimits(most_connections())
        hooks = HookActivityRecorder(container.hook_log())
        sync, parse = _handlers(container, hooks, limits.most)
        app = create_app(sync, parse, [container.database_readiness()])
        server = DrainingServer(
            uvicorn.Config(
                container.tracing().webhooks(app, (SYNC, PARSE)),
                host=host,
                port=port,
                loop="uvloop",
                http=bounded_http(limits),
                backlog=4_096,
                lifespan="off",
                access_log=False,
                server_header=False,
                log_config=None,
                proxy_headers=False,
                ws="none",
                timeout_graceful_shutdown=STOP_SECONDS,
            ),
            sync.abort_waiting,
            container.health(),
            None if supervised is None else ABORT,
        )
        if supervised is not None and listening is None:
            wait_until_free(host, port)
        observer = container.observer()
        observer.watch(define.HELD, lambda: float(sync.held_calls))
        observer.watch(define.CONNECTIONS, lambda: float(len(server.server_state.connections)))
        observer.watch(define.REFUSED_CONNECTIONS, lambda: float(limits.refused))
        new_loop = server.config.get_loop_factory()
        server.signals.install()
        # uvicorn raises SystemExit if it cannot listen.
        with suppress(SystemExit), asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(_serve(server, container, hooks, beat, listening))
    if not server.started:
        raise click.ClickException(f"{host}:{port} is taken or cannot be listened on: set --port.")


def _address_of(listening: socket) -> str:
    match listening.getsockname():
        case (host, port, *_):
            return f"{host}:{port}"
        case path:
            return str(path)


async def _serve(
    server: DrainingServer,
    container: Container,
    hooks: HookActivityRecorder,
    beat: Callable[[], None] | None,
    listening: socket | None,
) -> None:
    freeze_garbage_collector()
    hooks.start()
    turning = asyncio.create_task(_turn(server, container.observer(), beat))
    try:
        await server.serve(None if listening is None else [listening])
    finally:
        turning.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(1 if server.signals.aborted.is_set() else None):
                await container.event_bus().stop()
                await hooks.stop()


async def _turn(
    server: DrainingServer, observer: Observer, beat: Callable[[], None] | None
) -> None:
    """Show that the event loop is not blocked."""
    while True:
        observer.turned("api")
        if beat is not None and server.started:
            beat()
        await asyncio.sleep(TURN_SECONDS if server.started else POLL_SECONDS)


def _require_database(container: Container) -> None:
    """Refuse to start with a database that refuses us; calls wait for any other."""
    with expected_errors():
        try:
            with translate_errors():
                require_schema(container.engine())
        except SchemaTooOld as error:
            log.warning("schema_too_old", reason=str(error))
        except LedgerUnavailable as error:
            if is_refusal(error):
                raise
            log.warning("ledger_unavailable", reason=why_unavailable(error))


def _handlers(
    container: Container, hooks: HookActivityRecorder, most_connections: int
) -> tuple[KratosIdentitySyncHandler, KratosIdentityParseHandler]:
    settings = container.settings()
    if not settings.kratos_webhook_api_keys:
        raise click.UsageError("set KRATOS_WEBHOOK_API_KEYS: without a key anyone could call.")
    config = KratosWebHookHandlerConfig(
        api_keys=tuple(key.get_secret_value() for key in settings.kratos_webhook_api_keys),
        api_key_header_name=settings.kratos_webhook_api_key_header,
    )
    observer = container.observer()
    of_sync = replace(config, on_answered=observer.webhooks("sync-identity"))
    of_parse = replace(config, on_answered=observer.webhooks("parse-identity"))
    handler = KratosIdentityHintHandler if settings.kratos_refetch else KratosIdentitySyncHandler
    sync = handler(
        of_sync,
        container.event_bus(),
        uuid7,
        lambda: datetime.now(UTC),
        max_calls=round(most_connections * WAITING_SHARE),
        on_accepted=hooks.add,
        ids=settings.identity_ids,
    )
    with expected_errors():
        return sync, _parse_handler(container, of_parse)


def _parse_handler(
    container: Container, config: KratosWebHookHandlerConfig
) -> KratosIdentityParseHandler:
    """Return the application's parse handler, or the service's own. Raises InvalidApplication."""
    application = container.application()
    make: Callable[..., object] = KratosIdentityParseHandler
    if application is not None and application.parse_handler is not None:
        make = application.parse_handler
    handler = make(config)
    if not isinstance(handler, KratosIdentityParseHandler):
        raise InvalidApplication("its parse_handler makes no KratosIdentityParseHandler")
    return handler


def most_connections() -> int:
    """Return how many connections are allowed, after raising the limit of open files for them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_CONNECTIONS + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return max(soft - OTHER_FILES, 1)
    return MOST_CONNECTIONS
