"""`kratos-sync api`."""

import asyncio
import resource
import signal
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from types import FrameType
from typing import Final

import click
import structlog
import uvicorn
from uuid_utils.compat import uuid7

from kratos_sync.api.cli.process import (
    calm_garbage_collector,
    expected_errors,
    opened_container,
)
from kratos_sync.api.http.app import create_app
from kratos_sync.api.http.connections import ConnectionRoom, bounded_http
from kratos_sync.api.http.webhooks.handler import KratosWebHookHandlerConfig
from kratos_sync.api.http.webhooks.hook_activity import HookActivityRecorder
from kratos_sync.api.http.webhooks.parse_hooks import PARSE_HANDLER
from kratos_sync.api.http.webhooks.parse_identity import KratosIdentityParseHandler
from kratos_sync.api.http.webhooks.sync_identity import (
    KratosIdentityHintHandler,
    KratosIdentitySyncHandler,
)
from kratos_sync.application.ports.event_bus import LedgerUnavailable
from kratos_sync.infrastructure.container import Container
from kratos_sync.infrastructure.migrations import require_schema
from kratos_sync.infrastructure.postgres.database_errors import is_refusal, why_unavailable
from kratos_sync.infrastructure.postgres.engine import translate_errors

HURRY_AFTER_SECONDS: Final = 26.0
"""Whoever stops the process waits half a minute before killing it, as a rule."""
STOP_SECONDS: Final = 29


class TwoStepServer(uvicorn.Server):
    """The first SIGTERM or SIGINT has what is under way finished; the second, or time, hurries."""

    def __init__(self, config: uvicorn.Config, abort_waiting: Callable[[], None]) -> None:
        """`abort_waiting` makes calls that wait for something be answered at once."""
        super().__init__(config)
        self._abort_waiting = abort_waiting
        self.is_hurried = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002  # uvicorn's
        """Hear a signal, which may come in the middle of anything."""
        loop = asyncio.get_running_loop()
        if self.should_exit:
            loop.call_soon_threadsafe(self._stop_waiting)
            return
        self.should_exit = True
        loop.call_soon_threadsafe(loop.call_later, HURRY_AFTER_SECONDS, self._stop_waiting)

    def _stop_waiting(self) -> None:
        if self.is_hurried:
            return
        self.is_hurried = True
        self._abort_waiting()
        # Those that are answered now close by themselves; the others are waited for no longer.
        for connection in list(self.server_state.connections):
            connection.shutdown()
        asyncio.get_running_loop().call_later(0.5, self._abandon)

    def _abandon(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()


def ignore_stop_signals() -> None:
    """uvicorn sends itself what stopped it once more, with whatever handler was there before."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)


_log = structlog.get_logger()

MOST_CONNECTIONS = 8_192
OTHER_FILES = 128
WAITING_SHARE = 0.75
"""Of the connections so many may hold calls that wait; the rest is for whoever asks after us."""


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535))
def api(host: str, port: int) -> None:
    """Take Kratos' webhooks. Run as many as needed, behind one address.

    While PostgreSQL is away it takes them too: each waits up to 25 s for it.
    """
    with opened_container(migrated=False) as container:
        _require_schema(container)
        room = ConnectionRoom(most_connections())
        hooks = HookActivityRecorder(container.hook_log())
        sync, parse = _handlers(container, hooks, room.most)
        server = TwoStepServer(
            uvicorn.Config(
                create_app(sync, parse, [container.database_readiness()]),
                host=host,
                port=port,
                loop="uvloop",
                http=bounded_http(room),
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
        )
        ignore_stop_signals()
        # It exits with a code of its own where it cannot listen.
        new_loop = server.config.get_loop_factory()
        with suppress(SystemExit), asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(_serve(server, container, hooks))
    if not server.started:
        raise click.ClickException(f"{host}:{port} is taken or cannot be listened on: set --port.")


async def _serve(server: TwoStepServer, container: Container, hooks: HookActivityRecorder) -> None:
    calm_garbage_collector()
    hooks.start()
    try:
        await server.serve()
    finally:
        with suppress(TimeoutError):
            async with asyncio.timeout(1 if server.is_hurried else None):
                await container.event_bus().stop()
                await hooks.stop()


def _require_schema(container: Container) -> None:
    """Refuse a database that is too old or refuses us; one that is away is none of our business."""
    with expected_errors():
        try:
            with translate_errors():
                require_schema(container.engine())
        except LedgerUnavailable as error:
            if is_refusal(error):
                raise
            _log.warning("ledger_unavailable", reason=why_unavailable(error))


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
    handler = KratosIdentityHintHandler if settings.kratos_refetch else KratosIdentitySyncHandler
    sync = handler(
        config,
        container.event_bus(),
        uuid7,
        lambda: datetime.now(UTC),
        max_calls=round(most_connections * WAITING_SHARE),
        hook_heard=hooks.add,
    )
    return sync, PARSE_HANDLER(config)


def most_connections() -> int:
    """How many connections there may be: this process may open as many files as it can be given."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_CONNECTIONS + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return max(soft - OTHER_FILES, 1)
    return MOST_CONNECTIONS
