"""Answers to slow questions that many pages ask: a few seconds old, and asked for beforehand."""

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from time import monotonic
from typing import Final, Generic, TypeVar

import structlog

from kratos_sync.application.errors import summary

EVERY_SECONDS: Final = 3.0
LOOKED_AT_SECONDS: Final = 30.0
"""So long after it was last looked at, an answer is refreshed."""
PART_OF_TIME: Final = 1 / 20
"""The share of time that refreshing may take."""
MOST_KEPT: Final = 50

Key = TypeVar("Key", bound=Hashable)
Found = TypeVar("Found")

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()


@dataclass(slots=True)
class _Kept(Generic[Found]):
    found: Found
    version: int
    asked_at: float
    looked_at: float


class Recent(Generic[Key, Found]):
    """Keeps answers by key, and asks again in the background while somebody looks at them.

    What was answered before `version` changed is not shown any more. At most MOST_KEPT are kept.
    """

    def __init__(
        self,
        ask: Callable[[Key], Found],
        version: Callable[[], int],
        oldest_seconds: float,
        stopped: threading.Event,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """`ask` may be called in any thread, and may raise. An older answer is not shown.

        Nothing is refreshed any more once `stopped` is set.
        """
        self._ask = ask
        self._version = version
        self._oldest_seconds = oldest_seconds
        self._stopped = stopped
        self._clock = clock
        self._kept: dict[Key, _Kept[Found]] = {}
        self._lock = threading.Lock()
        self._asking = threading.Lock()
        self._refreshing: threading.Thread | None = None

    def get(self, key: Key) -> Found:
        """The answer. Raises what asking raises."""
        if (kept := self._usable(key)) is None:
            with self._asking:  # whoever waited here finds the answer of the one before
                kept = self._usable(key) or self._asked(key, self._clock())
        return kept.found

    def _usable(self, key: Key) -> _Kept[Found] | None:
        now, version = self._clock(), self._version()
        with self._lock:
            kept = self._kept.get(key)
            if (
                kept is None
                or kept.version != version
                or now - kept.asked_at >= self._oldest_seconds
            ):
                return None
            kept.looked_at = now
            self._refresh_in_background()
        return kept

    def _asked(self, key: Key, looked_at: float) -> _Kept[Found]:
        version, asked_at = self._version(), self._clock()
        kept = _Kept(self._ask(key), version, asked_at, looked_at)
        if not self._oldest_seconds:
            return kept
        with self._lock:
            self._kept.pop(key, None)
            while len(self._kept) >= MOST_KEPT:
                del self._kept[min(self._kept, key=lambda each: self._kept[each].looked_at)]
            self._kept[key] = kept
            self._refresh_in_background()
        return kept

    def _refresh_in_background(self) -> None:
        if self._refreshing is None:
            self._refreshing = threading.Thread(target=self._refresh, name="recent", daemon=True)
            self._refreshing.start()

    def _refresh(self) -> None:
        took = 0.0
        while not self._stopped.wait(max(EVERY_SECONDS, took / PART_OF_TIME)):
            began = self._clock()
            with self._lock:
                self._kept = {
                    key: kept
                    for key, kept in self._kept.items()
                    if began - kept.looked_at < LOOKED_AT_SECONDS
                }
                looked_at = {key: kept.looked_at for key, kept in self._kept.items()}
                if not looked_at:
                    self._refreshing = None
                    return
            for key, at in looked_at.items():
                try:
                    self._asked(key, at)
                except Exception as error:  # noqa: BLE001  # the page asks by itself, and says it
                    _log.warning("not_refreshed", **summary(error))
                    with self._lock:
                        self._kept.pop(key, None)
            took = self._clock() - began
