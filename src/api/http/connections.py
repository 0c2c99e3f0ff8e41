"""HTTP connections with limits on their number, on time, and on memory before a request is read.

uvicorn's options limit none of these for httptools, so this subclasses its protocol; the internals
that it uses are listed and checked in `tests/api/http/test_connections.py`. Requests that are no
HTTP are answered in Kratos' form too.
"""

import asyncio
from asyncio import Transport
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Final, TypeAlias, cast

import httptools
from uvicorn._types import HTTPScope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from kratos_sync.api.http.webhooks.rejections import status_response

MOST_UNREAD_BYTES: Final = 33_554_432


class ConnectionLimits:
    """The most connections at once, and the most bytes of requests that are not being read yet.

    Beyond either, the oldest connection without a running request is ended: first those that are
    only being drained after their last answer, then those that wait for a request.
    """

    def __init__(self, most: int, most_unread_bytes: int = MOST_UNREAD_BYTES) -> None:
        self.most = most
        self.refused = 0
        """How many were ended because there were more."""
        self._most_unread_bytes = most_unread_bytes
        self._draining: dict[Transport, None] = {}
        self._idle: dict[Transport, None] = {}
        self._unread: dict[Transport, int] = {}
        self._unread_bytes = 0

    def idle(self, connection: Transport) -> None:
        """Note that no request is running."""
        self._idle[connection] = None

    def busy(self, connection: Transport) -> None:
        """Note that a request is running."""
        self._idle.pop(connection, None)

    def draining(self, connection: Transport) -> None:
        """Note that the last answer was sent."""
        self.remove(connection)
        self._draining[connection] = None

    def remove(self, connection: Transport) -> None:
        """Note that the connection has ended."""
        self._draining.pop(connection, None)
        self._idle.pop(connection, None)
        self._unread_bytes -= self._unread.pop(connection, 0)

    def admit(self, number: int, newest: Transport) -> bool:
        """Whether the newest of that many may stay; another one may be ended for it."""
        if number <= self.most:
            return True
        self.refused += 1
        oldest = next(iter(self._draining), None) or next(iter(self._idle))
        if oldest is newest:
            return False
        self._end(oldest)
        return True

    def hold(self, connection: Transport, size: int) -> None:
        """Note the unread bytes of a connection; the first that had some is ended first."""
        before = self._unread.pop(connection, 0) if size == 0 else self._unread.get(connection, 0)
        self._unread_bytes += size - before
        if size:
            self._unread[connection] = size
        while self._unread_bytes > self._most_unread_bytes:
            self._end(next(iter(self._unread)))

    def _end(self, connection: Transport) -> None:
        self.remove(connection)
        connection.abort()


_Problem: TypeAlias = tuple[HTTPStatus, str]

