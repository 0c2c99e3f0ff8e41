"""The console's application: who may open which page, and what happens when something is away."""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlencode

import structlog
from anyio import CapacityLimiter, to_thread
from starlette.applications import Starlette
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route, compile_path

from kratos_sync.api.http.console.access import (
    NO_ROLE,
    NoRole,
    Operator,
    Role,
    SecondFactorNeeded,
)
from kratos_sync.api.http.console.rendering import StaticFiles, Templates
from kratos_sync.api.http.console.security import Guard
from kratos_sync.api.http.console.sign_in import NoAnswer, SignIn
from kratos_sync.application.errors import summary
from kratos_sync.application.ports.event_bus import LedgerUnavailable
from kratos_sync.application.ports.position import Position
from kratos_sync.domain.fields import from_text

MOST_AT_ONCE: Final = 4
"""Pages that read the ledger at the same time; others wait."""
MOST_FIELDS: Final = 1_000
NO_PAGE: Final = "There is no such page."

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Call:
    """A request of an operator who may send it; `form` is empty unless it is a POST."""

    request: Request
    operator: Operator
    form: FormData = field(default_factory=FormData)

    def text(self, name: str, longest: int = 1_000) -> str:
        """A field of the form without surrounding space. Raises WrongInput if it is too long."""
        value = self.form.get(name, "")
        text = value.strip() if isinstance(value, str) else ""
        if len(text) > longest:
            raise WrongInput(f"{name} is longer than {longest:,} characters")
        return text

    def before(self) -> Position | None:
        """The position that a page of a list goes on at. Raises WrongInput."""
        text = self.request.query_params.get("before")
        if not text:
            return None
        at, _, event_id = text.partition(" ")
        found = from_text(event_id)
        try:
            position = None if found is None else Position(datetime.fromisoformat(at), found)
        except ValueError:
            position = None
        if position is None or position.recorded_at.tzinfo is None:
            raise WrongInput(NO_PAGE)
        return position

    def earlier(self, position: Position, *, path: str | None = None, **changed: object) -> str:
        """The address of the page of this list that goes on at a position."""
        before = f"{position.recorded_at.isoformat()} {position.event_id}"
        return self.with_query(path=path, before=before, **changed)

    def with_query(self, *, path: str | None = None, **changed: object) -> str:
        """The address of this page with other parameters, and without those that are empty.

        `path` is that of the list, where a form shows it under another one.
        """
        asked = {**self.request.query_params, **changed}
        query = urlencode({name: value for name, value in asked.items() if value})
        return (path or self.request.url.path) + (f"?{query}" if query else "")


@dataclass(frozen=True, slots=True)
class Page:
    """A template and what it shows."""

    template: str
    context: Mapping[str, Any] = field(default_factory=dict)
    status: HTTPStatus = HTTPStatus.OK


@dataclass(frozen=True, slots=True)
class See:
    """After a change: the page of the console that shows what became of it."""

    path: str


class WrongInput(Exception):
    """What was asked for makes no sense; the text says why."""


class NotFound(Exception):
    """There is no such thing."""


Handler = Callable[[Call], Page | See | Response]


@dataclass(frozen=True, slots=True)
class ConsoleRoute:
    """A path, who may use it, and what it does, in a thread."""

    path: str
    handler: Handler
    role: Role = Role.VIEWER
    method: str = "GET"


def create_console(
    sign_in: SignIn,
    routes: Sequence[ConsoleRoute],
    *,
    origin: str | None = None,
    one_moment: Callable[[], AbstractContextManager[None]] = nullcontext,
    why_unusable: Callable[[Exception], str | None] = lambda _: None,
) -> Starlette:
    """The console with these pages. `origin` is its address in browsers, where that differs.

    A page reads within `one_moment`, so that its parts agree. `why_unusable` says, in any thread,
    what to run after an error that lasts until somebody does; it is None for all others.
    """
    static = StaticFiles()
    templates = Templates(static, can_sign_out=sign_in.can_sign_out)
    pages = [compile_path(each.path)[0] for each in routes if each.method == "GET"]
    console = _Console(sign_in, templates, pages, one_moment, why_unusable)
    served: list[BaseRoute] = [
        Route("/static/{digest}/{name}", static.serve),
        *sign_in.routes(templates),
        *(Route(r.path, console.endpoint(r), methods=[r.method]) for r in routes),
    ]
    return Starlette(
        routes=served,
        middleware=[Middleware(Guard, origin=origin)],
        exception_handlers={HTTPException: console.http_error},
    )


