"""`kratos-sync all`: everything but PostgreSQL, as two processes under one supervisor."""

import os
from datetime import timedelta

import click

from kratos_sync.api.cli import options
from kratos_sync.infrastructure.worker.supervisor import supervise

API, DELIVERY = "api", "delivery"


@click.command("all")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535))
@click.option("--threads", type=click.IntRange(1, 64), help="Threads; WORKER_THREADS if not given.")
@click.option(
    "--every",
    type=options.interval,
    metavar="TIME",
    default="1h",
    show_default=True,
    help="How often all identities are compared with Kratos, if KRATOS_ADMIN_URL is set.",
)
def all_(host: str, port: int, threads: int | None, every: timedelta) -> None:
    """Run everything but PostgreSQL: api, relay, worker and reconcile, without a broker.

    The api is a process of its own; the others share one, and pointers in its memory, unless
    BROKER_URL names a broker. A process that dies or hangs is replaced, and the other one works on.
    METRICS_PORT is the api's port for metrics and health, and the one after it the other's. With a
    socket from systemd it listens there, and not on a port.
    """
    # Imported here and now, so that both processes share the memory.
    from kratos_sync.api.cli.api import serve_api
    from kratos_sync.api.cli.delivery import deliver
    from kratos_sync.api.cli.process import freeze_garbage_collector
    from kratos_sync.infrastructure.observability.service_manager import (
        ServiceManager,
        listening_socket,
    )

    freeze_garbage_collector()
    # Given to the supervisor, by its process id: each api inherits it.
    listening = listening_socket(os.environ)
    supervised = supervise(API, DELIVERY)
    if supervised.part == DELIVERY:
        if listening is not None:
            listening.close()
        deliver(supervised, threads, every)
        return
    ServiceManager(os.environ)  # taken, and not used: the other process notifies systemd
    serve_api(host, port, listening, supervised)
