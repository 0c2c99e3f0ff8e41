"""Bounds the memory that deliveries take while they are consumed.

Decoded JSON takes one to forty times the size of its text, depending on how many values it holds.
All figures are bytes, and upper estimates.
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
"""The bound of a batch; a single event may be larger."""
PROCESS_BYTES: Final = 4 * BATCH_BYTES
"""The bound of all batches of a process, without the one event that is larger than a batch."""
SMALL_BYTES: Final = 64 * 1024
"""Up to this size a delivery is not bounded alone: a batch of them is hardly ever too large."""
STRUCTURE: Final = b"{[,:"
"""Each object, list, key and number of a text needs one of these characters,"""
VALUE_BYTES: Final = 80
"""and takes so many bytes."""
TEXT_BYTES: Final = 6
"""For each byte of the text, which is kept as received, as decoded and as stored,"""
WIDE_TEXT_BYTES: Final = 20
"""and where Python may need four bytes for a character."""
MOST: Final = 2**31 - 1
WAIT_SECONDS: Final = 0.25
"""How long a large event waits for its turn before its thread does other work,"""
SET_ASIDE_FOR: Final = timedelta(seconds=WAIT_SECONDS)
"""and how long until it is dispatched again."""
PARTS_AFTER_DEATHS: Final = (1, 2, 16, 128)
"""By how much a batch is divided after so many deaths; after more it is a single event."""
RECOVERY_SECONDS: Final = 15.0
"""How long a process has to live until a death no longer counts."""

_EXPONENTS: Final = re.compile(rb"[\[{,:]-?\d[\d.]*[eE]")
_EXPONENT_BYTES: Final = 310 * TEXT_BYTES + 200
"""PostgreSQL returns such a number written out, with up to 309 digits;"""
_PACKED_EXPONENT_BYTES: Final = 40 * TEXT_BYTES + 200
"""of a row that is large then, with its zeros packed."""


def footprint_of(encoded: bytes) -> int:
    """The memory for decoding, merging and storing a JSON text."""
    wide = not encoded.isascii() or b"\\u" in encoded
    values = len(encoded) - len(encoded.translate(None, STRUCTURE))
    size = len(encoded) * (WIDE_TEXT_BYTES if wide else TEXT_BYTES) + values * VALUE_BYTES
    return min(size, MOST)


def footprint_of_stored(encoded: bytes) -> int:
    """The same for what PostgreSQL returns of a row: above SMALL_BYTES packed."""
    size, exponents = footprint_of(encoded), sum(1 for _ in _EXPONENTS.finditer(encoded))
    if (in_full := size + exponents * _EXPONENT_BYTES) <= SMALL_BYTES:
        return in_full
    return min(max(size + exponents * _PACKED_EXPONENT_BYTES, SMALL_BYTES + 1), MOST)


def remaining(deaths: int, seconds: float) -> int:
    """How many deaths still count when the process has lived for so long."""
    return max(min(deaths, len(PARTS_AFTER_DEATHS)) - int(seconds / RECOVERY_SECONDS), 0)


class Size(NamedTuple):
    """The memory for a delivery: for its event, and for the row of its identity."""

    event_id: UUID
    subject: UUID
    event: int
    identity: int

    @property
    def total(self) -> int:
        return min(self.event + self.identity, MOST)


def fitting(sizes: Sequence[Size], most: int) -> tuple[Sequence[Size], int]:
    """Choose at least one delivery, and as many as fit; returns them and their footprint.

    The smallest go first, so that a large one delays no other. Each identity counts once.
    """
    if (everything := sum([size.event + size.identity for size in sizes])) <= most:
        return sizes, everything
    chosen: list[Size] = []
    subjects: set[UUID] = set()
    footprint = 0
    for size in sorted(sizes, key=attrgetter("total")):
        more = size.event + (0 if size.subject in subjects else size.identity)
        if chosen and footprint + more > most:
            break
        chosen.append(size)
        subjects.add(size.subject)
        footprint += more
    return chosen, footprint


class Admission:
    """Decides which deliveries of a batch are opened now.

    ``later`` are small ones that can be opened when the batch has ended; ``left`` has the
    footprints of the others. ``must_wait`` is set if none is opened.
    """

    def __init__(self, most: int, turn: Lock) -> None:
        self._most = most
        self._turn = turn
        self._has_turn = False
        self.left: Mapping[UUID, int] = {}
        self.later: Sequence[UUID] = ()
        self.must_wait = False

    def choose(self, sizes: Sequence[Size]) -> Collection[UUID]:
        """Return the ids of the events to open."""
        chosen, footprint = fitting(sizes, self._most)
        if footprint > self._most:
            self._has_turn = self._turn.acquire(timeout=WAIT_SECONDS)
            if not self._has_turn:
                chosen, self.must_wait = (), True
        ids = {size.event_id for size in chosen}
        if len(ids) < len(sizes):
            others = [size for size in sizes if size.event_id not in ids]
            aside = [size for size in others if self.must_wait or size.total > SMALL_BYTES]
            self.left = {size.event_id: size.total for size in aside}
            self.later = [size.event_id for size in others if size.event_id not in self.left]
        return ids

    def end(self) -> None:
        """Free the turn for the next large event."""
        if self._has_turn:
            self._turn.release()


class OpenBatches:
    """Bounds the memory of all open batches of a process.

    Each batch has its share, and one event that is larger may be open at a time. A process whose
    predecessors died begins with smaller batches, in the end of one event: then it is known which
    event they died of.
    """

    def __init__(self, threads: int = 4, deaths: int = 0) -> None:
        self._share = min(BATCH_BYTES, PROCESS_BYTES // threads)
        self._deaths = deaths
        self._began = monotonic()
        self._turn = Lock()

    @property
    def most(self) -> int:
        """The present bound of a batch."""
        deaths = remaining(self._deaths, monotonic() - self._began)
        return self._share // PARTS_AFTER_DEATHS[deaths] if deaths < len(PARTS_AFTER_DEATHS) else 0

    @contextmanager
    def admission(self) -> Iterator[Admission]:
        """Admit a batch for as long as the context lasts."""
        admission = Admission(self.most, self._turn)
        try:
            yield admission
        finally:
            admission.end()
