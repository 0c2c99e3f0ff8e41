"""A small HTTP server in threads of its own, for metrics and health.

It answers GET on a few fixed paths and nothing else. Threads, time and memory are bounded, and each
connection serves one request.
"""

import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Final, NamedTuple

import structlog

from kratos_sync.application.errors import summary

THREADS: Final = 4
"""How many requests are answered at once; others wait for one of them to end."""
REQUEST_SECONDS: Final = 5.0
"""The most from a connection's begin to the end of its answer, whatever the route takes."""
MOST_HEAD_BYTES: Final = 8_192
BACKLOG: Final = 32
RETRY_SECONDS: Final = 1.0
PLAIN_TEXT: Final = "text/plain; charset=utf-8"
_PARTS_OF_REQUEST_LINE: Final = 3

log = structlog.get_logger()


class CannotListen(Exception):
    """Cannot listen on this host and port."""


class Response(NamedTuple):
    """The answer of a route."""

    body: bytes
    content_type: str = PLAIN_TEXT
    status: HTTPStatus = HTTPStatus.OK


Route = Callable[[], Response]
"""Answers a request; called from several threads, and should return within a second."""


class ObservabilityServer:
    """Serves each path of ``routes`` on one port until it is stopped."""

    def __init__(self, host: str, port: int, routes: Mapping[str, Route]) -> None:
        """With port 0 the operating system chooses one."""
        self._host, self._port = host, port
        self._routes = dict(routes)
        self._listener: socket.socket | None = None
        self._stopped = threading.Event()

    @property
    def port(self) -> int:
        """The port that is listened on."""
        if self._listener is None:
            return self._port
        port: int = self._listener.getsockname()[1]
        return port

    def start(self) -> None:
        """Listen, and answer requests in daemon threads. Raises CannotListen."""
        listener = self._listener = self._listen()
        self._serve(listener)

    def start_when_free(self) -> None:
        """Start as soon as the port is free: the process that this one replaces may hold it."""
        try:
            self.start()
        except CannotListen as error:
            log.warning("observability_port_taken", reason=str(error))
            threading.Thread(target=self._wait_until_free, name="observe", daemon=True).start()

    def stop(self) -> None:
        """Free the port, without waiting for answers that are being sent."""
        self._stopped.set()
        if self._listener is not None:
            with suppress(OSError):  # wakes the threads that accept; not needed everywhere
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()

    def _listen(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        try:
            return socket.create_server((self._host, self._port), family=family, backlog=BACKLOG)
        except OSError as error:
            reason = (error.strerror or "no such address").partition(" (while")[0]
            raise CannotListen(
                f"Cannot listen on {self._host}, port {self._port} ({reason}):"
                " choose another METRICS_PORT or METRICS_HOST."
            ) from error

    def _wait_until_free(self) -> None:
        while not self._stopped.wait(RETRY_SECONDS):
            with suppress(CannotListen):
                self.start()
                break
        if self._stopped.is_set():
            self.stop()

    def _serve(self, listener: socket.socket) -> None:
        for number in range(THREADS):
            thread = threading.Thread(
                target=self._accept, args=(listener,), name=f"observe-{number}", daemon=True
            )
            thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while not self._stopped.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                # Also when no file is free: that passes.
                self._stopped.wait(RETRY_SECONDS)
                continue
            with connection, suppress(OSError):
                self._answer(_Connection(connection))

    def _answer(self, connection: "_Connection") -> None:
        head = connection.read_head()
        if head is None:
            return
        status_line = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        response = self._response(status_line)
        head_lines = [
            f"HTTP/1.1 {response.status.value} {response.status.phrase}",
            f"Content-Type: {response.content_type}",
            f"Content-Length: {len(response.body)}",
            "Cache-Control: no-store",
            "Connection: close",
        ]
        if response.status == HTTPStatus.METHOD_NOT_ALLOWED:
            head_lines.append("Allow: GET")
        connection.send("\r\n".join([*head_lines, "", ""]).encode("latin-1") + response.body)

    def _response(self, request_line: list[str]) -> Response:
        if len(request_line) != _PARTS_OF_REQUEST_LINE or request_line[2][:7] != "HTTP/1.":
            return _status(HTTPStatus.BAD_REQUEST)
        method, target, _ = request_line
        route = self._routes.get(target.partition("?")[0])
        if route is None:
            return _status(HTTPStatus.NOT_FOUND)
        if method != "GET":
            return _status(HTTPStatus.METHOD_NOT_ALLOWED)
        try:
            return route()
        except Exception as error:  # noqa: BLE001  # its text may have personal data
            log.error("observability_route_failed", **summary(error))  # noqa: TRY400  # likewise
            return _status(HTTPStatus.INTERNAL_SERVER_ERROR)


class _Connection:
    """A connection whose every operation ends by the deadline."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._deadline = time.monotonic() + REQUEST_SECONDS

    def read_head(self) -> bytes | None:
        """Read to the end of the head; None where there is none, or it is too large."""
        head = bytearray()
        while b"\r\n\r\n" not in head:
            if len(head) > MOST_HEAD_BYTES or not (data := self._receive()):
                return None
            head += data
        return bytes(head)

    def send(self, answer: bytes) -> None:
        """Send the answer, and wait for the caller to close: else it might not receive it all."""
        self._set_timeout()
        self._socket.sendall(answer)
        self._socket.shutdown(socket.SHUT_WR)
        while self._receive():
            pass

    def _receive(self) -> bytes:
        self._set_timeout()
        return self._socket.recv(MOST_HEAD_BYTES)

    def _set_timeout(self) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)


def _status(status: HTTPStatus) -> Response:
    return Response(f"{status.phrase}\n".encode(), status=status)
