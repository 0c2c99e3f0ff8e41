"""`kratos-sync console`: the pages for operators, in a process of their own."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from socket import socket
from typing import TYPE_CHECKING, Final

import click
import structlog
import uvicorn

from kratos_sync.api.cli.output import echo
from kratos_sync.api.cli.process import expected_errors, opened_container

if TYPE_CHECKING:
    from kratos_sync.api.http.console.app import ConsoleRoute
    from kratos_sync.api.http.console.rates import Rates
    from kratos_sync.api.http.console.sign_in import SignIn
    from kratos_sync.application.kratos_config.check import Report
    from kratos_sync.application.reconcile import Reconcile
    from kratos_sync.infrastructure.container import Container
    from kratos_sync.infrastructure.observability.health import Health
    from kratos_sync.infrastructure.observability.observer import Observer

STOP_SECONDS: Final = 10
MOST_CONNECTIONS: Final = 100
LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
INSTALL: Final = 'pip install "kratos-identity-sync[console]"'

log = structlog.get_logger()


def is_installed() -> bool:
    """Whether the extra `console` is installed."""
    return all(find_spec(name) is not None for name in ("jinja2", "python_multipart"))


class ConsoleServer(uvicorn.Server):
    """Serves until it is stopped, and shows meanwhile that its event loop turns."""

    def __init__(
        self,
        config: uvicorn.Config,
        stopped: threading.Event,
        health: "Health",
        observer: "Observer",
    ) -> None:
        super().__init__(config)
        self._stopped = stopped
        self._health = health
        self._observer = observer

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to whoever sets `stopped`, where uvicorn would handle them itself."""
        yield

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        if self.started:
            self._health.started()

    async def on_tick(self, counter: int) -> bool:
        """Return whether to stop; called ten times a second."""
        self._observer.turned()
        if self._stopped.is_set():
            self._health.stopping()
            self.should_exit = True
        return await super().on_tick(counter)


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8100, show_default=True, type=click.IntRange(1, 65535))
@click.option(
    "--link", is_flag=True, help="Sign in by a link that is printed, with all roles: on loopback."
)
def console(host: str, port: int, link: bool) -> None:
    """Serve the pages for operators.

    They show what is wrong and whom it is about, and put it right. CONSOLE_SIGN_IN says how
    operators sign in; without it the console does not start.
    """
    if not is_installed():
        raise click.ClickException(f"The console needs an extra: {INSTALL}.")
    if link and host not in LOOPBACK:
        raise click.UsageError("--link is for this machine alone: leave out --host.")

    from kratos_sync.api.http.console.app import create_console
    from kratos_sync.api.http.console.rates import Rates
    from kratos_sync.infrastructure.worker.shutdown import exit_when_stopped

    stopped = exit_when_stopped()
    with opened_container(stopped=stopped, process="console") as container:
        if stopped.is_set():
            return
        origin = container.settings().console_origin
        address = origin or f"http://{f'[{host}]' if ':' in host else host}:{port}"
        sign_in = _link_to(address) if link else _sign_in(container)
        rates = Rates(container.activity())
        with expected_errors():
            app = create_console(sign_in, console_routes(container, rates), origin=origin)
        counting = threading.Thread(target=rates.run, args=(stopped,), name="rates", daemon=True)
        counting.start()
        health = container.health()
        health.watch_threads(lambda: [] if stopped.is_set() else [counting])
        config = uvicorn.Config(
            app,
            host=host,
            port=port,
            http="h11",
            ws="none",
            lifespan="off",
            access_log=False,
            server_header=False,
            log_config=None,
            proxy_headers=False,
            limit_concurrency=MOST_CONNECTIONS,
            timeout_graceful_shutdown=STOP_SECONDS,
        )
        server = ConsoleServer(config, stopped, health, container.observer())
        log.info("console_started", address=address)
        with suppress(SystemExit):  # if it cannot listen
            asyncio.run(server.serve())
        stopped.set()
        counting.join(STOP_SECONDS)
    if not server.started:
        raise click.ClickException(f"{host}:{port} is taken or cannot be listened on: set --port.")


def _link_to(address: str) -> "SignIn":
    from kratos_sync.api.cli.options import os_user
    from kratos_sync.api.http.console.access import Operator, Role
    from kratos_sync.api.http.console.sign_in import SignInByLink

    operator = Operator(os_user(), frozenset(Role), second_factor=True)
    sign_in = SignInByLink(operator, address, lambda link: echo(f"Sign in, once: {link}"))
    sign_in.print_link()
    return sign_in


