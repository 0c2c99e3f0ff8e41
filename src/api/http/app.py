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
from starlette.types import ASGIApp, Receive, Scope, Send

from kratos_sync.api.http import openapi
from kratos_sync.api.http.webhooks.parse_identity import KratosIdentityParseHandler
from kratos_sync.api.http.webhooks.rejections import status_response
from kratos_sync.api.http.webhooks.sync_identity import KratosIdentitySyncHandler
from kratos_sync.application.ports.event_bus import LedgerUnavailable
from kratos_sync.application.ports.status import ReadinessCheck

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()


class Health:
    """Answers those who start, stop and balance processes.

    What is down is named, and where our own words say why they are given too; never a driver's.

    Check what taking webhooks needs and no more: that is the database. The broker may be away.
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
        results = {
            check.name: run.result() if run.done() else ""
            for check, run in zip(self._checks, runs, strict=True)
        }
        down = [name for name, reason in results.items() if reason is not None]
        if not down:
            return JSONResponse({"status": "ok"})
        reasons = {name: reason for name, reason in results.items() if reason}
        answer = {
            "status": "unavailable",
            "down": down,
            **({"reasons": reasons} if reasons else {}),
        }
        return JSONResponse(answer, HTTPStatus.SERVICE_UNAVAILABLE)

    def _run(self, index: int) -> asyncio.Task[str | None]:
        """The run under way, or a new one: a check that hangs takes one thread, not many."""
        run = self._running.get(index)
        if run is None or run.done():
            run = self._running[index] = asyncio.create_task(_wrong_with(self._checks[index]))
        return run


async def _wrong_with(check: ReadinessCheck) -> str | None:
    """None if it is there, else why not, as far as words of ours say it."""
    try:
        await asyncio.to_thread(check.check)
    except Exception as error:  # noqa: BLE001 - whatever a check raises means: not there
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
) -> ASGIApp:
    """Build the application; errors are answered in Kratos' form, without detail."""
    health = Health(checks)
    app = Starlette(
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
    return _Shortcut(app, SYNC, sync)


class _Shortcut:
    """Passes POSTs to one path to its handler at once, past what Starlette does for every call.

    A handler answers its own errors; whatever is not exactly such a call goes the long way.
    """

    def __init__(self, app: ASGIApp, path: str, handler: ASGIApp) -> None:
        self._app = app
        self._path = path
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        direct = (
            scope["type"] == "http" and scope["path"] == self._path and scope["method"] == "POST"
        )
        await (self._handler if direct else self._app)(scope, receive, send)


async def _answer_http_error(request: Request, error: Exception) -> Response:  # noqa: ARG001
    if not isinstance(error, HTTPException):
        raise error
    status = HTTPStatus(error.status_code)
    return status_response(status, status.phrase.lower(), error.headers)


async def _answer_error(request: Request, error: Exception) -> Response:  # noqa: ARG001
    return status_response(HTTPStatus.INTERNAL_SERVER_ERROR, "something went wrong")
