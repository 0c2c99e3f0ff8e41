"""What a process has in hand is known after its death, whatever it died of."""

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

WRITER = """
import os, sys, time
from datetime import UTC, datetime
from uuid import UUID
from kratos_sync.application.ports.unit_of_work import PendingDelivery
from kratos_sync.infrastructure.worker.in_flight import InFlightDeliveries
hands = InFlightDeliveries(int(sys.argv[1]))
now = datetime.now(UTC)
for _ in range(3):
    hands.beat()
slot = hands.slot("Écouter")
for number in (1, 2):
    event_id = UUID(int=number)
    hands.take(slot, PendingDelivery(event_id, 7, "", event_id, now, "{}", None), 1.5)
print("written", flush=True)
time.sleep(60)
"""


def owed(number: int = 1, attempt: int = 1) -> PendingDelivery:
    return PendingDelivery(cause(number), attempt, "", ADA, NOON, "{}", None)


@pytest.fixture
def descriptor() -> Iterator[int]:
    """Memory that processes may share."""
    with tempfile.TemporaryFile() as memory:
        memory.truncate(MEMORY_SIZE)
        yield memory.fileno()


def test_the_supervisors_memory_is_large_enough() -> None:
    assert SIZE <= MEMORY_SIZE


def test_what_a_process_had_in_hand_is_read_after_it_was_killed(descriptor: int) -> None:
    command = [sys.executable, "-c", WRITER, str(descriptor)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, pass_fds=[descriptor]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        process.kill()
    assert process.returncode == -signal.SIGKILL

    hands = InFlightDeliveries(descriptor)
    (lost,) = hands

    assert hands.pulse == 3
    assert (lost.consumer, lost.event_id.int, lost.attempt) == ("Écouter", 2, 7)
    assert lost.since == datetime.fromtimestamp(1.5, UTC)


def test_the_pulse_is_where_the_supervisor_looks_for_it(descriptor: int) -> None:
    hands = InFlightDeliveries(descriptor)
    for _ in range(300):
        hands.beat()

    assert int.from_bytes(os.pread(descriptor, 8, 0), sys.byteorder) == 300


def test_clearing_lets_go_of_everything_and_keeps_the_pulse() -> None:
    hands = InFlightDeliveries()
    hands.beat()
    hands.take(hands.slot("Sync"), owed(), 0.0)

    hands.clear()

    assert (list(hands), hands.pulse) == ([], 1)


def test_what_is_let_go_is_not_in_hand() -> None:
    hands = InFlightDeliveries()
    slot = hands.slot("Sync")
    hands.take(slot, owed(1), 0.0)
    hands.let_go(slot)
    assert list(hands) == []

    hands.take(slot, owed(2, attempt=3), 0.0)
    assert [(lost.consumer, lost.event_id, lost.attempt) for lost in hands] == [
        ("Sync", cause(2), 3)
    ]


def test_a_thread_has_one_slot_for_whatever_consumer_comes() -> None:
    hands = InFlightDeliveries()
    first = hands.slot("Sync")
    hands.take(first, owed(1), 0.0)

    assert hands.slot("Count") == first
    assert list(hands) == []


@pytest.mark.parametrize("name", ["S", "n" * (LONGEST_NAME - 1), "é" * ((LONGEST_NAME - 1) // 2)])
def test_a_name_of_any_script_is_kept_whole(name: str) -> None:
    hands = InFlightDeliveries()
    hands.take(hands.slot(name), owed(), 0.0)

    assert [lost.consumer for lost in hands] == [name]


@pytest.mark.parametrize("name", ["n" * LONGEST_NAME, "n" * 10_000, "é" * 100, "😀" * 50])
def test_a_longer_name_is_cut_and_harms_nobody(name: str) -> None:
    hands = InFlightDeliveries()
    hands.take(hands.slot(name), owed(), 0.0)

    (lost,) = hands
    assert len(lost.consumer.encode()) <= LONGEST_NAME + 2
    assert lost.consumer.rstrip("\N{REPLACEMENT CHARACTER}") in name
    assert lost.event_id == cause(1)


def test_more_threads_than_slots_share_them_and_write_nowhere_else() -> None:
    hands = InFlightDeliveries()
    threads = SLOTS + 40
    together = threading.Barrier(threads)
    slots: list[int] = []

    def take(number: int) -> None:
        slot = hands.slot(f"Consumer{number}")
        slots.append(slot)
        hands.take(slot, owed(number), 0.0)
        together.wait(20)  # a thread that ended would lend its number to the next one

    running = [threading.Thread(target=take, args=(number,)) for number in range(1, threads + 1)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(20)

    assert (len(slots), len(set(slots)), len(list(hands))) == (threads, SLOTS, SLOTS)
    assert max(slots) < SIZE
    assert hands.pulse == 0
