"""The deliveries that a worker process consumes, readable after the process has died."""

import mmap
import struct
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from kratos_sync.application.ports.dead_letters import Lost
from kratos_sync.application.ports.unit_of_work import PendingDelivery

SLOTS: Final = 128
"""For threads,"""
SLOTS_AT_ONCE: Final = 2048
"""and for deliveries of async consumers."""
LONGEST_NAME: Final = 150
_HEADER: Final = struct.Struct("=Q")
_SLOT: Final = struct.Struct(f"=16sId{LONGEST_NAME}p")
_SLOT_WITHOUT_NAME: Final = struct.Struct("=16sId")
_EMPTY: Final = bytes(16)
SIZE: Final = _HEADER.size + (SLOTS + SLOTS_AT_ONCE) * _SLOT.size


class InFlightDeliveries:
    """Memory with a pulse, and slots with the deliveries that threads and async consumers consume.

    It is shared with every process that has the same file descriptor of SIZE bytes, if one is
    given.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self._memory = mmap.mmap(-1 if descriptor is None else descriptor, SIZE)
        self._slots: dict[int, int] = {}
        self._free = deque(
            _HEADER.size + number * _SLOT.size for number in range(SLOTS, SLOTS + SLOTS_AT_ONCE)
        )
        self._lock = threading.Lock()

    def beat(self) -> None:
        """Increment the pulse: this process is alive."""
        _HEADER.pack_into(self._memory, 0, self.pulse + 1)

    @property
    def pulse(self) -> int:
        pulse: int = _HEADER.unpack_from(self._memory)[0]
        return pulse

    def clear(self) -> None:
        """Empty all slots."""
        self._memory[_HEADER.size : SIZE] = bytes(SIZE - _HEADER.size)

    def slot(self, consumer: str) -> int:
        """This thread's slot, emptied, for deliveries to that consumer from now on."""
        thread = threading.get_ident()
        if thread not in self._slots:
            with self._lock:
                self._slots[thread] = _HEADER.size + (len(self._slots) % SLOTS) * _SLOT.size
        slot = self._slots[thread]
        name = consumer.encode()[: LONGEST_NAME - 1]
        self._memory[slot : slot + _SLOT.size] = _SLOT.pack(_EMPTY, 0, 0.0, name)
        return slot

    def take(self, slot: int, delivery: PendingDelivery, since: float) -> None:
        """Note that the slot's thread consumes this delivery, since a time of `time.time`."""
        _SLOT_WITHOUT_NAME.pack_into(
            self._memory, slot, delivery.event_id.bytes, delivery.attempt, since
        )

    def take_all(
        self, consumer: str, deliveries: Iterable[PendingDelivery], since: float
    ) -> dict[UUID, int]:
        """Note that these are consumed at once; returns their slots, by event.

        What there is no slot for is not noted.
        """
        name, slots = consumer.encode()[: LONGEST_NAME - 1], {}
        for delivery in deliveries:
            with suppress(IndexError):
                slot = slots[delivery.event_id] = self._free.popleft()
                packed = _SLOT.pack(delivery.event_id.bytes, delivery.attempt, since, name)
                self._memory[slot : slot + _SLOT.size] = packed
        return slots

    def release_all(self, slots: Iterable[int]) -> None:
        """Note that what is in these slots of `take_all` is not consumed any more."""
        for slot in slots:
            self.release(slot)
            self._free.append(slot)

    def release(self, slot: int) -> None:
        """Note that the slot's thread consumes nothing."""
        self._memory[slot : slot + len(_EMPTY)] = _EMPTY

    def __iter__(self) -> Iterator[Lost]:
        for event_id, attempt, since, name in _SLOT.iter_unpack(self._memory[_HEADER.size : SIZE]):
            if event_id != _EMPTY:
                at = datetime.fromtimestamp(since, UTC)
                yield Lost(name.decode(errors="replace"), UUID(bytes=event_id), attempt, at)
