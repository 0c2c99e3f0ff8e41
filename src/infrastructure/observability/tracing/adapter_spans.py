"""Spans of adapters: CLIENT for a request to Kratos, PRODUCER for a commit of events."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer

from kratos_sync.application.errors import name_of
from kratos_sync.application.trace_context import is_sampled
from kratos_sync.infrastructure.observability.spans import RequestSpan, Spans
from kratos_sync.infrastructure.observability.tracing import names
from kratos_sync.infrastructure.observability.tracing.contexts import (
    links_to,
    parent_of,
    to_traceparent,
)

EXPECTED: Final = HTTPStatus.NOT_FOUND
"""An identity that was deleted in Kratos: no error."""


class _TracedRequest(RequestSpan):
    def __init__(self, span: Span) -> None:
        self._span = span
        self.headers = {"traceparent": to_traceparent(span.get_span_context())}

    def answered(self, status: int) -> None:
        self._span.set_attribute(names.HTTP_RESPONSE_STATUS_CODE, status)
        if status >= HTTPStatus.BAD_REQUEST and status != EXPECTED:
            _fail(self._span, str(status))


class AdapterSpans(Spans):
    """Makes the spans."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    @contextmanager
    def request(
        self, operation: str, method: str, base_url: str, path: str
    ) -> Iterator[RequestSpan]:
        server = urlsplit(base_url)
        attributes: dict[str, str | int] = {
            names.OPERATION: operation,
            names.HTTP_REQUEST_METHOD: method,
            names.URL_TEMPLATE: path,
            names.URL_FULL: base_url + path,
            names.SERVER_ADDRESS: server.hostname or "",
        }
        if server.port is not None:
            attributes[names.SERVER_PORT] = server.port
        span = self._tracer.start_span(
            f"{method} {path}", kind=SpanKind.CLIENT, attributes=attributes
        )
        with _ending(span):
            yield _TracedRequest(span)

    @contextmanager
    def commit(self, traceparents: Iterable[str | None]) -> Iterator[None]:
        """Only a commit of events that are sampled has a span."""
        events = list(traceparents)
        sampled = [each for each in events if is_sampled(each)]
        if not sampled:
            yield
            return
        is_single = len(events) == 1
        span = self._tracer.start_span(
            names.RECORD,
            parent_of(sampled[0]) if is_single else Context(),
            SpanKind.PRODUCER,
            {
                names.MESSAGING_SYSTEM: names.SCOPE,
                names.MESSAGING_OPERATION_NAME: "record",
                names.MESSAGING_OPERATION_TYPE: "send",
                names.MESSAGING_DESTINATION_NAME: names.EVENTS_TABLE,
            },
            [] if is_single else links_to(sampled),
        )
        if not is_single:
            span.set_attribute(names.MESSAGING_BATCH_MESSAGE_COUNT, len(events))
        with _ending(span):
            yield


@contextmanager
def _ending(span: Span) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        _fail(span, name_of(type(error.__cause__ or error)))
        raise
    finally:
        span.end()


def _fail(span: Span, error_type: str) -> None:
    span.set_attribute(names.ERROR_TYPE, error_type)
    span.set_status(StatusCode.ERROR)
