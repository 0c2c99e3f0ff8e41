"""What every webhook handler does before and around its own part."""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from http import HTTPStatus
from typing import Final, TypeVar

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from kratos_sync.api.http.webhooks.identity_body import rejection
from kratos_sync.api.http.webhooks.publisher import TooManyCallsWait
from kratos_sync.api.http.webhooks.rejections import error_response, status_response
from kratos_sync.api.http.webhooks.requests import (
    RETRY_AFTER,
    ApiKeys,
    BodyBudget,
    Rejected,
    check_type,
    first_headers,
    hook_label,
    read_body,
)
from kratos_sync.application.errors import details
from kratos_sync.application.json_body import NotJson
from kratos_sync.application.ports.event_bus import LedgerUnavailable
from kratos_sync.domain.fields import InvalidField

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()
LARGE_BODY_BYTES: Final = 16_384
"""A larger body, which is rare, would take the event loop too long to decode."""
_RESULT: Final = "kratos_sync.result"
_RESULTS: Final[Mapping[int, str]] = {
    HTTPStatus.FORBIDDEN: "unauthorized",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "too_large",
    HTTPStatus.SERVICE_UNAVAILABLE: "unavailable",
}

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class KratosWebHookHandlerConfig:
    """The keys and the limits of a handler. Any of the keys is accepted; a change needs two."""

    api_keys: tuple[str, ...] = field(repr=False)
    api_key_header_name: str | None = None
    """The header that carries the key, where it is not the handler's own."""
    max_body_bytes: int = 1_048_576
    body_timeout: timedelta = timedelta(seconds=10)
    max_arriving_bytes: int = 67_108_864
    """Of all bodies together that arrive in parts, or are large and wait to be decoded."""
    on_answered: Callable[[str, float], None] | None = field(default=None, repr=False)
    """Called after each call with its result and the seconds it took."""


class KratosWebHookHandler(ABC):
    """An ASGI endpoint that answers a webhook; subclasses write `handle_core`.

    Every rejection is in Kratos' form. 403, 415, 413, 408 and 503 are decided before `handle_core`;
    after it 400 answers NotJson, 422 InvalidField, 503 LedgerUnavailable and 500 anything else,
    whose text goes neither to the caller nor to the log. Only calls rejected for lack of capacity
    carry Retry-After, which Kratos obeys: the others have waited already.
    """

    api_key_header_name: str = "X-Api-Key"

    def __init__(self, config: KratosWebHookHandlerConfig) -> None:
        """Raises ValueError when the configuration holds no key, or an empty one."""
        self._config = config
        self._on_answered = config.on_answered
        self._keys = ApiKeys(config.api_keys)
        self.api_key_header_name = config.api_key_header_name or self.api_key_header_name
        self._body_budget = BodyBudget(config.max_arriving_bytes)
        self._large_bodies = ThreadPoolExecutor(1, "large-body")
        self._key_header = self.api_key_header_name.lower().encode("latin-1")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self.handle(Request(scope, receive, send))
        await response(scope, receive, send)

    async def handle(self, request: Request) -> Response:
        """Answer a call; nothing but cancellation is raised."""
        began = time.perf_counter()
        try:
            response = await self.handle_core(request, await self._read_request(request))
        except Exception as error:  # noqa: BLE001 - the server would log its text
            response = _answer_to(error, request)
        if self._on_answered is not None:
            result = request.scope.get(_RESULT) or _RESULT_OF[response.status_code]
            self._on_answered(result, time.perf_counter() - began)
        return response

    @abstractmethod
    async def handle_core(self, request: Request, body: bytes) -> Response:
        """Answer a call that had a key and a JSON content type; the body is not decoded yet."""

    async def read(self, read: Callable[[bytes], _T], body: bytes) -> _T:
        """Return `read(body)`; large bodies are read on a thread, one at a time.

        Raises Rejected when too many of them wait.
        """
        if len(body) <= LARGE_BODY_BYTES:
            return read(body)
        self._body_budget.take(len(body))
        try:
            running_loop = asyncio.get_running_loop()
            return await running_loop.run_in_executor(self._large_bodies, read, body)
        finally:
            self._body_budget.release(len(body))

    async def _read_request(self, request: Request) -> bytes:
        # The key is checked first: without one nothing else is disclosed.
        headers = first_headers(request)
        if not self._keys.accept(headers.get(self._key_header, b"")):
            raise Rejected(HTTPStatus.FORBIDDEN, "the API key is missing or wrong")
        check_type(headers)
        limits = self._config.max_body_bytes, self._config.body_timeout, self._body_budget
        return await read_body(request, headers, *limits)


def _answer_to(error: Exception, request: Request) -> Response:
    match error:
        case Rejected() | NotJson():
            return _reject(error)
        case InvalidField():
            return error_response(rejection(error, hook_label(first_headers(request))))
        case ClientDisconnect():
            _log.info("webhook_disconnected")
            note_result(request, "disconnected")
            return Response(status_code=HTTPStatus.BAD_REQUEST)
        case LedgerUnavailable():
            _log.warning("webhook_not_recorded", reason=str(error), **details(error))
            headers = RETRY_AFTER if isinstance(error, TooManyCallsWait) else None
            return status_response(HTTPStatus.SERVICE_UNAVAILABLE, "try again later", headers)
    _log.error("webhook_failed", **details(error))
    return status_response(HTTPStatus.INTERNAL_SERVER_ERROR, "something went wrong")


def note_result(request: Request, result: str) -> None:
    """Set the result of a call, where its status does not say it."""
    request.scope[_RESULT] = result


def _result_of(status: int) -> str:
    if status < HTTPStatus.BAD_REQUEST:
        return "accepted"
    otherwise = "failed" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid"
    return _RESULTS.get(status, otherwise)


_RESULT_OF: Final = {status: _result_of(status) for status in range(100, 600)}


def _reject(error: Rejected | NotJson) -> Response:
    status, headers = HTTPStatus.BAD_REQUEST, None
    if isinstance(error, Rejected):
        status, headers = error.status, error.headers
    _log.warning("webhook_rejected", status=int(status), reason=str(error))
    return status_response(status, str(error), headers)
