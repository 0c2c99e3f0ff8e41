"""How every process of the service is stopped: gracefully at first, then at once."""

import math
import os
import signal
import threading
from collections.abc import Callable
from contextlib import ExitStack
from time import monotonic
from typing import Any, Final, Self

from kratos_sync.application.ports.operations import Interrupted

EXIT_SECONDS: Final = 20.0
LOOK_SECONDS: Final = 1.0
"""A wait of the main thread is interrupted so often: Python handles a signal there, and one that
the kernel delivers to another thread wakes nobody."""


class ShutdownRequested(Interrupted):
    """This process was asked to stop."""


class ShutdownSignals:
    """The first SIGTERM, SIGINT or SIGHUP requests a graceful shutdown, the second aborts.

    A request that is not met within `abort_after` seconds becomes an abort. With an `abort_signal`
    only that signal aborts: such a process may get SIGTERM from several sides. Signals are handled
    while this is entered or, after `install`, for good. Callbacks run on a thread of their own.
    """

    def __init__(
        self,
        on_request: Callable[[], object] = lambda: None,
        on_abort: Callable[[], object] = lambda: None,
        *,
        abort_after: float | None = None,
        abort_signal: signal.Signals | None = None,
    ) -> None:
        self.requested = threading.Event()
        self.aborted = threading.Event()
        self.timed_out = False
        self._on_request = on_request
        self._on_abort = on_abort
        self._abort_after = abort_after
        self._abort_signal = abort_signal
        self._received = 0
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        return self.install()

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def install(self) -> Self:
        """Handle the signals from now on, except those that this process ignores."""
        numbers = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, self._abort_signal} - {None}
        for number in filter(None, numbers):
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._undo.callback(signal.signal, number, signal.signal(number, self._receive))
        return self

    def wait(self, seconds: float = math.inf) -> bool:
        """Wait until a shutdown is requested, for so long at most; whether one is."""
        deadline = monotonic() + seconds
        while not self.requested.wait(min(LOOK_SECONDS, max(deadline - monotonic(), 0))):
            if monotonic() >= deadline:
                return False
        return True

    def pause(self, seconds: float) -> None:
        """Wait. Raises ShutdownRequested as soon as a shutdown is requested."""
        if self._received or self.wait(seconds):
            raise ShutdownRequested

    def request(self) -> None:
        """Act as on the first signal."""
        self.requested.set()
        self._on_request()
        if self._abort_after is not None and not self.aborted.wait(self._abort_after):
            self.timed_out = True
            self.abort()

    def abort(self) -> None:
        """Act as on the second signal."""
        self.requested.set()
        if not self.aborted.is_set():
            self.aborted.set()
            self._on_abort()

    def _receive(self, number: int, _frame: Any) -> None:
        self._received += 1
        aborts = self._received > 1 if self._abort_signal is None else number == self._abort_signal
        # On a thread: the one that the signal interrupts may hold an event's lock.
        if aborts or self._received == 1:
            work = self.abort if aborts else self.request
            threading.Thread(target=work, name="shutdown", daemon=True).start()


def exit_when_stopped() -> threading.Event:
    """Install the signals and return the event that the first sets; 20 s later the process exits.

    The second signal ends it at once. Whatever was leased is due again when the leases run out.
    """
    signals = ShutdownSignals(
        on_abort=lambda: os._exit(1 if signals.timed_out else 0), abort_after=EXIT_SECONDS
    )
    return signals.install().requested
