"""The web application: every route in one table."""

from collections.abc import Sequence
from http import HTTPStatus

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.health import Health
from api.webhooks.errors import status_response
from api.webhooks.parse_identity import KratosIdentityParseHandler
from api.webhooks.sync_identity import KratosIdentitySyncHandler
from application.ports.readiness import ReadinessCheck


def create_app(
    sync: KratosIdentitySyncHandler,
    parse: KratosIdentityParseHandler,
    checks: Sequence[ReadinessCheck],
) -> Starlette:
    """Build the application; errors are answered in Kratos' form, without detail."""
    health = Health(checks)
    app = Starlette(
        routes=[
            Route("/kratos/sync-identity", sync.handle, methods=["POST"]),
            Route("/kratos/parse-identity", parse.handle, methods=["POST"]),
            Route("/health/live", health.live, methods=["GET"]),
            Route("/health/ready", health.ready, methods=["GET"]),
        ],
        exception_handlers={HTTPException: _answer_http_error, Exception: _answer_error},
    )
    # Kratos follows a redirect with a GET that has no body.
    app.router.redirect_slashes = False
    return app


async def _answer_http_error(request: Request, error: Exception) -> Response:  # noqa: ARG001
    if not isinstance(error, HTTPException):
        raise error
    status = HTTPStatus(error.status_code)
    return status_response(status, status.phrase.lower(), error.headers)


async def _answer_error(request: Request, error: Exception) -> Response:  # noqa: ARG001
    return status_response(HTTPStatus.INTERNAL_SERVER_ERROR, "something went wrong")
