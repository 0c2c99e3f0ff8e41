"""Whether the services that a process needs can be used, checked by threads of their own."""

import threading
from collections.abc import Callable
from time import monotonic
from typing import Final

from kratos_sync.application.errors import name_of

LATE_SECONDS: Final = 8.0
"""A check that takes longer has failed, even if it returns."""
OURS: Final = "kratos_sync."
"""The errors of this package say what is wrong in words without personal data."""


class Dependency:
    """A service that this process needs.

    It is up after a check that returned, and down after one that raised or does not return, or once
    a part of this process reports that it could not use it. Until the first check it is down.
    """

    def __init__(self, name: str, seconds: float) -> None:
        """It is checked so often."""
        self._name, self._seconds = name, seconds
        self._succeeded_at: float | None = None
        self._outages = 0
        self._problem = ""
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._check: Callable[[], None] | None = None

    @property
    def is_up(self) -> bool:
        """Whether it can be used."""
        at = self._succeeded_at
        return at is not None and monotonic() - at < self._seconds + LATE_SECONDS

    @property
    def problem(self) -> str:
        """Why it is down, without a URL or a password."""
        return self._problem or "has not answered"

    @property
    def outages(self) -> int:
        """How often it went down after it was up."""
        return self._outages

    def start(self, check: Callable[[], None]) -> None:
        """Check it so from now on; `check` bounds its own time."""
        is_first, self._check = self._check is None, check
        if is_first:
            threading.Thread(target=self._run, name=self._name, daemon=True).start()

    def stop(self) -> None:
        """Check no more."""
        self._stopped.set()

    def failed(self) -> None:
        """Note that it could not be used."""
        with self._lock:
            if self._succeeded_at is not None:
                self._outages += 1
            self._succeeded_at = None

    def _run(self) -> None:
        while self._check is not None and not self._stopped.is_set():
            try:
                self._check()
            except Exception as error:  # noqa: BLE001  # whatever it is: it cannot be used
                is_ours = type(error).__module__.startswith(OURS)
                self._problem = str(error) if is_ours else name_of(type(error))
                self.failed()
            else:
                self._succeeded()
            self._stopped.wait(self._seconds)

    def _succeeded(self) -> None:
        with self._lock:
            if self._succeeded_at is not None and not self.is_up:
                self._outages += 1  # the check before this one did not return in time
            self._problem = ""
            self._succeeded_at = monotonic()
