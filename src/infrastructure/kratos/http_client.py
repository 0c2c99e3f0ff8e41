"""Calls to one HTTP server, bounded in time, size and number.

On httpcore, not httpx: no timeout of httpx bounds a whole call (decision 0032).
"""

import ssl
import time
import weakref
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from threading import BoundedSemaphore
from types import MappingProxyType
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, urlsplit

import httpcore
from httpcore import NetworkStream
from pydantic import SecretStr

from kratos_sync.application.ports.kratos import KratosRefused, KratosUnavailable

CONNECTIONS: Final = 16
KEEP_ALIVE_SECONDS: Final = 20
CONNECT_SECONDS: Final = 5
IDLE_SECONDS: Final = 30
LARGEST_ERROR: Final = 65_536
OK: Final = 200
NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})

_deadline: Final[ContextVar[float | None]] = ContextVar("deadline", default=None)


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Bound everything that this thread does on a `DeadlineBackend` in this context.

    What is not done by then raises a timeout of httpcore.
    """
    token = _deadline.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _deadline.reset(token)


def _remaining(timeout: float | None) -> float | None:
    ends_at = _deadline.get()
    if ends_at is None:
        return timeout
    left = ends_at - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout
    return left if timeout is None else min(timeout, left)


class DeadlineBackend(httpcore.SyncBackend):
    """Sockets whose every operation ends by the deadline: a server that drips is cut off."""

    def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, *args: Any, **kwargs: Any
    ) -> NetworkStream:
        return _Stream(super().connect_tcp(host, port, _remaining(timeout), *args, **kwargs))


class _Stream(NetworkStream):
    def __init__(self, stream: NetworkStream) -> None:
        self._stream = stream
        self.close = stream.close  # type: ignore[method-assign]
        self.get_extra_info = stream.get_extra_info  # type: ignore[method-assign]

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _remaining(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _remaining(timeout))

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> NetworkStream:
        left = _remaining(timeout)
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, left))


class Response(NamedTuple):
    """A response; header names are lower case, repeated headers are joined by commas.

    The body is empty where the status is not 200 and it is longer than an error need be.
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
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
        port = "" if parts.port is None else f":{parts.port}"
        self._url = f"{parts.scheme}://{host}{port}{parts.path.rstrip('/')}"
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
            keepalive_expiry=KEEP_ALIVE_SECONDS,
            network_backend=DeadlineBackend(),
        )
        weakref.finalize(self, self._pool.close)

    def url_of(self, target: str) -> str:
        """Give the whole URL of a path and query, without the password."""
        return self._url + target

    def call(
        self,
        method: str,
        target: str,
        largest: int,
        seconds: float,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> Response:
        """Send a request without a body, and give the response, within so many seconds.

        ``largest`` bounds a 200's body, in bytes; ``headers`` are sent too. Raises
        KratosUnavailable if there is no complete response, KratosRefused for one that is larger and
        for a certificate that is wrong.
        """
        connect, idle = min(CONNECT_SECONDS, seconds), min(IDLE_SECONDS, seconds)
        timeouts = {"connect": connect, "pool": connect, "read": idle, "write": idle}
        request: dict[str, Any] = {
            "headers": {**self._headers, **headers},
            "extensions": {"timeout": timeouts},
        }
        try:
            with (
                deadline(seconds),
                self._connection_slot(connect),
                self._pool.stream(method, self.url_of(target), **request) as response,
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
    def _connection_slot(self, seconds: float) -> Iterator[None]:
        # httpcore's pool loses a connection for good when a waiter times out just as it is given
        # one: so no thread waits inside the pool.
        if not self._free.acquire(timeout=seconds):
            raise httpcore.PoolTimeout
        try:
            yield
        finally:
            self._free.release()

    def close(self) -> None:
        """Close every connection; garbage collection does it too."""
        self._pool.close()


def _read(response: httpcore.Response, largest: int) -> Response:
    headers: dict[str, str] = {}
    for raw_name, raw_value in response.headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    is_ok = response.status == OK
    most = largest if is_ok else LARGEST_ERROR
    body = bytearray()
    for chunk in response.iter_stream():
        body += chunk
        if len(body) > most:
            if is_ok:
                raise KratosRefused(f"its answer is larger than {largest} bytes", OK)
            body.clear()
            break
    return Response(response.status, headers, bytes(body))
