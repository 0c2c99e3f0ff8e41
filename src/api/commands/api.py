"""`kratos-sync api`."""

import asyncio
import signal
from contextlib import suppress
from datetime import UTC, datetime

import click
import uvicorn
from starlette.types import ASGIApp
from uuid_utils.compat import uuid7

from api.app import create_app
from api.commands.process import calm_garbage_collector, opened_container
from api.webhooks.handler import KratosWebHookHandlerConfig
from api.webhooks.parse_identity import KratosIdentityParseHandler
from api.webhooks.sync_identity import KratosIdentitySyncHandler
from infrastructure.bus.event_bus import DramatiqEventBus
from infrastructure.container import Container

MOST_CONNECTIONS = 2_000
STOP_SECONDS = 30


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535))
def api(host: str, port: int) -> None:
    """Take Kratos' webhooks. Run as many as needed, behind one address."""
    with opened_container() as container:
        server = uvicorn.Server(
            uvicorn.Config(
                _application(container),
                host=host,
                port=port,
                loop="uvloop",
                http="httptools",
                lifespan="off",
                access_log=False,
                server_header=False,
                log_config=None,
                proxy_headers=False,
                ws="none",
                limit_concurrency=MOST_CONNECTIONS,
                timeout_graceful_shutdown=STOP_SECONDS,
            )
        )
        # uvicorn sends itself the signal that stopped it once more, with whatever handler we leave.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        # It exits with a code of its own where it cannot listen.
        new_loop = server.config.get_loop_factory()
        with suppress(SystemExit), asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(_serve(server, container.event_bus()))
    if not server.started:
        raise click.ClickException(f"{host}:{port} is taken or cannot be listened on: set --port.")


async def _serve(server: uvicorn.Server, bus: DramatiqEventBus) -> None:
    calm_garbage_collector()
    try:
        await server.serve()
    finally:
        await bus.stop()


def _application(container: Container) -> ASGIApp:
    settings = container.settings()
    if not settings.kratos_webhook_api_keys:
        raise click.UsageError("set KRATOS_WEBHOOK_API_KEYS: without a key anyone could call.")
    config = KratosWebHookHandlerConfig(
        api_keys=tuple(key.get_secret_value() for key in settings.kratos_webhook_api_keys),
        api_key_header_name=settings.kratos_webhook_api_key_header,
    )
    sync = KratosIdentitySyncHandler(
        config,
        container.event_bus(),
        uuid7,
        lambda: datetime.now(UTC),
    )
    return create_app(sync, KratosIdentityParseHandler(config), [container.database_readiness()])
