"""How much memory deliveries take while they are consumed, and how much all of a process may take.

JSON of one length takes anything from its text's size to forty times as much once it is read: that
goes by how many values it holds. All figures are bytes, and estimates from above.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from operator import attrgetter
from threading import Lock
from time import monotonic
from typing import Final, NamedTuple
from uuid import UUID

MIB: Final = 1024 * 1024
BATCH_BYTES: Final = 8 * MIB
"""What a batch may take, unless it is one event."""
PROCESS_BYTES: Final = 4 * BATCH_BYTES
"""What the batches of a process may take together, beside one event that is larger than a batch."""
SMALL_BYTES: Final = 64 * 1024
"""So many of these as share a batch hardly ever fill it: they need not be bounded one by one."""
STRUCTURE: Final = b"{[,:"
VALUE_BYTES: Final = 80
"""For each of these characters, of which every object, list, key and number needs one."""
TEXT_BYTES: Final = 6
"""For each byte of the text: it is held as received, as read, and as it is stored."""
WIDE_TEXT_BYTES: Final = 20
"""The same where Python may need four bytes for a character."""
MOST: Final = 2**31 - 1
WAIT_SECONDS: Final = 0.25
"""How long a large event waits for its turn before its thread turns to others,"""
SET_ASIDE_FOR: Final = timedelta(seconds=WAIT_SECONDS)
"""and how long until it is dispatched again."""
PARTS_AFTER_DEATHS: Final = (1, 2, 16, 128)
"""Into how many parts a batch is cut after so many deaths; after more it is one event."""
RECOVERY_SECONDS: Final = 60.0
"""How long a process has to live until one of those deaths no longer counts."""

# PostgreSQL writes such a number in full, with up to 309 digits, when it is read back.
_EXPONENTS: Final = re.compile(rb"[\[{,:]-?\d[\d.]*[eE]")
_EXPONENT_BYTES: Final = 310 * TEXT_BYTES + 200


def footprint_of(encoded: bytes) -> int:
    """What it takes to read, merge and store a JSON text."""
    wide = not encoded.isascii() or b"\\u" in encoded
    values = len(encoded) - len(encoded.translate(None, STRUCTURE))
    size = len(encoded) * (WIDE_TEXT_BYTES if wide else TEXT_BYTES) + values * VALUE_BYTES
    return min(size, MOST)


def footprint_of_stored(encoded: bytes) -> int:
    """The same for what the database gives back as it spells it."""
    in_full = sum(1 for _ in _EXPONENTS.finditer(encoded)) * _EXPONENT_BYTES
    return min(footprint_of(encoded) + in_full, MOST)


def remaining(deaths: int, seconds: float) -> int:
    """How many of these deaths still count when a process has lived for so long."""
    return max(min(deaths, len(PARTS_AFTER_DEATHS)) - int(seconds / RECOVERY_SECONDS), 0)


class Size(NamedTuple):
    """What a delivery takes: its event, and what is held of whom that is about."""

    event_id: UUID
    subject: UUID
    event: int
    held: int

    @property
    def total(self) -> int:
        """Both together."""
        return min(self.event + self.held, MOST)


def fitting(sizes: Sequence[Size], most: int) -> tuple[Sequence[Size], int]:
    """Choose deliveries that fit into so many bytes, at least one; give them and their footprint.

    The smallest go first, so that a large one delays no other. What is held of a person counts
    once.
    """
    if (everything := sum([size.event + size.held for size in sizes])) <= most:
        return sizes, everything
    chosen: list[Size] = []
    people: set[UUID] = set()
    footprint = 0
    for size in sorted(sizes, key=attrgetter("total")):
        more = size.event + (0 if size.subject in people else size.held)
        if chosen and footprint + more > most:
            break
        chosen.append(size)
        people.add(size.subject)
        footprint += more
    return chosen, footprint


class Admission:
    """Decides which deliveries of a batch are opened now.

    ``left`` are the others, with their footprints; ``must_wait`` is set where nothing is opened.
    """

    def __init__(self, most: int, turn: Lock) -> None:
        self._most = most
        self._turn = turn
        self._has_turn = False
        self.left: Mapping[UUID, int] = {}
        self.must_wait = False

    def choose(self, sizes: Sequence[Size]) -> Collection[UUID]:
        """Give the ids of the events to be opened."""
        chosen, footprint = fitting(sizes, self._most)
        if footprint > self._most:
            self._has_turn = self._turn.acquire(timeout=WAIT_SECONDS)
            if not self._has_turn:
                chosen, self.must_wait = (), True
        ids = {size.event_id for size in chosen}
        if len(ids) < len(sizes):
            self.left = {size.event_id: size.total for size in sizes if size.event_id not in ids}
        return ids

    def end(self) -> None:
        """Let the next large one have its turn."""
        if self._has_turn:
            self._turn.release()


class OpenBatches:
    """The bound on all batches that a process has open at a time.

    Each may take its share, and of the events that are larger than that one is open at a time. A
    process whose predecessors died begins with less: in the end with one event at a time, so that
    it is known which one they died of.
    """

    def __init__(self, threads: int = 4, deaths: int = 0) -> None:
        self._share = min(BATCH_BYTES, PROCESS_BYTES // threads)
        self._deaths = deaths
        self._began = monotonic()
        self._turn = Lock()

    @property
    def most(self) -> int:
        """What a batch may take now, unless it is one event."""
        deaths = remaining(self._deaths, monotonic() - self._began)
        return self._share // PARTS_AFTER_DEATHS[deaths] if deaths < len(PARTS_AFTER_DEATHS) else 0

    @contextmanager
    def admission(self) -> Iterator[Admission]:
        """Let a batch be opened, and count it as open until left."""
        admission = Admission(self.most, self._turn)
        try:
            yield admission
        finally:
            admission.end()
