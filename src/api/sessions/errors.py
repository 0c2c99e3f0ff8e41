"""Why a request cannot go on, and what it is answered: in the form of Kratos' own errors."""

from http import HTTPStatus
from typing import Final

from starlette.authentication import AuthenticationError
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, Response

from domain.json_values import Json

_NOT_KEPT: Final = {"Cache-Control": "no-store"}


class SecondFactorRequired(AuthenticationError):
    """There is a session, and Kratos wants a second factor of the person first."""

    def __init__(self, redirect_browser_to: str | None) -> None:
        super().__init__("a second factor is required")
        self.redirect_browser_to = redirect_browser_to
        """Where a browser goes for it, as Kratos said, if it did."""


class KratosAway(AuthenticationError):
    """Nobody knows who it is: Kratos is away, slow, busy, or answers what cannot be understood."""

    def __init__(self, retry_after: int) -> None:
        super().__init__("whose session it is cannot be told now")
        self.retry_after = retry_after
        """In seconds."""


def session_error_response(conn: HTTPConnection, error: Exception) -> Response:  # noqa: ARG001
    """For `AuthenticationMiddleware(on_error=…)`: 403, 503, or 401 for any other error.

    The body is as Kratos' own, so what understands Kratos understands it, and holds no error's
    text. (Starlette closes a websocket instead.)
    """
    match error:
        case SecondFactorRequired():
            error_id: dict[str, Json] = {"id": "session_aal2_required"}
            where = error.redirect_browser_to
            body = _body(HTTPStatus.FORBIDDEN, "a second factor is required", error_id)
            if where is not None:
                body["redirect_browser_to"] = where
            return JSONResponse(body, HTTPStatus.FORBIDDEN, _NOT_KEPT)
        case KratosAway():
            headers = {**_NOT_KEPT, "Retry-After": str(error.retry_after)}
            body = _body(HTTPStatus.SERVICE_UNAVAILABLE, "try again later", {})
            return JSONResponse(body, HTTPStatus.SERVICE_UNAVAILABLE, headers)
        case _:
            body = _body(HTTPStatus.UNAUTHORIZED, "this could not be authorized", {})
            return JSONResponse(body, HTTPStatus.UNAUTHORIZED, _NOT_KEPT)


def _body(status: HTTPStatus, message: str, more: dict[str, Json]) -> dict[str, Json]:
    return {"error": {**more, "code": status, "status": status.phrase, "message": message}}
