"""Erasing an identity: its copy in one commit, and then step by step what was recorded of it."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final
from uuid import UUID

from kratos_sync.application.pipeline.outcomes import retry_on_conflict
from kratos_sync.application.ports.deletions import DeletionProgress, Deletions, Erased, Erasures

WAIT_SECONDS: Final = 60.0
"""How long to wait for in-flight deliveries: longer than an event may take."""
POLL_SECONDS: Final = 0.5
MOST_CONFLICTS: Final = 4


class StillInFlight(Exception):
    """Some of it has been in flight for a minute: a relay erases it later."""


class Erase:
    """Erases one identity. ``wake_relay`` is called when there are events to deliver."""

    def __init__(
        self,
        erasures: Erasures,
        wake_relay: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._erasures = erasures
        self._wake_relay = wake_relay
        self._clock = clock
        self._pause = pause

    def run(self, identity_id: UUID, *, by: str, reason: str) -> Iterator[Erased]:
        """Erase, and give after each step what is erased by then.

        Raises StillInFlight, LedgerUnavailable or ConcurrencyConflict. However it ends, once it has
        begun a relay erases the rest.
        """
        begin = partial(self._erasures.begin, identity_id, by, reason)
        retry_on_conflict(begin, MOST_CONFLICTS, self._pause, POLL_SECONDS)
        self._wake_relay()
        return self.rest(identity_id)

    def rest(self, identity_id: UUID) -> Iterator[Erased]:
        """Erase what is left of an identity whose erasure has begun; likewise."""
        deadline = self._clock() + WAIT_SECONDS
        erased = Erased()
        while True:
            held = 0
            for step in self._erasures.erase([identity_id]):
                held += step.held
                erased = erased.plus(step)._replace(held=held)
                yield erased
            self._erasures.note([identity_id], is_complete=not held)
            if not held:
                return
            if self._clock() > deadline:
                raise StillInFlight(f"a worker has had {held:,} of it in flight for a minute")
            self._pause(POLL_SECONDS)


def watch_deletion(
    deletions: Deletions,
    request: UUID,
    seconds: float,
    *,
    until_erased: bool = False,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> Iterator[DeletionProgress]:
    """Give the progress whenever it changes, for so long at most; the last is how it ended."""
    deadline = clock() + seconds
    last = None
    while True:
        progress = deletions.progress(request)
        if progress != last:
            yield progress
            last = progress
        is_over = progress.is_done and (progress.is_erased or not until_erased)
        if is_over or progress.is_held or clock() > deadline:
            return
        pause(POLL_SECONDS)
