"""A visitor of the console who is not a browser: requests to the application in this process."""

import asyncio
import re
import threading
from collections.abc import AsyncIterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from uuid import UUID

import httpx
from sqlalchemy import Engine
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute

from kratos_sync.api.cli.console import console_routes
from kratos_sync.api.http.console.access import Operator, Role
from kratos_sync.api.http.console.app import ConsoleRoute, create_console
from kratos_sync.api.http.console.rates import Rates
from kratos_sync.api.http.console.rendering import Templates
from kratos_sync.infrastructure.container import Container
from kratos_sync.infrastructure.ledger.snapshot import one_moment
from kratos_sync.infrastructure.migrations import why_unusable
from tests.infrastructure.ledger.rows import add_delivery, add_event, log_attempt
from tests.waiting import until

OWN = {"sec-fetch-site": "same-origin"}
ADDRESS = "http://127.0.0.1:8100"
VIEWER = Operator("vera", frozenset({Role.VIEWER}))
OPERATOR = Operator("olga", frozenset({Role.VIEWER, Role.OPERATOR}))
PRIVACY = Operator("petra", frozenset({Role.VIEWER, Role.PRIVACY}))
EVERYTHING = Operator("ada", frozenset(Role), second_factor=True)
SYNC = "SyncKratosIdentity"
CANARY = "dalia@example.org"
XSS = "<script>alert('xss')</script>"


@contextmanager
def open_routes(container: Container, rates: Rates | None = None) -> Iterator[list[ConsoleRoute]]:
    """All routes on this container; nothing reads its database any more afterwards."""
    stopped = threading.Event()
    try:
        yield console_routes(container, rates or Rates(container.activity()), stopped)
    finally:
        stopped.set()
        until(lambda: not [each for each in threading.enumerate() if each.name == "recent"])


class SignedIn:
    """Everybody is this operator; None is nobody, an error that it cannot be known."""

    can_sign_out = False

    def __init__(self, operator: Operator | Exception | None) -> None:
        self._operator = operator

    def routes(self, templates: Templates) -> Sequence[BaseRoute]:
        return ()

    async def operator(self, connection: HTTPConnection) -> Operator | None:
        if isinstance(self._operator, Exception):
            raise self._operator
        return self._operator

    def page(self, connection: HTTPConnection) -> str | None:
        return "https://sign-in.example/"

    def second_factor_page(self, connection: HTTPConnection) -> str | None:
        return "https://sign-in.example/second"


def console_of(
    container: Container, operator: Operator | Exception | None, routes: Sequence[ConsoleRoute]
) -> Starlette:
    """The whole console as somebody who is signed in, as `kratos-sync console` makes it."""
    why = partial(why_unusable, container.engine())
    return create_console(SignedIn(operator), routes, one_moment=one_moment, why_unusable=why)


class Visitor:
    """Opens pages and sends forms, which an own page sends unless the headers say otherwise."""

    def __init__(self, app: Starlette, peer: str = "127.0.0.1") -> None:
        self._app = app
        self._peer = peer

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> httpx.Response:
        return self.request("GET", path, headers=headers or {})

    def post(
        self,
        path: str,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        return self.request(
            "POST", path, form=form or {}, headers=OWN if headers is None else headers
        )

    def request(
        self,
        method: str,
        path: str,
        *,
        form: Mapping[str, str] | None = None,
        content: AsyncIterable[bytes] | None = None,
        headers: Mapping[str, str],
    ) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(
                self._app, raise_app_exceptions=False, client=(self._peer, 50_000)
            )
            async with httpx.AsyncClient(transport=transport, base_url=ADDRESS) as client:
                return await client.request(
                    method, path, data=form, content=content, headers=dict(headers)
                )

        return asyncio.run(send())


def fail(engine: Engine, error: str = f"ValueError: {CANARY} {XSS}", shape: str = "… ") -> UUID:
    """A dead letter of an event about somebody."""
    event_id = add_event(engine)
    log_attempt(engine, SYNC, event_id, outcome="gave_up", error=error)
    return add_delivery(
        engine,
        SYNC,
        event_id,
        attempts=12,
        failed_ago=timedelta(minutes=5),
        last_error=error,
        error_type="ValueError",
        error_shape=shape,
    )


def group_of(visitor: Visitor) -> str:
    """The page of the largest group of dead letters."""
    found = re.search(r'href="(/failures/[0-9a-f]{16})"', visitor.get("/failures").text)
    assert found is not None
    return found[1]


def shown(visitor: Visitor, group: str) -> dict[str, str]:
    """What the forms of a group send of what its page shows: how many there are, until when."""
    fields = re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', visitor.get(group).text)
    return {name: value for name, value in fields if name != "ticket"}
