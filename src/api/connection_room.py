"""Room for connections: those that ask nothing give way to those that may."""

from asyncio import Transport


class ConnectionRoom:
    """At most so many connections at once, of which those without a request are known."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._resting: dict[Transport, None] = {}

    def rests(self, connection: Transport) -> None:
        """This one has no request under way; whoever rests longest gives way first."""
        self._resting[connection] = None

    def works(self, connection: Transport) -> None:
        """This one has a request under way, or is gone."""
        self._resting.pop(connection, None)

    def has_place_for(self, number: int, newest: Transport) -> bool:
        """Whether the newest, of that number in all, may stay; if need be another is ended."""
        if number <= self.most:
            return True
        oldest = next(iter(self._resting))
        if oldest is newest:
            return False
        del self._resting[oldest]
        oldest.abort()
        return True
