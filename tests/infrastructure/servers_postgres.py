"""A PostgreSQL that goes away."""

import os
import subprocess
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from signal import SIGQUIT

from kratos_sync.infrastructure.embedded import EmbeddedPostgres
from tests.waiting import until


class ReturningPostgres(EmbeddedPostgres):
    """A PostgreSQL that comes back at the same address, with what was committed.

    It begins with a copy of the data of another one, which does not run, if that is given.
    """

    def __init__(
        self,
        directory: Path,
        settings: Mapping[str, str] | None = None,
        copied_from: Path | None = None,
    ) -> None:
        super().__init__(directory, settings)
        self._copied_from = copied_from

    def _initialize(self, initdb: Path) -> None:
        if self._copied_from is None:
            super()._initialize(initdb)
        else:  # keeps the owner
            subprocess.run(["cp", "-a", self._copied_from / "data", self._data], check=True)

    def _prepare(self, undo: ExitStack) -> list[str]:
        self._command = super()._prepare(undo)
        return self._command

    def go_away(self) -> None:
        """End it as a crash would: no client is informed, and nothing is finished."""
        assert self.pid is not None
        os.kill(self.pid, SIGQUIT)
        until(lambda: not self._is_running())
        self._end()

    def come_back(self) -> None:
        """Start it on what it had committed, and return when it answers."""
        self._start(self._command)
