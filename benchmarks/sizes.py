"""How much is measured: everything properly, or everything briefly."""

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.measures.console import Records
from benchmarks.seeding import Seed


@dataclass(frozen=True)
class Size:
    """Numbers of a run; what is measured, and the rows of the table, are always the same."""

    name: str
    minutes: int
    """What the run stays below, here on two cores."""
    events: int
    """Delivered in the first row."""
    runs: int
    """How often that is done, an odd number: the row is the median."""
    events_of_pairs: int
    """Delivered in each of the rows that compare with a plain run, and in the plain run."""
    pairs: int
    """How often both are done."""
    batches: Mapping[int, int]
    """Batch sizes that are tried, and with how many events."""
    events_of_workers: int
    stored: tuple[Seed, ...]
    """The last is the row of the table; its waves are more than are measured."""
    windows: int
    """How many waves of the last are measured."""
    rounds: int
    """How often each server takes in webhooks, by turns."""
    round_seconds: int
    taking_in_seconds: int
    people_first_seen: int
    pauses: int
    pause_seconds: int
    """How long a consumer is paused, and how long all are at work before it."""
    idle_seconds: int
    events_of_rivals: int
    events_beside_rivals: int
    """Ours, before each rival's; where it is 0, the first row stands for them."""
    events_to_try: int
    """To find a rival's best setting with; none are tried where it is 0."""
    events_of_limit: int
    events_of_profile: int
    profile_seconds: int
    console: Records


FULL = Size(
    name="full",
    minutes=25,
    events=100_000,
    runs=3,
    events_of_pairs=30_000,
    pairs=2,
    batches={1: 2_000, 10: 10_000, 50: 15_000, 100: 15_000, 200: 15_000, 500: 15_000},
    events_of_workers=20_000,
    stored=(Seed(stored=1_000_000, waves=20, wave_events=50_000),),
    windows=3,
    rounds=7,
    round_seconds=2,
    taking_in_seconds=10,
    people_first_seen=300,
    pauses=5,
    pause_seconds=3,
    idle_seconds=20,
    events_of_rivals=6_000,
    events_beside_rivals=20_000,
    events_to_try=1_000,
    events_of_limit=30_000,
    events_of_profile=40_000,
    profile_seconds=5,
    console=Records(
        identities=1_000_000,
        dead_letters=100_000,
        times=40,
        webhooks_per_second=2_000,
        seconds=10,
    ),
)
SMALL = Size(
    name="small",
    minutes=2,
    events=2_600,
    runs=1,
    events_of_pairs=1_800,
    pairs=1,
    batches={100: 1_800},
    events_of_workers=1_800,
    stored=(Seed(stored=20_000, waves=4, wave_events=1_800),),
    windows=1,
    rounds=2,
    round_seconds=1,
    taking_in_seconds=1,
    people_first_seen=15,
    pauses=2,
    pause_seconds=2,
    idle_seconds=1,
    events_of_rivals=900,
    events_beside_rivals=0,
    events_to_try=0,
    events_of_limit=2_600,
    events_of_profile=3_000,
    profile_seconds=1,
    console=Records(
        identities=5_000, dead_letters=2_000, times=5, webhooks_per_second=100, seconds=2
    ),
)
SIZES = {size.name: size for size in (FULL, SMALL)}
