"""What starts again what has died: the suite's `restart: unless-stopped`."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol, Self

from kratos_sync.infrastructure.embedded import EmbeddedServerError

LOOK_SECONDS: Final = 0.05
PAUSE_SECONDS: Final = 0.5
"""Between two starts: what cannot start, its database being away, say, is not started in a loop."""


class Kept(Protocol):
    """Something that runs, and can be started again."""

    def is_alive(self) -> bool:
        """Whether it runs."""

    def start(self) -> None:
        """Start it."""


class Keeper:
    """Looks after one of them, in a thread: what is dead is started at once."""

    def __init__(self, name: str, kept: Kept) -> None:
        self._kept = kept
        self._starting = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"keeper of {name}")
        self.starts = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(timeout=60)

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Start nothing meanwhile."""
        with self._starting:
            yield

    def _run(self) -> None:
        last = 0.0
        while not self._ended.wait(LOOK_SECONDS):
            if self._kept.is_alive() or time.monotonic() - last < PAUSE_SECONDS:
                continue
            with self._starting:
                try:
                    self._kept.start()
                    self.starts += 1
                except (EmbeddedServerError, OSError):
                    pass  # a disk that is full, say: once more
                last = time.monotonic()
