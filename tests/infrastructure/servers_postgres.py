"""A PostgreSQL that goes away."""

import os
from contextlib import ExitStack
from signal import SIGQUIT

from kratos_sync.infrastructure.embedded import EmbeddedPostgres
from tests.waiting import until


class ReturningPostgres(EmbeddedPostgres):
    """A PostgreSQL that comes back at the same address, with what was committed."""

    def _prepare(self, undo: ExitStack) -> list[str]:
        self._command = super()._prepare(undo)
        return self._command

    def go_away(self) -> None:
        """End it as a crash would: nobody is told, and nothing is finished."""
        assert self.pid is not None
        os.kill(self.pid, SIGQUIT)
        until(lambda: not self._is_running())
        self._end()

    def come_back(self) -> None:
        """Start it on what it had committed, and return when it answers."""
        self._start(self._command)
