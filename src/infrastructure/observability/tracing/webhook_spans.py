"""A SERVER span around each call of a webhook, as an ASGI application around another."""

from collections.abc import Awaitable, Callable, Collection, MutableMapping
from http import HTTPStatus
from typing import Any, Final

from opentelemetry.context import attach, detach
from opentelemetry.trace import SpanKind, StatusCode, Tracer, set_span_in_context

from kratos_sync.application.errors import name_of
from kratos_sync.infrastructure.observability.tracing import names
from kratos_sync.infrastructure.observability.tracing.contexts import parent_of, to_traceparent

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]

HEADER: Final = b"traceparent"


class TracedWebhooks:
    """Traces POST calls of these paths; others are passed on.

    The application inside gets the span's context in place of the caller's `traceparent`: so the
    event is recorded with our own decision whether the trace is sampled.
    """

    def __init__(self, app: Asgi, tracer: Tracer, paths: Collection[str]) -> None:
        self._app = app
        self._tracer = tracer
        self._names = {path: f"POST {path}" for path in paths}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as an ASGI application."""
        if scope["type"] != "http" or scope["method"] != "POST":
            return await self._app(scope, receive, send)
        if (name := self._names.get(scope["path"])) is None:
            return await self._app(scope, receive, send)
        caller = next((value for key, value in scope["headers"] if key == HEADER), b"")
        span = self._tracer.start_span(
            name,
            parent_of(caller.decode("latin-1")),
            SpanKind.SERVER,
            {
                names.HTTP_REQUEST_METHOD: "POST",
                names.HTTP_ROUTE: scope["path"],
                names.URL_PATH: scope["path"],
                names.URL_SCHEME: scope["scheme"],
            },
        )
        own = (HEADER, to_traceparent(span.get_span_context()).encode())
        headers = [own, *(pair for pair in scope["headers"] if pair[0] != HEADER)]
        token = attach(set_span_in_context(span))

        async def note_status(message: Message) -> None:
            if message["type"] == "http.response.start":
                status = message["status"]
                span.set_attribute(names.HTTP_RESPONSE_STATUS_CODE, status)
                if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                    span.set_attribute(names.ERROR_TYPE, str(status))
                    span.set_status(StatusCode.ERROR)
            await send(message)

        try:
            await self._app({**scope, "headers": headers}, receive, note_status)
        except BaseException as error:
            span.set_attribute(names.ERROR_TYPE, name_of(type(error)))
            span.set_status(StatusCode.ERROR)
            raise
        finally:
            detach(token)
            span.end()
