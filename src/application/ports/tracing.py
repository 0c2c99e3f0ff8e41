"""What a trace sees of a batch."""

from collections.abc import Sequence
from typing import Final, Protocol

from kratos_sync.application.ports.unit_of_work import PendingDelivery


class BatchTrace(Protocol):
    """The trace of one batch."""

    def opened(self, deliveries: Sequence[PendingDelivery]) -> None:
        """A transaction has loaded these deliveries, and the consumer gets them next."""

    def context_after(self, traceparent: str | None) -> str | None:
        """The trace context of what was raised because of an event with this trace context."""


class Untraced:
    """Nothing is traced: what an event causes carries its trace context on."""

    def opened(self, deliveries: Sequence[PendingDelivery]) -> None: ...

    def context_after(self, traceparent: str | None) -> str | None:
        return traceparent


UNTRACED: Final[BatchTrace] = Untraced()