class _Console:
    def __init__(
        self,
        sign_in: SignIn,
        templates: Templates,
        pages: Sequence[re.Pattern[str]],
        one_moment: Callable[[], AbstractContextManager[None]],
        why_unusable: Callable[[Exception], str | None],
    ) -> None:
        self._sign_in = sign_in
        self._templates = templates
        self._pages = pages
        self._one_moment = one_moment
        self._why_unusable = why_unusable
        self._threads = CapacityLimiter(MOST_AT_ONCE)

    def endpoint(self, route: ConsoleRoute) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            try:
                return await self._answer(route, request)
            except ClientDisconnect:
                return Response(status_code=HTTPStatus.BAD_REQUEST)
            except HTTPException:
                raise
            except Exception as error:  # noqa: BLE001  # Starlette would answer without the headers
                _log.error("page_failed", path=route.path, **summary(error))
                return self._error(request, None, HTTPStatus.INTERNAL_SERVER_ERROR, FAILED)

        return answer

    async def _answer(self, route: ConsoleRoute, request: Request) -> Response:
        try:
            operator = await self._sign_in.operator(request)
        except (NoAnswer, NoRole, SecondFactorNeeded) as error:
            status, text = SIGN_IN_ERRORS[type(error)]
            return self._error(request, None, status, text)
        if operator is None:
            return self._sign_in_first(request)
        if not operator.may(route.role):
            text = f"This needs the role {route.role}. You have: {_names(operator)}."
            return self._error(request, operator, HTTPStatus.FORBIDDEN, text)
        return await self._handled(route, request, operator)

    async def _handled(self, route: ConsoleRoute, request: Request, operator: Operator) -> Response:
        try:
            form = await request.form(max_files=0, max_fields=MOST_FIELDS)
            _require_text(*request.query_params.values(), *form.values())
            call = Call(request, operator, form)
            result = await to_thread.run_sync(self._run, route, call, limiter=self._threads)
        except (NotFound, WrongInput) as error:
            missing = isinstance(error, NotFound)
            status = HTTPStatus.NOT_FOUND if missing else HTTPStatus.BAD_REQUEST
            return self._error(request, operator, status, str(error))
        except LedgerUnavailable as error:
            _log.warning("ledger_unavailable", reason=str(error))
            return self._error(request, operator, HTTPStatus.SERVICE_UNAVAILABLE, LEDGER_AWAY)
        except Exception as error:
            why = await to_thread.run_sync(self._why_unusable, error, limiter=self._threads)
            if why is None:
                raise
            _log.warning("ledger_unusable", reason=why)
            return self._error(request, operator, HTTPStatus.SERVICE_UNAVAILABLE, why)
        return self._response(request, operator, result)

    def _run(self, route: ConsoleRoute, call: Call) -> Page | See | Response:
        with self._one_moment() if route.method == "GET" else nullcontext():
            return route.handler(call)

    def _response(
        self, request: Request, operator: Operator, result: Page | See | Response
    ) -> Response:
        if isinstance(result, See):
            return RedirectResponse(result.path, HTTPStatus.SEE_OTHER)
        if isinstance(result, Page):
            context = {**self._ways_in(request), **result.context}
            return self._templates.page(request, operator, result.template, context, result.status)
        return result

    def _sign_in_first(self, request: Request) -> Response:
        page = self._sign_in.page(request)
        if page is not None and request.method == "GET" and "hx-request" not in request.headers:
            return RedirectResponse(page, HTTPStatus.SEE_OTHER)
        answer = self._error(request, None, HTTPStatus.UNAUTHORIZED, NOT_SIGNED_IN)
        # A page that updates itself would go on to show what was true when the session ended.
        answer.headers["hx-refresh"] = "true"
        return answer

    async def http_error(self, request: Request, error: Exception) -> Response:
        status = HTTPStatus(error.status_code if isinstance(error, HTTPException) else 500)
        if status is HTTPStatus.METHOD_NOT_ALLOWED and request.method == "GET":
            # The address that a form left in the browser.
            return RedirectResponse(self._page_of_form(request), HTTPStatus.SEE_OTHER)
        try:
            operator = await self._sign_in.operator(request)
        except (NoAnswer, NoRole, SecondFactorNeeded):
            operator = None
        text = NO_PAGE if status is HTTPStatus.NOT_FOUND else f"{status.phrase}."
        return self._error(request, operator, status, text)

    def _ways_in(self, request: Request) -> Mapping[str, str | None]:
        return {"second_factor_page": self._sign_in.second_factor_page(request)}

    def _page_of_form(self, request: Request) -> str:
        """The page that has the form which was sent."""
        path = request.url.path
        asked = (path, path.rpartition("/")[0])
        return next((each for each in asked if any(page.match(each) for page in self._pages)), "/")

    def _error(
        self, request: Request, operator: Operator | None, status: HTTPStatus, text: str
    ) -> Response:
        """A page that says what is wrong, and leads to where one goes on."""
        links = {}
        if text == NEEDS_SECOND_FACTOR and (page := self._sign_in.second_factor_page(request)):
            links["Sign in with a second factor"] = page
        elif text == NOT_SIGNED_IN and self._sign_in.page(request) is not None:
            links["Sign in"] = self._page_of_form(request)
        elif request.method == "POST" and operator is not None:
            links["Open the page again"] = self._page_of_form(request)
        return self._templates.error(request, operator, status, text, links)


SIGN_IN_AWAY: Final = "Who signs operators in does not answer. Try again in a moment."
NOT_SIGNED_IN: Final = (
    "You are not signed in, or your session has ended: nothing was shown or changed."
)
NEEDS_SECOND_FACTOR: Final = "You are signed in, and need a second factor."
SIGN_IN_ERRORS: Final[Mapping[type[Exception], tuple[HTTPStatus, str]]] = {
    NoAnswer: (HTTPStatus.SERVICE_UNAVAILABLE, SIGN_IN_AWAY),
    NoRole: (HTTPStatus.FORBIDDEN, NO_ROLE),
    SecondFactorNeeded: (HTTPStatus.FORBIDDEN, NEEDS_SECOND_FACTOR),
}
"""The status and sentence of the answer to who may not open a page, by the error."""
FAILED: Final = "The page failed. The console's log names the error."
LEDGER_AWAY: Final = (
    "PostgreSQL does not answer. Webhooks wait for it; nothing that was accepted is lost. Is it"
    " running, and is DATABASE_URL right? Load this page again once it is back."
)


def _names(operator: Operator) -> str:
    return ", ".join(sorted(operator.roles))


def _require_text(*given: object) -> None:
    """Raise WrongInput for U+0000, which no text in PostgreSQL has."""
    if any("\0" in each for each in given if isinstance(each, str)):
        raise WrongInput("There is no such text.")
