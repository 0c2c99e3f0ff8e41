"""Which hooks were heard, added up in memory and written down once in a while."""

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
class _Heard:
    calls: int = 0
    at: float = 0.0


class HookActivityRecorder:
    """Adds up calls by their hook's label, up to 100 labels at a time.

    What cannot be written down now is written down later; what is still in memory when the process
    is killed was never heard.
    """

    def __init__(self, log: HookLog, every: timedelta = EVERY) -> None:
        self._log = log
        self._every = every
        self._heard: dict[str, _Heard] = {}
        self._stopping = asyncio.Event()
        self._writing: asyncio.Task[None] | None = None
        self._is_failing = False

    def add(self, label: str | None) -> None:
        """Take note of a call, just now."""
        label = label or NO_LABEL
        heard = self._heard.get(label)
        if heard is None:
            if len(self._heard) == MOST_LABELS:
                return
            heard = self._heard[label] = _Heard()
        heard.calls += 1
        heard.at = time.monotonic()

    def start(self) -> None:
        """Write down what is heard every few seconds, from the event loop that runs."""
        self._writing = asyncio.create_task(self._keep_writing())

    async def stop(self) -> None:
        """Write down the rest, and let go of the log."""
        self._stopping.set()
        if self._writing is not None:
            await self._writing
        await self.write()
        await self._log.stop()

    async def write(self) -> None:
        """Write down what was heard since the last time; nothing is raised if that fails."""
        heard, self._heard = self._heard, {}
        if not heard:
            return
        now = time.monotonic()
        calls = [
            Calls(label, each.calls, timedelta(seconds=now - each.at))
            for label, each in heard.items()
        ]
        try:
            await self._log.note(calls)
        except LedgerUnavailable as error:
            self._take_back(heard)
            if not self._is_failing:
                _log.warning("hooks_not_written_down", **describe(error.__cause__ or error))
            self._is_failing = True
        else:
            self._is_failing = False

    async def _keep_writing(self) -> None:
        while not self._stopping.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(self._every.total_seconds()):
                    await self._stopping.wait()
            await self.write()

    def _take_back(self, heard: dict[str, _Heard]) -> None:
        since, self._heard = self._heard, heard
        for label, each in since.items():
            if label in heard:
                heard[label] = _Heard(heard[label].calls + each.calls, each.at)
            elif len(heard) < MOST_LABELS:
                heard[label] = each
