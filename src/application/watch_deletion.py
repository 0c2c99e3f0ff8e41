"""Watching a deletion until it is done, or held by something that a person has to decide about."""

import time
from collections.abc import Callable, Iterator
from uuid import UUID

from application.ports.deletions import DeletionProgress, Deletions

POLL_SECONDS = 0.5


def watch_deletion(
    deletions: Deletions,
    request: UUID,
    seconds: float,
    *,
    until_erased: bool = False,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> Iterator[DeletionProgress]:
    """Tell how far it is whenever that changes, for so long at most; the last is how it ended."""
    deadline = clock() + seconds
    told = None
    while True:
        progress = deletions.progress(request)
        if progress != told:
            yield progress
            told = progress
        is_over = progress.is_done and (progress.is_erased or not until_erased)
        if is_over or progress.is_held or clock() > deadline:
            return
        pause(POLL_SECONDS)
