"""The web application: every route in one table."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from api import openapi
from api.health import Health
from api.webhooks.errors import status_response
from api.webhooks.parse_identity import KratosIdentityParseHandler
from api.webhooks.sync_identity import KratosIdentitySyncHandler
from application.ports.readiness import ReadinessCheck

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
    """Hands POSTs to one path to its handler at once, past what Starlette does for every call.

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
