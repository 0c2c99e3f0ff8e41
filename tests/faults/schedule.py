"""Which fault is done to what, and when: all of it follows from a seed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Final

from tests.faults.kinds import KINDS, Kind
from tests.faults.sizes import Size

TOGETHER: Final = 3
"""Faults of one round, at most."""
LATEST_START_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: it starts so many seconds after its round does, and lasts so long."""

    number: int
    kind: str
    target: str
    starts_after: float
    seconds: float

    def __str__(self) -> str:
        lasts = f" for {self.seconds:.1f} s" if self.seconds else ""
        return f"#{self.number} {self.kind} ({self.target}) at +{self.starts_after:.1f} s{lasts}"


Round = tuple[Fault, ...]


def schedule(
    seed: int,
    times: int,
    kinds: Mapping[str, Kind] = KINDS,
    together: int = TOGETHER,
    seconds: tuple[float, float] | None = None,
) -> list[Round]:
    """Give rounds in which each of the kinds is done so many times, or as often as it may be.

    The faults of a round overlap, and no two of them have one target. Those that last do so for
    `seconds`, if given.
    """
    random = Random(seed)
    deck = [name for name, kind in kinds.items() for _ in range(min(times, kind.most_times))]
    random.shuffle(deck)
    return list(_rounds(random, kinds, deck, together, seconds))


def kinds_for(size: Size, kinds: Mapping[str, Kind] = KINDS) -> Mapping[str, Kind]:
    """Give the kinds that there is time for."""
    return {n: kind for n, kind in kinds.items() if kind.recovers_in <= size.longest_recovery}


def _rounds(
    random: Random,
    kinds: Mapping[str, Kind],
    deck: list[str],
    together: int,
    seconds: tuple[float, float] | None,
) -> Iterator[Round]:
    number = 0
    while deck:
        drawn: list[Fault] = []
        free = {target for kind in kinds.values() for target in kind.targets}
        for name in list(deck):
            kind = kinds[name]
            targets = [target for target in kind.targets if target in free]
            if targets and len(drawn) < together and not (kind.alone and drawn):
                deck.remove(name)
                number += 1
                drawn.append(_fault(random, number, name, random.choice(targets), seconds))
                free = set() if kind.alone else free - {drawn[-1].target}
        yield tuple(drawn)


def _fault(
    random: Random, number: int, kind: str, target: str, lasts: tuple[float, float] | None
) -> Fault:
    starts_after = round(random.uniform(0, LATEST_START_SECONDS), 2)
    usual = KINDS[kind].seconds
    seconds = round(random.uniform(*(lasts if lasts and usual[1] else usual)), 2)
    return Fault(number, kind, target, starts_after, seconds)
