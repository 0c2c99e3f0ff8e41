"""Waiting for what must come: a deadline ends a test that would hang, and measures nothing."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

import psutil

DEADLINE_SECONDS: Final = 120.0
"""Far more than anything takes on a busy machine."""
SHORTEST_PAUSE: Final = 0.003
LONGEST_PAUSE: Final = 0.1

T = TypeVar("T")


def until(condition: Callable[[], T], seconds: float = DEADLINE_SECONDS) -> T:
    """Give what the condition gives as soon as that is true; fail when it never is.

    It looks ever less often, by a tenth of the time: else looking would take what it waits for.
    """
    began = time.monotonic()
    while not (answer := condition()):
        waited = time.monotonic() - began
        assert waited < seconds, f"not so after {seconds} s (last: {answer!r})"
        time.sleep(min(max(waited / 10, SHORTEST_PAUSE), LONGEST_PAUSE))
    return answer


async def until_on_loop(condition: Callable[[], T]) -> T:
    """The same, while the event loop does everything else that it has to do."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not (answer := condition()):
            await asyncio.sleep(0)
        return answer


def at_once(*jobs: Callable[[], None]) -> None:
    """Do these together, each in a thread of its own; raise the first error of any."""
    start = threading.Barrier(len(jobs))
    errors: list[Exception] = []

    def run(job: Callable[[], None]) -> None:
        start.wait(DEADLINE_SECONDS)
        try:
            job()
        except Exception as error:  # noqa: BLE001  # raised in the thread that asked
            errors.append(error)

    threads = [threading.Thread(target=run, args=(job,), daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_SECONDS)
        assert not thread.is_alive(), "a job did not end"
    if errors:
        raise errors[0]


@contextmanager
def in_a_thread(
    run: Callable[[threading.Event], object], stopped: threading.Event | None = None
) -> Iterator[threading.Thread]:
    """Run this in a thread of its own; at the end `stopped` is set, and it has to end."""
    stopped = stopped or threading.Event()
    thread = threading.Thread(target=run, args=(stopped,), daemon=True)
    thread.start()
    try:
        yield thread
    finally:
        stopped.set()
        thread.join(DEADLINE_SECONDS)
        assert not thread.is_alive()


def lives(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
