"""How much is measured: everything properly, or everything briefly."""

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.seeding import Seed


@dataclass(frozen=True)
class Size:
    """Numbers of a run; what is measured, and the rows of the table, are always the same."""

    name: str
    minutes: int
    """What the run stays below, here on two cores."""
    events: int
    """Delivered in each of the first rows."""
    batches: Mapping[int, int]
    """Batch sizes that are tried, and with how many events."""
    workers: tuple[int, ...]
    events_of_workers: int
    stored: tuple[Seed, ...]
    """The last is the row of the table; its waves are more than are measured."""
    windows: int
    """How many waves of the last are measured."""
    taking_in_seconds: int
    people_first_seen: int
    idle_seconds: int
    events_of_rivals: int
    events_to_try: int
    """To find a rival's best setting with; none are tried where it is 0."""
    events_of_limit: int
    events_of_profile: int
    profile_seconds: int


FULL = Size(
    name="full",
    minutes=15,
    events=100_000,
    batches={1: 2_000, 10: 10_000, 50: 20_000, 100: 20_000, 200: 20_000, 500: 20_000},
    workers=(1, 2),
    events_of_workers=40_000,
    stored=(
        Seed(stored=0, waves=1, wave_events=50_000),
        Seed(stored=100_000, waves=2, wave_events=50_000),
        Seed(stored=1_000_000, waves=10, wave_events=100_000),
    ),
    windows=3,
    taking_in_seconds=10,
    people_first_seen=300,
    idle_seconds=20,
    events_of_rivals=10_000,
    events_to_try=1_500,
    events_of_limit=50_000,
    events_of_profile=60_000,
    profile_seconds=6,
)
SMALL = Size(
    name="small",
    minutes=2,
    events=4_000,
    batches={1: 900, 100: 3_000},
    workers=(2,),
    events_of_workers=3_000,
    stored=(Seed(stored=20_000, waves=4, wave_events=5_000),),
    windows=1,
    taking_in_seconds=2,
    people_first_seen=50,
    idle_seconds=4,
    events_of_rivals=1_000,
    events_to_try=0,
    events_of_limit=5_000,
    events_of_profile=5_000,
    profile_seconds=2,
)
SIZES = {size.name: size for size in (FULL, SMALL)}
