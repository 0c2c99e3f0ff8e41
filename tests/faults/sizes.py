"""How much of it: all, or the two minutes that CI has."""

from collections.abc import Mapping
from typing import Final, NamedTuple


class Size(NamedTuple):
    """How often each kind is done, but for those that take longer to recover than there is time.

    Webhooks a second, and the size of the database's disk.
    """

    times: int
    longest_recovery: float
    webhooks_per_second: float
    disk_megabytes: int
    seconds: tuple[float, float] | None = None
    """How long what does not end at once lasts, if not as long as its kind says."""
    watches_alerts: bool = True
    """Whether a Prometheus runs beside it, where it is installed."""
    alone: bool = False
    """Whether faults are done one after another, each when the alerts of the last have ended."""


SIZES: Final[Mapping[str, Size]] = {
    "full": Size(times=7, longest_recovery=60, webhooks_per_second=30, disk_megabytes=768),
    "small": Size(1, 30, 30, 384, watches_alerts=False),
    "alerts": Size(1, 60, 30, 768, seconds=(30.0, 35.0), alone=True),
}
