"""One HTTP server, and calls to it that are bounded in time, size and number.

httpcore, and not httpx above it: it reads no environment, follows nothing, keeps no cookies, and
lets a whole call have a deadline.
"""

import ssl
import time
import weakref
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from ssl import SSLContext
from threading import BoundedSemaphore
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, urlsplit

import httpcore
from httpcore import SOCKET_OPTION, NetworkBackend, NetworkStream, ReadTimeout
from httpcore import SyncBackend as Sockets
from pydantic import SecretStr

from kratos_sync.application.ports.kratos import KratosRefused, KratosUnavailable

_ends_at: Final[ContextVar[float | None]] = ContextVar("ends_at", default=None)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Bound everything that this thread does on a `PunctualBackend` in here.

    What is not done by then raises a timeout of httpcore.
    """
    token = _ends_at.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _ends_at.reset(token)


class PunctualBackend(NetworkBackend):
    """Ordinary sockets, on which no wait outlasts the call that it is part of."""

    def __init__(self) -> None:
        self._sockets = Sockets()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> NetworkStream:
        """Connect, in the time that is left."""
        return _PunctualStream(
            self._sockets.connect_tcp(host, port, _left(timeout), local_address, socket_options)
        )


class _PunctualStream(NetworkStream):
    def __init__(self, stream: NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> NetworkStream:
        return _PunctualStream(self._stream.start_tls(ssl_context, server_hostname, _left(timeout)))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _left(timeout: float | None) -> float | None:
    ends_at = _ends_at.get()
    if ends_at is None:
        return timeout
    left = ends_at - time.monotonic()
    if left <= 0:
        raise ReadTimeout
    return left if timeout is None else min(timeout, left)


CONNECTIONS: Final = 16
KEPT_OPEN_SECONDS: Final = 20
CONNECT_SECONDS: Final = 5
IDLE_SECONDS: Final = 30
LARGEST_ERROR: Final = 65_536
OK: Final = 200


class Answer(NamedTuple):
    """What came back; names of headers are lower case, repeated ones are joined by commas.

    The body of what is no 200 is empty if it is longer than an error need be.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


class Endpoint:
    """A server at an `http` or `https` URL, which may have a path, and a user and password.

    ``token`` is sent as a bearer token, in place of those. Safe to use from many threads.
    """

    def __init__(self, url: SecretStr, token: SecretStr | None = None) -> None:
        parts = urlsplit(url.get_secret_value())
        self._scheme = parts.scheme
        self._host = parts.hostname or ""
        self._port = parts.port
        self._path = parts.path.rstrip("/")
        self._headers: dict[bytes | str, bytes | str] = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "kratos-sync",
        }
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token.get_secret_value()}"
        elif parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._headers["Authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
        self._free = BoundedSemaphore(CONNECTIONS)
        self._pool = httpcore.ConnectionPool(
            ssl_context=httpcore.default_ssl_context() if parts.scheme == "https" else None,
            max_connections=CONNECTIONS,
            keepalive_expiry=KEPT_OPEN_SECONDS,
            network_backend=PunctualBackend(),
        )
        weakref.finalize(self, self._pool.close)

    def url_of(self, target: str) -> str:
        """Give the whole URL of a path and query, without the password."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        port = "" if self._port is None else f":{self._port}"
        return f"{self._scheme}://{host}{port}{self._path}{target}"

    def call(self, method: str, target: str, largest: int, seconds: float) -> Answer:
        """Send a request without a body, and give the answer, within so many seconds.

        ``largest`` bounds a 200's body, in bytes. Raises KratosUnavailable if there is no answer
        or not all of it, KratosRefused for one that is larger and for a certificate that is wrong.
        """
        connect, idle = min(CONNECT_SECONDS, seconds), min(IDLE_SECONDS, seconds)
        timeouts = {"connect": connect, "pool": connect, "read": idle, "write": idle}
        try:
            with (
                within(seconds),
                self._place(connect),
                self._pool.stream(
                    method,
                    self.url_of(target),
                    headers=self._headers,
                    extensions={"timeout": timeouts},
                ) as response,
            ):
                return _read(response, largest)
        except httpcore.PoolTimeout as error:
            raise KratosUnavailable("no connection was free") from error
        except httpcore.TimeoutException as error:
            raise KratosUnavailable("timed out") from error
        except httpcore.ConnectError as error:
            if isinstance(next(iter(error.args), None), ssl.SSLCertVerificationError):
                raise KratosRefused("its certificate is not to be trusted") from error
            raise KratosUnavailable("no connection") from error
        except httpcore.NetworkError as error:
            raise KratosUnavailable("the connection broke off") from error
        except httpcore.ProtocolError as error:
            raise KratosUnavailable("the answer broke off, or is not HTTP") from error

    @contextmanager
    def _place(self, seconds: float) -> Iterator[None]:
        # The pool loses a connection for good when somebody who waits in it for one gives up just
        # as it comes: whoever waits, waits here.
        if not self._free.acquire(timeout=seconds):
            raise httpcore.PoolTimeout
        try:
            yield
        finally:
            self._free.release()

    def close(self) -> None:
        """Close every connection; it happens by itself when nobody holds this any more."""
        self._pool.close()


def _read(response: httpcore.Response, largest: int) -> Answer:
    headers: dict[str, str] = {}
    for raw_name, raw_value in response.headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    most = largest if response.status == OK else LARGEST_ERROR
    body = bytearray()
    for chunk in response.iter_stream():
        body += chunk
        if len(body) > most:
            if response.status == OK:
                raise KratosRefused(f"its answer is larger than {largest} bytes", OK)
            return Answer(response.status, headers, b"")
    return Answer(response.status, headers, bytes(body))
