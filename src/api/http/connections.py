"""HTTP connections, bounded in number, in time and in what they may cost before a request is read.

uvicorn bounds none of these: a caller without a key could hold a connection for ever, or send
headers without an end. What is wrong below HTTP is answered in Kratos' form too.
"""

import asyncio
from asyncio import Transport
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Final, cast

import httptools
from uvicorn._types import HTTPScope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from kratos_sync.api.http.webhooks.rejections import status_response

MOST_UNREAD_BYTES: Final = 33_554_432


class ConnectionRoom:
    """At most so many connections at once, and so many bytes of requests that nobody reads yet."""

    def __init__(self, most: int, most_unread_bytes: int = MOST_UNREAD_BYTES) -> None:
        self.most = most
        self._most_unread_bytes = most_unread_bytes
        self._lingering: dict[Transport, None] = {}
        self._resting: dict[Transport, None] = {}
        self._unread: dict[Transport, int] = {}
        self._unread_bytes = 0

    def rests(self, connection: Transport) -> None:
        """This one has no request under way; whoever rests longest gives way first."""
        self._resting[connection] = None

    def works(self, connection: Transport) -> None:
        """This one has a request under way."""
        self._resting.pop(connection, None)

    def lingers(self, connection: Transport) -> None:
        """This one had its last answer: before any other it gives way."""
        self.forget(connection)
        self._lingering[connection] = None

    def forget(self, connection: Transport) -> None:
        """This one is gone."""
        self._lingering.pop(connection, None)
        self._resting.pop(connection, None)
        self._unread_bytes -= self._unread.pop(connection, 0)

    def has_place_for(self, number: int, newest: Transport) -> bool:
        """Whether the newest, of that number in all, may stay; if need be another is ended."""
        if number <= self.most:
            return True
        first = next(iter(self._lingering), None) or next(iter(self._resting))
        if first is newest:
            return False
        self._end(first)
        return True

    def holds(self, connection: Transport, size: int) -> None:
        """This one holds so many bytes that nobody reads yet; who began first gives way."""
        before = self._unread.pop(connection, 0) if size == 0 else self._unread.get(connection, 0)
        self._unread_bytes += size - before
        if size:
            self._unread[connection] = size
        while self._unread_bytes > self._most_unread_bytes:
            self._end(next(iter(self._unread)))

    def _end(self, connection: Transport) -> None:
        self.forget(connection)
        connection.abort()


KNOWN: Final = [b"chunked"]
FAULTY: Final = (HTTPStatus.BAD_REQUEST, "the request is not HTTP")
UNKNOWN: Final = (HTTPStatus.NOT_IMPLEMENTED, "the transfer coding is not known")


def refusal(transfer_encoding: Sequence[bytes], version: str) -> tuple[HTTPStatus, str] | None:
    """What to answer to these lines of Transfer-Encoding by RFC 9112, 6.1; None if all is well.

    Where one ends the connection too: nobody knows where the body would end.
    """
    if version != "1.1":
        return FAULTY
    codings = [coding.strip(b" \t").lower() for coding in b",".join(transfer_encoding).split(b",")]
    if codings == KNOWN:
        return None
    return FAULTY if all(coding in {b"", *KNOWN} for coding in codings) else UNKNOWN


