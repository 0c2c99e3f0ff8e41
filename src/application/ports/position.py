"""Places in lists that are ordered by time, where a page or a step goes on."""

from datetime import UTC, datetime
from typing import Final, NamedTuple
from uuid import UUID


class Position(NamedTuple):
    """The place of an event in the log, which is ordered by it."""

    recorded_at: datetime
    event_id: UUID


BEGIN: Final = Position(datetime.min.replace(tzinfo=UTC), UUID(int=0))
END: Final = Position(datetime.max.replace(tzinfo=UTC), UUID(int=2**128 - 1))
"""Before and after every event."""