HEAD_SECONDS: Final = 10.0
"""From connecting, or from the first byte of a later request, to the end of the headers."""
MOST_HEAD_BYTES: Final = 65_536
"""Also for what is between the parts of a body without belonging to it, such as trailers."""
MOST_HEADER_LINES: Final = 100
HEADER_LINE_BYTES: Final = 160
"""The memory that a line takes, however short it is."""
READ_BYTES: Final = 16_384
"""Input is checked after so many bytes: a head may exceed its limit by as much."""
MOST_REQUESTS_AHEAD: Final = 16
"""Requests that may be sent before the first of them is answered."""
LAST_REQUEST_SECONDS: Final = 0.5
"""How long a connection without a request is kept when the api stops: one may be on its way."""
DRAIN_SECONDS: Final = 2.0
"""How long further input is thrown away after an answer: else the caller might not receive it."""
NO_HEADERS: Final[Mapping[str, str]] = {}
RETRY_AFTER: Final = {"Retry-After": "20"}
TOO_LARGE: Final = (HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the headers are too large")
TOO_MANY_LINES: Final = (HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "there are too many headers")
TOO_SLOW: Final = (HTTPStatus.REQUEST_TIMEOUT, "the headers came too slowly")
NO_CAPACITY: Final = (HTTPStatus.SERVICE_UNAVAILABLE, "try again later")
NO_UPGRADE: Final = (HTTPStatus.BAD_REQUEST, "there is no protocol to upgrade to")
"""For a POST: the body that comes with it would not be read."""
NOT_HTTP: Final = (HTTPStatus.BAD_REQUEST, "the request is not HTTP")
UNKNOWN_CODING: Final = (HTTPStatus.NOT_IMPLEMENTED, "the transfer coding is not known")
_EXPECT: Final = b"expect"
_TRANSFER_ENCODING: Final = b"transfer-encoding"
_CHECKED: Final = frozenset([_EXPECT, _TRANSFER_ENCODING])


def coding_problem(transfer_encoding: Sequence[bytes], version: str) -> _Problem | None:
    """The answer to these lines of Transfer-Encoding by RFC 9112, 6.1; None if they are right.

    A problem ends the connection too: where the body ends is not known.
    """
    if version != "1.1":
        return NOT_HTTP
    codings = [coding.strip(b" \t").lower() for coding in b",".join(transfer_encoding).split(b",")]
    if codings == [b"chunked"]:
        return None
    return NOT_HTTP if all(coding in {b"", b"chunked"} for coding in codings) else UNKNOWN_CODING


def bounded_http(limits: ConnectionLimits) -> type[asyncio.Protocol]:
    """The protocol for uvicorn's configuration, whose connections share these limits."""
    return type("Connection", (BoundedConnection,), {"limits": limits})


class _Output:
    """The transport that an answer writes to: closing it waits for what is being received."""

    __slots__ = ("close", "is_closing", "write")

    def __init__(self, connection: "BoundedConnection") -> None:
        self.write = connection.transport.write
        self.is_closing = connection.transport.is_closing
        self.close = connection.close


class BoundedConnection(HttpToolsProtocol):
    """One connection."""

    limits: ConnectionLimits

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
        """Wait for a request."""
        super().connection_made(transport)
        self._in_head = False
        self._head_bytes = 0
        self._is_ending = False
        self._ignores_input = False
        self._is_stopping = False
        self._codings: list[bytes] = []
        self._problem: _Problem | None = None
        self._holds_unread = False
        self._timer: asyncio.TimerHandle | None = None
        self._output = _Output(self)
        self.limits.idle(self.transport)
        if not self.limits.admit(len(self.connections), self.transport):
            self._reject(*NO_CAPACITY, RETRY_AFTER)
            return
        self._start_timer(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Free what the connection held."""
        self.limits.remove(self.transport)
        self._stop_timer()
        self._output.close = self.transport.close  # or the two would keep each other
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse input; a head is limited in time and size."""
        for start in range(0, len(data), READ_BYTES):
            self._read(data[start : start + READ_BYTES])

    def _read(self, data: bytes) -> None:
        if self._is_ending or self._ignores_input:
            return
        super().data_received(data)
        if self._in_head or self._answered is None:
            self._head_bytes += len(data)
            if self._head_bytes > MOST_HEAD_BYTES:
                self._reject(*TOO_LARGE)
            elif self._in_head and len(self.headers) > MOST_HEADER_LINES:
                self._reject(*TOO_MANY_LINES)
            elif self._timer is None and not self._is_ending:
                self._start_timer(HEAD_SECONDS)
        elif self.cycle.more_body:
            self._head_bytes += len(data)
            if self._head_bytes > MOST_HEAD_BYTES + READ_BYTES:
                self._reject(*TOO_LARGE)
        if self._in_head or self.pipeline or self._holds_unread:
            self._report_unread()

    def eof_received(self) -> bool:  # type: ignore[override]  # uvicorn always closes
        """Answer a caller that sent a whole request and closed its side, and then end."""
        cycle = self._answered
        if self._is_ending or cycle is None or cycle.more_body:
            return False
        cycle.keep_alive = False
        return True

    def on_message_begin(self) -> None:
        """Expect headers."""
        self._in_head = True
        self._codings = []
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header; trailers are ignored."""
        if not self._in_head:
            return
        name = name.lower()
        if name in _CHECKED:
            if name == _TRANSFER_ENCODING:
                self._codings.append(value)
            elif value.lower() == b"100-continue":
                self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Start to answer, or end a connection whose request is wrong."""
        self._in_head = False
        self._head_bytes = 0
        self._stop_timer()
        if len(self.pipeline) >= MOST_REQUESTS_AHEAD:
            raise httptools.HttpParserError("too many requests at once")
        if len(self.headers) > MOST_HEADER_LINES:
            self._problem = TOO_MANY_LINES
        elif self._codings:
            self._problem = coding_problem(self._codings, self.parser.get_http_version())
        elif self.parser.should_upgrade() and self.parser.get_method() == b"POST":
            self._problem = NO_UPGRADE
        if self._problem is not None:
            raise httptools.HttpParserError(self._problem[1])
        super().on_headers_complete()
        if self._is_stopping:
            self.cycle.keep_alive = False
        self.cycle.transport = self._output  # type: ignore[assignment]  # all that it uses of it
        self.limits.busy(self.transport)

    def on_body(self, body: bytes) -> None:
        """Add a part of a POST's body; no other is read."""
        self._head_bytes = 0
        if self.scope["method"] == "POST":
            super().on_body(body)

    def on_response_complete(self) -> None:
        """Wait for the next request; a body that was not read ends the connection."""
        if not self.pipeline and self.cycle.more_body:
            self.close()
        if self._is_ending or self.transport.is_closing():
            return
        super().on_response_complete()
        if self._answered is None:
            self.limits.idle(self.transport)
        if self._holds_unread:
            self._report_unread()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  # in our form
        """Answer what is not HTTP, or the request before it, and read no more."""
        cycle = self._answered
        if cycle is None or cycle.more_body:
            self._reject(*(self._problem or NOT_HTTP))
            return
        cycle.keep_alive = False
        self._ignores_input = True

    def shutdown(self) -> None:
        """End the connection after the request that is answered now, or is on its way."""
        self._is_stopping = True
        if self._is_ending:
            return
        if (cycle := self._answered) is not None:
            cycle.keep_alive = False
        else:
            self._start_timer(LAST_REQUEST_SECONDS)

    def close(self) -> None:
        """End the connection after what was written; input is drained for it to be received."""
        if self._is_ending:
            return
        self._is_ending = True
        if not self._in_head and not self.cycle.more_body:
            self.transport.close()
        elif not self.transport.is_closing():
            self.flow.resume_reading()
            self.transport.write_eof()
            self.pipeline.clear()
            self.headers = []
            self.scope = self.parser = None  # type: ignore[assignment]  # as uvicorn, in the end
            self.limits.draining(self.transport)
            self._start_timer(DRAIN_SECONDS)

    @property
    def _answered(self) -> RequestResponseCycle | None:
        """The request that is being answered; of several the last."""
        cycle = cast("RequestResponseCycle | None", self.cycle)
        return None if cycle is None or cycle.response_complete else cycle

    def _report_unread(self) -> None:
        """Report the memory of requests that wait for their turn, and of an unfinished head."""
        size = 0
        for cycle, _ in self.pipeline:
            size += len(cycle.body) + _size_of(cycle.scope)
        if self._in_head and not self._is_ending:
            size += self._head_bytes + HEADER_LINE_BYTES * len(self.headers)
        self._holds_unread = size > 0
        if not self.transport.is_closing():
            self.limits.hold(self.transport, size)

    def _start_timer(self, seconds: float) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, self._time_out)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _time_out(self) -> None:
        self._timer = None
        if self._is_ending:
            self.transport.abort()
        elif self._answered is not None:
            self._start_timer(HEAD_SECONDS)  # the one before it is still being answered
        elif self._in_head:
            self._reject(*TOO_SLOW)
        else:
            self.transport.close()

    def _reject(
        self, status: HTTPStatus, text: str, headers: Mapping[str, str] = NO_HEADERS
    ) -> None:
        if self._is_ending or self.transport.is_closing():
            return
        answer = status_response(status, text, {"Connection": "close", **headers})
        lines = [f"HTTP/1.1 {status.value} {status.phrase}".encode("ascii")]
        lines += [name + b": " + value for name, value in answer.raw_headers]
        self.transport.write(b"\r\n".join([*lines, b"", bytes(answer.body)]))
        if (cycle := self._answered) is not None:
            cycle.disconnected = True
            cycle.message_event.set()
        self._in_head = True  # the caller may go on sending
        self.close()


def _size_of(scope: HTTPScope) -> int:
    lines = sum(len(name) + len(value) + HEADER_LINE_BYTES for name, value in scope["headers"])
    return len(scope["raw_path"]) + len(scope["query_string"]) + lines
