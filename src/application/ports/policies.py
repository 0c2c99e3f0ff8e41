"""What operators decide of a consumer at run time: a pause, a rate, a concurrency."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol

from kratos_sync.application.consumer import Consumer

PER_SECONDS: Final = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400}
_RATE: Final = re.compile(rf"([1-9]\d{{0,8}}) ?/ ?({'|'.join(PER_SECONDS)})")


class InvalidRate(ValueError):
    """A rate that is none, such as "fast"."""


def events_per_second(rate: str) -> float:
    """The rate of a text such as ``100/minute``. Raises InvalidRate."""
    if (found := _RATE.fullmatch(rate)) is None:
        raise InvalidRate(f"{rate!r} is no rate such as 5/second, 100/minute or 1000/hour")
    return int(found[1]) / PER_SECONDS[found[2]]


def is_rate(given: object) -> bool:
    """Whether it is a text, and a rate."""
    return isinstance(given, str) and _RATE.fullmatch(given) is not None


@dataclass(frozen=True, slots=True)
class ConsumerPolicy:
    """What was decided of a consumer; None where its class decides."""

    paused_at: datetime | None = None
    paused_by: str | None = None
    reason: str | None = None
    rate: str | None = None
    concurrency: int | None = None

    def of(self, consumer: type[Consumer[Any]]) -> "ConsumerPolicy":
        """The policy that applies: this one, and for the rest that of the class."""
        return ConsumerPolicy(
            self.paused_at,
            self.paused_by,
            self.reason,
            self.rate or consumer.rate,
            self.concurrency or consumer.concurrency,
        )


class ConsumerPolicies(Protocol):
    """Every method raises LedgerUnavailable."""

    def all(self) -> Mapping[str, ConsumerPolicy]:
        """The policies that were decided on, by the consumers' names."""

    def pause(self, consumer: str, *, by: str, reason: str) -> None:
        """Deliver nothing to the consumer until it is resumed; what is in flight is finished."""

    def resume(self, consumer: str) -> bool:
        """Deliver to it again; False if it was not paused."""

    def limit(self, consumer: str, rate: str | None, concurrency: int | None) -> None:
        """Set both; None for what the consumer's class says."""

    def take(self, consumer: str, rate: float, most: int) -> int:
        """Take up to so many of the events that the rate allows now, over all relays."""

    def return_tokens(self, consumer: str, events: int) -> None:
        """Return what was taken and not used."""
