"""How recent a part of a row is, and which of two equally recent words about it stands."""

from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple, Self
from uuid import UUID

from domain.addresses import united
from domain.doubles import rounded
from domain.identity import Part
from domain.json_values import Json, canonical, same
from domain.times import from_rfc3339, to_rfc3339

OLDEST: Final = datetime.min.replace(tzinfo=UTC)
SKEW: Final = timedelta(minutes=1)
"""Kratos' clock may be so far ahead of ours; a time beyond that is not believed."""


def credible(updated_at: datetime | None, known_at: datetime) -> datetime | None:
    """`updated_at`, or when we came to know of it if that is long before: then a clock is wrong.

    So a time in the future outranks nothing that comes later.
    """
    if updated_at is None or updated_at - known_at <= SKEW:
        return updated_at
    return known_at


class Recency(NamedTuple):
    """When Kratos last changed what a snapshot says, and whether the Admin API said it.

    They are ordered: the later one stands, and of two as late the exact one.
    """

    time: datetime
    exact: bool

    @classmethod
    def of(cls, updated_at: datetime | None, *, exact: bool) -> Self:
        """The recency of a snapshot; one that has no `updated_at` is older than any other."""
        return cls(updated_at or OLDEST, exact)

    def to_json(self) -> Json:
        """The recency as a pair: RFC 3339 time, or null for the oldest, and exact or not."""
        return [None if self.time == OLDEST else to_rfc3339(self.time), self.exact]

    @classmethod
    def from_json(cls, pair: Json) -> Self | None:
        """The recency of a pair; null, for a part that nobody ever told, is None."""
        match pair:
            case [str() as text, bool() as exact]:
                return cls.of(from_rfc3339(text), exact=exact)
            case [None, bool() as exact]:
                return cls(OLDEST, exact)
        return None


def agreed(held: Part, said: Part, *, exact: bool) -> Part:
    """Which of two equally recent values stands, whichever came first.

    Of addresses each stands that either has, at its greatest `order`; of other values the one with
    the larger canonical JSON, and any before null. Values that are not `exact` are compared as the
    doubles that they are.
    """
    if same(held, said):
        return held
    if isinstance(held, tuple) and isinstance(said, tuple):
        return united((*held, *said))
    return said if _weight(said, exact=exact) > _weight(held, exact=exact) else held


def _weight(value: Part, *, exact: bool) -> tuple[bool, str]:
    if isinstance(value, datetime):
        return True, value.isoformat()
    if isinstance(value, UUID | tuple):
        return True, str(value)
    return value is not None, canonical(value if exact else rounded(value))
