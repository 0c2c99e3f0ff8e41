"""`kratos-sync console`: the pages for operators, in a process of their own."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
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
    from kratos_sync.api.http.console.sessions import Sessions
    from kratos_sync.api.http.console.sign_in import SignIn
    from kratos_sync.application.kratos_config.check import Report
    from kratos_sync.application.ports.status import BrokerStatus
    from kratos_sync.infrastructure.container import Container
    from kratos_sync.infrastructure.observability.health import Health
    from kratos_sync.infrastructure.observability.observer import Observer
    from kratos_sync.infrastructure.settings import Settings

STOP_SECONDS: Final = 10
MOST_CONNECTIONS: Final = 100
LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
INSTALL: Final = 'install "kratos-identity-sync[console]", with pip or uv'

log = structlog.get_logger()


def is_installed() -> bool:
    """Whether the extra `console` is installed."""
    return all(find_spec(name) is not None for name in ("authlib", "jinja2", "python_multipart"))


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
        self._observer.turned("console")
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
    from kratos_sync.infrastructure.ledger.snapshot import one_moment
    from kratos_sync.infrastructure.migrations import why_unusable
    from kratos_sync.infrastructure.worker.shutdown import exit_when_stopped

    stopped = exit_when_stopped()
    with opened_container(stopped=stopped, process="console") as container:
        if stopped.is_set():
            return
        settings = container.settings()
        origin = settings.console_origin
        address = origin or f"http://{f'[{host}]' if ':' in host else host}:{port}"
        sign_in = _link_to(address, settings) if link else _sign_in(settings)
        rates = Rates(container.activity())
        with expected_errors():
            routes = console_routes(container, rates, stopped)
            why = partial(why_unusable, container.engine())
            app = create_console(
                sign_in, routes, origin=origin, one_moment=one_moment, why_unusable=why
            )
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


def _link_to(address: str, settings: "Settings") -> "SignIn":
    from kratos_sync.api.cli.options import os_user
    from kratos_sync.api.http.console.access import Operator, Role
    from kratos_sync.api.http.console.sign_in import SignInByLink

    operator = Operator(os_user(), frozenset(Role), second_factor=True)
    sessions = _sessions(address, settings)
    sign_in = SignInByLink(operator, sessions, address, lambda link: echo(f"Sign in, once: {link}"))
    sign_in.print_link()
    return sign_in


def _sessions(address: str, settings: "Settings", idle: float | None = None) -> "Sessions":
    from kratos_sync.api.http.console.sessions import Sessions

    lasts = settings.console_session_hours * 3_600.0
    return Sessions(
        secure=address.startswith("https://"), lasts=lasts, idle=lasts if idle is None else idle
    )


def _sign_in(settings: "Settings") -> "SignIn":
    """How operators sign in. Raises click.UsageError if the settings do not say it."""
    from kratos_sync.api.http.console.sign_in import SignInByKratos, SignInByProxy
    from kratos_sync.api.http.sessions.backend import KratosSessionBackend

    match settings.console_sign_in:
        case "kratos":
            if settings.kratos_public_url is None:
                raise click.UsageError("CONSOLE_SIGN_IN=kratos needs KRATOS_PUBLIC_URL.")
            public = settings.kratos_public_url.get_secret_value()
            browser = (settings.kratos_browser_url or settings.kratos_public_url).get_secret_value()
            # A bearer token is no browser's; and a page is opened by one.
            backend = KratosSessionBackend(public, browser_url=browser, bearer=False)
            return SignInByKratos(backend, browser, origin=settings.console_origin)
        case "proxy":
            if not settings.console_proxy_addresses:
                raise click.UsageError("CONSOLE_SIGN_IN=proxy needs CONSOLE_PROXY_ADDRESSES.")
            return SignInByProxy(
                settings.console_proxy_addresses,
                settings.console_user_header,
                settings.console_roles_header,
                settings.console_second_factor_header,
            )
        case "oidc":
            return _sign_in_by_oidc(settings)
    raise click.UsageError(
        "say how operators sign in: CONSOLE_SIGN_IN=kratos, proxy or oidc; or --link on this"
        " machine."
    )


def _sign_in_by_oidc(settings: "Settings") -> "SignIn":
    from kratos_sync.api.http.console.oidc import CALLBACK, ClaimRules, SignInByOidc
    from kratos_sync.api.http.console.openid_provider import Client, OpenIdProvider
    from kratos_sync.api.http.console.sessions import IDLE_SECONDS
    from kratos_sync.infrastructure.settings import is_private

    issuer, secret = settings.console_oidc_issuer, settings.console_oidc_client_secret
    client_id, origin = settings.console_oidc_client_id, settings.console_origin
    if issuer is None or secret is None or client_id is None or origin is None:
        needed = ("oidc_issuer", "oidc_client_id", "oidc_client_secret", "origin")
        missing = [name for name in needed if getattr(settings, f"console_{name}") is None]
        names = " and ".join(f"CONSOLE_{name.upper()}" for name in missing)
        raise click.UsageError(f"CONSOLE_SIGN_IN=oidc needs {names}.")
    if not is_private(origin):
        raise click.UsageError(
            "CONSOLE_SIGN_IN=oidc needs a CONSOLE_ORIGIN that starts with https://, or is on this"
            " machine."
        )
    client = Client(
        issuer=issuer.get_secret_value(),
        client_id=client_id,
        client_secret=secret.get_secret_value(),
        redirect_uri=f"{origin}{CALLBACK}",
        scope=settings.console_oidc_scopes,
        acr_values=settings.console_oidc_second_factor_acr,
    )
    rules = ClaimRules(
        name=settings.console_oidc_name_claim,
        roles=settings.console_oidc_roles_claim,
        second_factor_acr=frozenset(settings.console_oidc_second_factor_acr),
    )
    sessions = _sessions(origin, settings, IDLE_SECONDS)
    return SignInByOidc(OpenIdProvider(client), sessions, rules)


def console_routes(
    container: "Container", rates: "Rates", stopped: threading.Event
) -> "list[ConsoleRoute]":
    """Return all pages, on the ports of this container; they refresh nothing once `stopped`."""
    from kratos_sync.api.http.console.audit import AuditPages
    from kratos_sync.api.http.console.changes import Changes
    from kratos_sync.api.http.console.events import EventPages
    from kratos_sync.api.http.console.failures import FailurePages
    from kratos_sync.api.http.console.identity import IdentityPages
    from kratos_sync.api.http.console.kratos import KratosPages
    from kratos_sync.api.http.console.now import NowPage

    settings, subscriptions = container.settings(), container.subscriptions()
    changes, actions = Changes(container.operations()), container.actions()
    check = _checker(settings.kratos_webhook_api_key_header)
    now = NowPage(
        status=container.status(),
        broker=_broker(container),
        rates=rates,
        subscriptions=subscriptions,
        actions=actions,
        changes=changes,
        can_ask=settings.kratos_admin_url is not None,
        kept_seconds=settings.console_kept_seconds,
        stopped=stopped,
    )
    events = EventPages(
        search=container.event_search(),
        dead_letters=container.dead_letters(),
        history=container.history(),
        trials=container.trials(),
        subscriptions=subscriptions,
        actions=actions,
        changes=changes,
        effects_elsewhere=container.consumers().effects_elsewhere,
    )
    pages = (
        now,
        FailurePages(
            container.dead_letters(), actions, changes, settings.console_kept_seconds, stopped
        ),
        IdentityPages(container.identity_search(), container.history(), actions, changes),
        events,
        KratosPages(
            container.kratos_status(),
            check,
            actions,
            changes,
            configured=_configured(settings.console_kratos_config, check),
        ),
        AuditPages(changes, container.dead_letters()),
    )
    return [route for page in pages for route in page.routes()]


def _broker(container: "Container") -> "Callable[[Sequence[str]], BrokerStatus] | None":
    """Asks the broker; None if that is in the memory of another process."""
    from kratos_sync.infrastructure.bus.broker import broker_status, is_in_memory

    if is_in_memory(container.settings().broker_url):
        return None
    return lambda consumers: broker_status(container.broker_to_ask(), consumers)


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


def _configured(
    path: Path | None, check: "Callable[[bytes], Report]"
) -> "Callable[[], Report | None]":
    """Checks the file, and again only when it has changed; None without one."""
    from kratos_sync.api.http.console.kratos import UnreadableConfiguration
    from kratos_sync.infrastructure.kratos.config_file import MOST_BYTES

    @lru_cache(maxsize=1)
    def checked(file: Path, _modified_at: int, _size: int) -> "Report":
        with file.open("rb") as opened:
            return check(opened.read(MOST_BYTES + 1))

    def configured() -> "Report | None":
        if path is None:
            return None
        try:
            status = path.stat()
            return checked(path, status.st_mtime_ns, status.st_size)
        except OSError as error:
            raise UnreadableConfiguration(str(error.strerror)) from None

    return configured
