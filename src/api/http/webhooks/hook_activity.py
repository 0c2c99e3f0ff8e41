"""Counts accepted calls by hook, in memory, and writes the counts every few seconds."""

import asyncio
import time
from collections import Counter
from contextlib import suppress
from datetime import timedelta
from typing import Final

import structlog

from kratos_sync.application.errors import details
from kratos_sync.application.ports.event_bus import LedgerUnavailable
from kratos_sync.application.ports.hook_log import MOST_LABELS, NO_LABEL, Calls, HookLog

EVERY: Final = timedelta(seconds=10)

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()


class HookActivityRecorder:
    """Counts calls by their hook's label, up to 100 labels at a time.

    Counts that cannot be written are written later; those in memory are lost with the process.
    """

    def __init__(self, log: HookLog, every: timedelta = EVERY) -> None:
        self._log = log
        self._every = every
        self._calls: Counter[str] = Counter()
        self._last_at: dict[str, float] = {}
        self._stopping = asyncio.Event()
        self._writing: asyncio.Task[None] | None = None
        self._is_failing = False

    def add(self, label: str | None) -> None:
        """Count a call that was accepted just now."""
        label = label or NO_LABEL
        if label in self._calls or len(self._calls) < MOST_LABELS:
            self._calls[label] += 1
            self._last_at[label] = time.monotonic()

    def start(self) -> None:
        """Write the counts every few seconds, from the running event loop."""
        self._writing = asyncio.create_task(self._keep_writing())

    async def stop(self) -> None:
        """Write the rest and close the log."""
        self._stopping.set()
        if self._writing is not None:
            await self._writing
        await self.write()
        await self._log.stop()

    async def write(self) -> None:
        """Write the counts since the last time; nothing is raised if that fails."""
        counted, last_at = self._calls, self._last_at
        if not counted:
            return
        self._calls, self._last_at = Counter(), {}
        now = time.monotonic()
        calls = [
            Calls(label, number, timedelta(seconds=now - last_at[label]))
            for label, number in counted.items()
        ]
        try:
            await self._log.note(calls)
        except LedgerUnavailable as error:
            self._restore(counted, last_at)
            if not self._is_failing:
                _log.warning("hook_activity_not_written", **details(error.__cause__ or error))
            self._is_failing = True
        else:
            self._is_failing = False

    async def _keep_writing(self) -> None:
        while not self._stopping.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(self._every.total_seconds()):
                    await self._stopping.wait()
            await self.write()

    def _restore(self, counted: Counter[str], last_at: dict[str, float]) -> None:
        """Add the counts since to these, whose labels come first where there are too many."""
        counted.update(self._calls)
        labels = list(counted)[:MOST_LABELS]
        last_at.update(self._last_at)
        self._calls = Counter({label: counted[label] for label in labels})
        self._last_at = {label: last_at[label] for label in labels}
