"""The web application: every route in one table."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from http import HTTPStatus
from typing import Final

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from kratos_sync.api.http import openapi
from kratos_sync.api.http.webhooks.parse_identity import KratosIdentityParseHandler
from kratos_sync.api.http.webhooks.rejections import status_response
from kratos_sync.api.http.webhooks.sync_identity import KratosIdentitySyncHandler
from kratos_sync.application.ports.event_bus import LedgerUnavailable
from kratos_sync.application.ports.status import ReadinessCheck
from kratos_sync.domain.json_values import Json

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()


class Health:
    """Answers liveness and readiness probes.

    A check that fails is named, with our own words for the reason where there are any; a driver's
    text is never shown. Ready means that webhooks can be accepted, which takes the database only.
    """

    def __init__(
        self, checks: Sequence[ReadinessCheck], timeout: timedelta = timedelta(seconds=2)
    ) -> None:
        """A check that does not return within `timeout` counts as down."""
        self._checks = checks
        self._timeout = timeout
        self._running: dict[int, asyncio.Task[str | None]] = {}

    async def live(self, request: Request) -> Response:  # noqa: ARG002
        """200 as long as the process can answer."""
        return JSONResponse({"status": "ok"})

    async def ready(self, request: Request) -> Response:  # noqa: ARG002
        """200 when every check succeeds, 503 with the names of those that do not."""
        runs = [self._run(index) for index in range(len(self._checks))]
        if runs:
            await asyncio.wait(runs, timeout=self._timeout.total_seconds())
        problems = {
            check.name: run.result() if run.done() else ""
            for check, run in zip(self._checks, runs, strict=True)
        }
        down = [name for name, reason in problems.items() if reason is not None]
        if not down:
            return JSONResponse({"status": "ok"})
        answer: dict[str, Json] = {"status": "unavailable", "down": [*down]}
        if reasons := {name: reason for name, reason in problems.items() if reason}:
            answer["reasons"] = {**reasons}
        return JSONResponse(answer, HTTPStatus.SERVICE_UNAVAILABLE)

    def _run(self, index: int) -> asyncio.Task[str | None]:
        """The running task of a check, or a new one: a check that hangs takes one thread only."""
        run = self._running.get(index)
        if run is None or run.done():
            run = self._running[index] = asyncio.create_task(_problem_of(self._checks[index]))
        return run


async def _problem_of(check: ReadinessCheck) -> str | None:
    """None when the check succeeds; else the reason in our own words, or an empty text."""
    try:
        await asyncio.to_thread(check.check)
    except Exception as error:  # noqa: BLE001 - whatever a check raises means: not ready
        reason = str(error) if isinstance(error, LedgerUnavailable) else ""
        _log.warning("not_ready", check=check.name, error=type(error).__qualname__, reason=reason)
        return reason
    return None


SYNC: Final = "/kratos/sync-identity"
PARSE: Final = "/kratos/parse-identity"


def create_app(
    sync: KratosIdentitySyncHandler,
    parse: KratosIdentityParseHandler,
    checks: Sequence[ReadinessCheck],
) -> Starlette:
    """Build the application; errors are answered in Kratos' form, without detail."""
    health = Health(checks)
    app = _Application(
        routes=[
            Route(SYNC, sync, methods=["POST"]),
            Route(PARSE, parse, methods=["POST"]),
            Route("/health/live", health.live, methods=["GET"]),
            Route("/health/ready", health.ready, methods=["GET"]),
            Route("/openapi.json", openapi.endpoint(sync.api_key_header_name), methods=["GET"]),
        ],
        exception_handlers={HTTPException: _answer_http_error, Exception: _answer_error},
    )
    # Kratos follows a redirect with a GET that has no body.
    app.router.redirect_slashes = False
    app.sync = sync
    return app


class _Application(Starlette):
    """Starlette's application, but for calls of the sync handler, which go to it directly.

    Starlette's middleware and routing cost as much as a third of a call, and the handler needs none
    of it: it answers its own errors.
    """

    sync: KratosIdentitySyncHandler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == SYNC and scope["method"] == "POST":
            await self.sync(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


async def _answer_http_error(request: Request, error: Exception) -> Response:  # noqa: ARG001
    if not isinstance(error, HTTPException):
        raise error
    status = HTTPStatus(error.status_code)
    return status_response(status, status.phrase.lower(), error.headers)


async def _answer_error(request: Request, error: Exception) -> Response:  # noqa: ARG001
    return status_response(HTTPStatus.INTERNAL_SERVER_ERROR, "something went wrong")