HEAD_SECONDS: Final = 10.0
"""From connecting, or from the first byte of a later request, to the end of the headers."""
MOST_HEAD_BYTES: Final = 65_536
"""Also of what comes between the parts of a body, such as trailers, that is none of it."""
MOST_HEADER_LINES: Final = 100
HEADER_LINE_BYTES: Final = 160
"""What a line takes in memory, however short it is."""
READ_BYTES: Final = 16_384
"""What has come is looked at after so many bytes: a head may be that much larger at most."""
MOST_REQUESTS_AHEAD: Final = 16
"""Requests that may be sent before the first of them is answered."""
LINGER_SECONDS: Final = 2.0
"""So long is thrown away what a caller goes on sending: else it could miss the answer."""
NO_HEADERS: Final[Mapping[str, str]] = {}
TOO_LARGE: Final = (HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the headers are too large")
TOO_MANY_LINES: Final = (HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "there are too many headers")
NO_UPGRADE: Final = (HTTPStatus.BAD_REQUEST, "there is no protocol to upgrade to")
"""Of a POST: the body that comes with it would not be read."""
NOT_HTTP: Final = (HTTPStatus.BAD_REQUEST, "the request is not HTTP")
_EXPECT: Final = b"expect"
_TRANSFER_ENCODING: Final = b"transfer-encoding"
_LOOKED_AT: Final = frozenset([_EXPECT, _TRANSFER_ENCODING])
RETRY_AFTER: Final = {"Retry-After": "20"}


def bounded_http(room: ConnectionRoom) -> type[asyncio.Protocol]:
    """The protocol for uvicorn's configuration, of connections that share this room."""
    return type("Connection", (BoundedConnection,), {"room": room})


class _Output:
    """A transport as the answer to one request sees it: closing it waits for what is being sent."""

    __slots__ = ("close", "is_closing", "write")

    def __init__(self, connection: "BoundedConnection") -> None:
        self.write = connection.transport.write
        self.is_closing = connection.transport.is_closing
        self.close = connection.close


class BoundedConnection(HttpToolsProtocol):
    """One connection."""

    room: ConnectionRoom

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
        """Wait for a request."""
        super().connection_made(transport)
        self._in_head = False
        self._head_bytes = 0
        self._ends = False
        self._is_deaf = False
        self._codings: list[bytes] = []
        self._wrong: tuple[HTTPStatus, str] | None = None
        self._holds = False
        self._timer: asyncio.TimerHandle | None = None
        self._output = _Output(self)
        self.room.rests(self.transport)
        if not self.room.has_place_for(len(self.connections), self.transport):
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "try again later", RETRY_AFTER)
            return
        self._arm(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self.room.forget(self.transport)
        self._disarm()
        self._output.close = self.transport.close  # or the two would keep each other
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on; a head that is begun has its time, and its size."""
        if len(data) <= READ_BYTES:
            self._read(data)
            return
        for start in range(0, len(data), READ_BYTES):
            self._read(data[start : start + READ_BYTES])

    def _read(self, data: bytes) -> None:
        if self._ends or self._is_deaf:
            return
        super().data_received(data)
        if self._in_head or self._answered is None:
            self._head_bytes += len(data)
            if self._head_bytes > MOST_HEAD_BYTES:
                self._refuse(*TOO_LARGE)
            elif self._in_head and len(self.headers) > MOST_HEADER_LINES:
                self._refuse(*TOO_MANY_LINES)
            elif self._timer is None and not self._ends:
                self._arm(HEAD_SECONDS)
        elif self.cycle.more_body:
            self._head_bytes += len(data)
            if self._head_bytes > MOST_HEAD_BYTES + READ_BYTES:
                self._refuse(*TOO_LARGE)
        if self._in_head or self.pipeline or self._holds:
            self._tell_what_is_held()

    def eof_received(self) -> bool:  # type: ignore[override]  # uvicorn always closes
        """A caller that has asked may stop sending: it is answered, and that was the last."""
        cycle = self._answered
        if self._ends or cycle is None or cycle.more_body:
            return False
        cycle.keep_alive = False
        return True

    def on_message_begin(self) -> None:
        """Expect headers."""
        self._in_head = True
        self._codings = []
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; what comes after the body is none of ours."""
        if not self._in_head:
            return
        name = name.lower()
        if name in _LOOKED_AT:
            if name == _TRANSFER_ENCODING:
                self._codings.append(value)
            elif value.lower() == b"100-continue":
                self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Begin to answer."""
        self._in_head = False
        self._head_bytes = 0
        self._disarm()
        if len(self.pipeline) >= MOST_REQUESTS_AHEAD:
            raise httptools.HttpParserError("too many requests at once")
        if len(self.headers) > MOST_HEADER_LINES:
            self._wrong = TOO_MANY_LINES
        elif self._codings:
            self._wrong = refusal(self._codings, self.parser.get_http_version())
        elif self.parser.should_upgrade() and self.parser.get_method() == b"POST":
            self._wrong = NO_UPGRADE
        if self._wrong is not None:
            raise httptools.HttpParserError(self._wrong[1])
        super().on_headers_complete()
        self.cycle.transport = self._output  # type: ignore[assignment]  # all that it uses of it
        self.room.works(self.transport)

    def on_body(self, body: bytes) -> None:
        """Take a part of a body; nobody reads that of a GET."""
        self._head_bytes = 0
        if self.scope["method"] == "POST":
            super().on_body(body)

    def on_response_complete(self) -> None:
        """Wait for the next request; a body that nobody read ends the connection."""
        if not self.pipeline and self.cycle.more_body:
            self.close()
        if self._ends or self.transport.is_closing():
            return
        super().on_response_complete()
        if self._answered is None:
            self.room.rests(self.transport)
        if self._holds:
            self._tell_what_is_held()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  # in our form
        """Answer what is not HTTP, or what came before it, and read no more."""
        cycle = self._answered
        if cycle is None or cycle.more_body:
            self._refuse(*(self._wrong or NOT_HTTP))
            return
        cycle.keep_alive = False
        self._is_deaf = True

    def close(self) -> None:
        """End the connection after what was written, and let a caller who still sends read that."""
        if self._ends:
            return
        self._ends = True
        if not self._in_head and not self.cycle.more_body:
            self.transport.close()
        elif not self.transport.is_closing():
            self.flow.resume_reading()
            self.transport.write_eof()
            self.pipeline.clear()
            self.headers = []
            self.scope = self.parser = None  # type: ignore[assignment]  # as uvicorn, in the end
            self.room.lingers(self.transport)
            self._arm(LINGER_SECONDS)

    @property
    def _answered(self) -> RequestResponseCycle | None:
        """The request that is being answered, the last of them if there are several."""
        cycle = cast("RequestResponseCycle | None", self.cycle)
        return None if cycle is None or cycle.response_complete else cycle

    def _tell_what_is_held(self) -> None:
        """What is held of requests whose turn has not come, and of a head without an end."""
        size = 0
        for cycle, _ in self.pipeline:
            size += len(cycle.body) + _size_of(cycle.scope)
        if self._in_head and not self._ends:
            size += self._head_bytes + HEADER_LINE_BYTES * len(self.headers)
        self._holds = size > 0
        if not self.transport.is_closing():
            self.room.holds(self.transport, size)

    def _arm(self, seconds: float) -> None:
        self._disarm()
        self._timer = self.loop.call_later(seconds, self._late)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        if self._ends:
            self.transport.abort()
        elif self._answered is not None:
            self._arm(HEAD_SECONDS)  # the one before it is being answered still
        elif self._in_head:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "the headers came too slowly")
        else:
            self.transport.close()

    def _refuse(
        self, status: HTTPStatus, text: str, headers: Mapping[str, str] = NO_HEADERS
    ) -> None:
        if self._ends or self.transport.is_closing():
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
