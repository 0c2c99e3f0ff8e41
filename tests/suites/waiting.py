"""Waiting for what will be, and doing things at once."""

import threading
from collections.abc import Callable
from time import monotonic

DEADLINE_SECONDS = 20.0
PAUSE = threading.Event()


def eventually(condition: Callable[[], bool], what: str) -> None:
    """Return when the condition holds; fail when it does not within the deadline."""
    deadline = monotonic() + DEADLINE_SECONDS
    while not condition():
        assert monotonic() < deadline, f"in vain: {what}"
        PAUSE.wait(0.01)


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
