"""Watching that no consumer takes longer for an event than it may."""

from collections.abc import Sequence
from typing import Final, Protocol

from application.ports.unit_of_work import Owed


class TimeLimitExceeded(BaseException):
    """A consumer took longer for an event than its time limit.

    Raised in the middle of whatever it was doing; it is no Exception, so that few swallow it.
    """


class Watch(Protocol):
    """Eyes on the thread that consumes a batch."""

    def opened(self, owed: Sequence[Owed]) -> None:
        """A transaction has loaded these deliveries: one alone is answerable for what it takes."""

    def begin(self, delivery: Owed) -> None:
        """The consumer gets this delivery now; from here on TimeLimitExceeded may be raised."""

    def end(self) -> None:
        """It is done with it, or has failed. Raises TimeLimitExceeded if it took too long."""


class Unwatched:
    """Nobody looks."""

    def opened(self, owed: Sequence[Owed]) -> None:
        """Look away."""

    def begin(self, delivery: Owed) -> None:
        """Look away."""

    def end(self) -> None:
        """Look away."""


UNWATCHED: Final[Watch] = Unwatched()
