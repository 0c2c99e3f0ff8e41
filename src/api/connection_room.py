"""Room for connections and unread requests: those that ask nothing give way to those that may."""

from asyncio import Transport
from typing import Final

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
