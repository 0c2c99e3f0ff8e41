"""Counts accepted calls by hook, in memory, and writes the counts every few seconds."""

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import structlog

from kratos_sync.api.http.webhooks.rejections import describe
from kratos_sync.application.ports.event_bus import LedgerUnavailable
from kratos_sync.application.ports.hook_log import MOST_LABELS, NO_LABEL, Calls, HookLog

EVERY: Final = timedelta(seconds=10)

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()


@dataclass(slots=True)
class _Count:
    calls: int = 0
    last_at: float = 0.0


class HookActivityRecorder:
    """Counts calls by their hook's label, up to 100 labels at a time.

    Counts that cannot be written are written later; those in memory are lost with the process.
    """

    def __init__(self, log: HookLog, every: timedelta = EVERY) -> None:
        self._log = log
        self._every = every
        self._counts: dict[str, _Count] = {}
        self._stopping = asyncio.Event()
        self._writing: asyncio.Task[None] | None = None
        self._is_failing = False

    def add(self, label: str | None) -> None:
        """Count a call that was accepted just now."""
        label = label or NO_LABEL
        count = self._counts.get(label)
        if count is None:
            if len(self._counts) == MOST_LABELS:
                return
            count = self._counts[label] = _Count()
        count.calls += 1
        count.last_at = time.monotonic()

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
        counts, self._counts = self._counts, {}
        if not counts:
            return
        now = time.monotonic()
        calls = [
            Calls(label, each.calls, timedelta(seconds=now - each.last_at))
            for label, each in counts.items()
        ]
        try:
            await self._log.note(calls)
        except LedgerUnavailable as error:
            self._restore(counts)
            if not self._is_failing:
                _log.warning("hook_activity_not_written", **describe(error.__cause__ or error))
            self._is_failing = True
        else:
            self._is_failing = False

    async def _keep_writing(self) -> None:
        while not self._stopping.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(self._every.total_seconds()):
                    await self._stopping.wait()
            await self.write()

    def _restore(self, counts: dict[str, _Count]) -> None:
        since, self._counts = self._counts, counts
        for label, each in since.items():
            if label in counts:
                counts[label] = _Count(counts[label].calls + each.calls, each.last_at)
            elif len(counts) < MOST_LABELS:
                counts[label] = each
