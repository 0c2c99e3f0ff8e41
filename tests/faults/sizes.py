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


SIZES: Final[Mapping[str, Size]] = {
    "full": Size(times=7, longest_recovery=60, webhooks_per_second=30, disk_megabytes=768),
    "small": Size(times=1, longest_recovery=30, webhooks_per_second=30, disk_megabytes=384),
}