def _sign_in(container: "Container") -> "SignIn":
    """How operators sign in. Raises click.UsageError if the settings do not say it."""
    from kratos_sync.api.http.console.sign_in import SignInByKratos, SignInByProxy
    from kratos_sync.api.http.sessions.backend import KratosSessionBackend

    settings = container.settings()
    match settings.console_sign_in:
        case "kratos":
            if settings.kratos_public_url is None:
                raise click.UsageError("CONSOLE_SIGN_IN=kratos needs KRATOS_PUBLIC_URL.")
            public = settings.kratos_public_url.get_secret_value()
            browser = (settings.kratos_browser_url or settings.kratos_public_url).get_secret_value()
            # A bearer token is no browser's; and a page is opened by one.
            backend = KratosSessionBackend(public, browser_url=browser, bearer=False)
            return SignInByKratos(backend, browser)
        case "proxy":
            if not settings.console_proxy_addresses:
                raise click.UsageError("CONSOLE_SIGN_IN=proxy needs CONSOLE_PROXY_ADDRESSES.")
            return SignInByProxy(
                settings.console_proxy_addresses,
                settings.console_user_header,
                settings.console_roles_header,
                settings.console_second_factor_header,
            )
    raise click.UsageError(
        "say how operators sign in: CONSOLE_SIGN_IN=kratos or proxy; or --link on this machine."
    )


def console_routes(container: "Container", rates: "Rates") -> "list[ConsoleRoute]":
    """Return all pages, on the ports of this container."""
    from kratos_sync.api.http.console.audit import AuditPages
    from kratos_sync.api.http.console.changes import Changes
    from kratos_sync.api.http.console.events import EventPages
    from kratos_sync.api.http.console.failures import FailurePages
    from kratos_sync.api.http.console.identity import IdentityPages
    from kratos_sync.api.http.console.kratos import KratosPages
    from kratos_sync.api.http.console.now import NowPage
    from kratos_sync.application import actions

    settings, subscriptions = container.settings(), container.subscriptions()
    wake_relay, changes = container.wake_relay(), Changes(container.operations())
    replaying = actions.ReplayActions(container.recorded_events(), subscriptions, wake_relay)
    identities = actions.IdentityActions(
        kratos=container.new_kratos_admin,
        synced=container.synced_identities(),
        replaying=replaying,
        deletions=container.deletions(),
        erasures=container.erasures(),
        wake_relay=wake_relay,
    )
    decisions = actions.DeadLetterActions(container.dead_letter_decisions(), wake_relay)
    now = NowPage(
        status=container.status(),
        rates=rates,
        subscriptions=subscriptions,
        actions=actions.PolicyActions(container.policies(), wake_relay),
        changes=changes,
        can_ask=settings.kratos_admin_url is not None,
    )
    events = EventPages(
        search=container.event_search(),
        dead_letters=container.dead_letters(),
        trials=container.trials(),
        subscriptions=subscriptions,
        actions=replaying,
        changes=changes,
    )
    pages = (
        now,
        FailurePages(container.dead_letters(), decisions, changes),
        IdentityPages(container.identity_search(), container.history(), identities, changes),
        events,
        KratosPages(
            container.kratos_status().report,
            _checker(settings.kratos_webhook_api_key_header),
            actions.ReconcileActions(_reconciler(container)),
            changes,
        ),
        AuditPages(container.operations()),
    )
    return [route for page in pages for route in page.routes()]


def _reconciler(container: "Container") -> "Callable[[Callable[[float], None]], Reconcile]":
    from kratos_sync.application.reconcile import Reconcile

    settings = container.settings()
    urls = (settings.kratos_public_url, settings.kratos_browser_url)

    def make(pause: Callable[[float], None]) -> Reconcile:
        return Reconcile(
            container.new_kratos_admin(patient=True, pause=pause),
            container.reconciliations(),
            public_urls=[url.get_secret_value() for url in urls if url is not None],
            now=container.synced_identities().now,
            wake_relay=container.wake_relay(),
            pause=pause,
        )

    return make


def _checker(key_header: str) -> "Callable[[bytes], Report]":
    from kratos_sync.api.http.console.kratos import UnreadableConfiguration
    from kratos_sync.application.kratos_config.check import Report, check
    from kratos_sync.application.kratos_config.hooks import Receiver
    from kratos_sync.application.kratos_config.nodes import kratos_part
    from kratos_sync.infrastructure.kratos.config_file import (
        JsonnetTemplates,
        UnreadableConfig,
        read_config,
    )

    def checked(content: bytes) -> Report:
        try:
            part = kratos_part(read_config(content))
        except UnreadableConfig as error:
            raise UnreadableConfiguration(str(error)) from None
        if part is None:
            raise UnreadableConfiguration("it has no `selfservice`")
        templates = JsonnetTemplates(None, reads_files=False)
        return check(part, Receiver(key_header, None), templates)

    return checked
