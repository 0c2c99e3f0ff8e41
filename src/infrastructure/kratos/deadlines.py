"""Deadlines for a whole call: httpcore bounds each read by itself, and there may be many.

A server that sends a byte every few seconds would otherwise be listened to for ever.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from ssl import SSLContext
from typing import Any, Final

from httpcore import SOCKET_OPTION, NetworkBackend, NetworkStream, ReadTimeout
from httpcore import SyncBackend as Sockets

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
