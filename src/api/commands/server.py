"""uvicorn's server, which stops in two steps: in order, and in a hurry."""

import asyncio
import signal
from collections.abc import Callable
from types import FrameType
from typing import Final

import uvicorn

HURRY_AFTER_SECONDS: Final = 26.0
"""Whoever stops the process waits half a minute before killing it, as a rule."""
STOP_SECONDS: Final = 29


class TwoStepServer(uvicorn.Server):
    """The first SIGTERM or SIGINT has what is under way finished; the second, or time, hurries."""

    def __init__(self, config: uvicorn.Config, hurry: Callable[[], None]) -> None:
        """`hurry` makes calls that wait for something be answered at once."""
        super().__init__(config)
        self._hurry = hurry
        self.is_hurried = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002  # uvicorn's
        """Hear a signal, which may come in the middle of anything."""
        loop = asyncio.get_running_loop()
        if self.should_exit:
            loop.call_soon_threadsafe(self._stop_waiting)
            return
        self.should_exit = True
        loop.call_soon_threadsafe(loop.call_later, HURRY_AFTER_SECONDS, self._stop_waiting)

    def _stop_waiting(self) -> None:
        if self.is_hurried:
            return
        self.is_hurried = True
        self._hurry()
        # Those that are answered now close by themselves; the others are waited for no longer.
        for connection in list(self.server_state.connections):
            connection.shutdown()
        asyncio.get_running_loop().call_later(0.5, self._abandon)

    def _abandon(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()


def ignore_stop_signals() -> None:
    """uvicorn sends itself what stopped it once more, with whatever handler was there before."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
