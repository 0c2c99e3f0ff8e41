"""What processes cost while something is measured: memory at its peak, and CPU."""

from collections.abc import Mapping
from contextlib import suppress
from threading import Event, Thread
from time import perf_counter
from typing import Any, Self

import psutil

SAMPLE_SECONDS = 0.25
MEGABYTE = 1_000_000
SERVERS = {"postgres", "valkey"}


class Watch:
    """Watches processes from entering to leaving; ``pids`` names them."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._processes = {name: psutil.Process(pid) for name, pid in pids.items()}
        self._peaks = {name: {"rss_mb": 0.0, "pss_mb": 0.0} for name in pids.keys() - SERVERS}
        self._left = Event()
        self._thread = Thread(target=self._sample_until_left, daemon=True)
        self.seconds = 0.0
        self.together_mb = 0.0
        """The highest proportional size of all that are measured, at one moment."""
        self.cpu_seconds: dict[str, float] = {}
        """By process, with all its children; there when left."""

    def __enter__(self) -> Self:
        self._began = perf_counter()
        self._cpu_before = self._cpu()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self._thread.join()
        self._sample()
        self.seconds = perf_counter() - self._began
        after = self._cpu()
        self.cpu_seconds = {name: after[name] - self._cpu_before[name] for name in after}

    def memory(self) -> dict[str, dict[str, float]]:
        """The highest resident and proportional size, in MB, each with all its children."""
        return {
            name: {kind: round(size, 1) for kind, size in peaks.items()}
            for name, peaks in self._peaks.items()
        }

    def cpu_microseconds(self, events: int) -> dict[str, float]:
        """What each process spent on an event."""
        spent = self.cpu_seconds.items()
        return {name: round(1e6 * seconds / events, 1) for name, seconds in spent}

    def _sample_until_left(self) -> None:
        while not self._left.wait(SAMPLE_SECONDS):
            self._sample()

    def _sample(self) -> None:
        together = 0.0
        for name, peaks in self._peaks.items():
            with suppress(psutil.NoSuchProcess):
                process = self._processes[name]
                # A worker's work is done by a child of the process that was started.
                family = [process, *process.children(recursive=True)]
                memory = [each.memory_full_info() for each in family]
                rss, pss = sum(each.rss for each in memory), sum(each.pss for each in memory)
                peaks["rss_mb"] = max(peaks["rss_mb"], rss / MEGABYTE)
                peaks["pss_mb"] = max(peaks["pss_mb"], pss / MEGABYTE)
                together += pss / MEGABYTE
        self.together_mb = max(self.together_mb, together)

    def _cpu(self) -> dict[str, float]:
        return {name: _with_children(process) for name, process in self._processes.items()}


def _with_children(process: psutil.Process) -> float:
    times = process.cpu_times()
    # Children that have ended are in their parent's account.
    spent = times.user + times.system + times.children_user + times.children_system
    for child in process.children():
        with suppress(psutil.NoSuchProcess):
            spent += _with_children(child)
    return float(spent)


def merged(*peaks: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Of several measurements' memory the highest, by kind of process: workers are one kind."""
    highest: dict[str, dict[str, Any]] = {}
    for measured in peaks:
        for name, sizes in measured.items():
            kind = highest.setdefault(name.partition("-")[0], dict.fromkeys(sizes, 0.0))
            for size, megabytes in sizes.items():
                kind[size] = max(kind[size], megabytes)
    return highest
