"""The deliveries in flight are known after a process died, whatever it died of."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from kratos_sync.application.ports.unit_of_work import PendingDelivery
from kratos_sync.infrastructure.worker.in_flight import (
    LONGEST_NAME,
    SIZE,
    SLOTS,
    InFlightDeliveries,
)
from kratos_sync.infrastructure.worker.supervisor import MEMORY_SIZE
from tests.domain.people import ADA, NOON, cause
from tests.waiting import DEADLINE_SECONDS

WRITER = """
import os, sys, time
from datetime import UTC, datetime
from uuid import UUID
from kratos_sync.application.ports.unit_of_work import PendingDelivery
from kratos_sync.infrastructure.worker.in_flight import InFlightDeliveries
in_flight = InFlightDeliveries(int(sys.argv[1]))
now = datetime.now(UTC)
for _ in range(3):
    in_flight.beat()
slot = in_flight.slot("Écouter")
for number in (1, 2):
    event_id = UUID(int=number)
    in_flight.take(slot, PendingDelivery(event_id, 7, "", event_id, now, "{}", None), 1.5)
print("written", flush=True)
time.sleep(60)
"""


def pending(number: int = 1, attempt: int = 1) -> PendingDelivery:
    return PendingDelivery(cause(number), attempt, "", ADA, NOON, "{}", None)


@pytest.fixture
def descriptor() -> Iterator[int]:
    """Memory that processes may share."""
    with tempfile.TemporaryFile() as memory:
        memory.truncate(MEMORY_SIZE)
        yield memory.fileno()


def test_the_supervisors_memory_is_large_enough() -> None:
    assert SIZE <= MEMORY_SIZE


def test_deliveries_in_flight_are_read_after_a_process_was_killed(descriptor: int) -> None:
    command = [sys.executable, "-c", WRITER, str(descriptor)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, pass_fds=[descriptor]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        process.kill()
    assert process.returncode == -signal.SIGKILL

    in_flight = InFlightDeliveries(descriptor)
    (lost,) = in_flight

    assert in_flight.pulse == 3
    assert (lost.consumer, lost.event_id.int, lost.attempt) == ("Écouter", 2, 7)
    assert lost.since == datetime.fromtimestamp(1.5, UTC)


def test_the_pulse_is_where_the_supervisor_looks_for_it(descriptor: int) -> None:
    in_flight = InFlightDeliveries(descriptor)
    for _ in range(300):
        in_flight.beat()

    assert int.from_bytes(os.pread(descriptor, 8, 0), sys.byteorder) == 300


def test_clearing_removes_all_deliveries_and_keeps_the_pulse() -> None:
    in_flight = InFlightDeliveries()
    in_flight.beat()
    in_flight.take(in_flight.slot("Sync"), pending(), 0.0)

    in_flight.clear()

    assert (list(in_flight), in_flight.pulse) == ([], 1)


def test_a_released_delivery_is_not_in_flight() -> None:
    in_flight = InFlightDeliveries()
    slot = in_flight.slot("Sync")
    in_flight.take(slot, pending(1), 0.0)
    in_flight.release(slot)
    assert list(in_flight) == []

    in_flight.take(slot, pending(2, attempt=3), 0.0)
    assert [(lost.consumer, lost.event_id, lost.attempt) for lost in in_flight] == [
        ("Sync", cause(2), 3)
    ]


def test_a_thread_has_one_slot_for_whatever_consumer_comes() -> None:
    in_flight = InFlightDeliveries()
    first = in_flight.slot("Sync")
    in_flight.take(first, pending(1), 0.0)

    assert in_flight.slot("Count") == first
    assert list(in_flight) == []


@pytest.mark.parametrize("name", ["S", "n" * (LONGEST_NAME - 1), "é" * ((LONGEST_NAME - 1) // 2)])
def test_a_name_of_any_script_is_kept_whole(name: str) -> None:
    in_flight = InFlightDeliveries()
    in_flight.take(in_flight.slot(name), pending(), 0.0)

    assert [lost.consumer for lost in in_flight] == [name]


@pytest.mark.parametrize("name", ["n" * LONGEST_NAME, "n" * 10_000, "é" * 100, "😀" * 50])
def test_a_longer_name_is_cut_and_harms_nobody(name: str) -> None:
    in_flight = InFlightDeliveries()
    in_flight.take(in_flight.slot(name), pending(), 0.0)

    (lost,) = in_flight
    assert len(lost.consumer.encode()) <= LONGEST_NAME + 2
    assert lost.consumer.rstrip("\N{REPLACEMENT CHARACTER}") in name
    assert lost.event_id == cause(1)


def test_more_threads_than_slots_share_them_and_write_nowhere_else() -> None:
    in_flight = InFlightDeliveries()
    threads = SLOTS + 40
    together = threading.Barrier(threads)
    slots: list[int] = []

    def take(number: int) -> None:
        slot = in_flight.slot(f"Consumer{number}")
        slots.append(slot)
        in_flight.take(slot, pending(number), 0.0)
        together.wait(DEADLINE_SECONDS)  # a thread that ended would lend its number to the next one

    running = [threading.Thread(target=take, args=(number,)) for number in range(1, threads + 1)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(DEADLINE_SECONDS)

    assert (len(slots), len(set(slots)), len(list(in_flight))) == (threads, SLOTS, SLOTS)
    assert max(slots) < SIZE
    assert in_flight.pulse == 0
