"""A small disk for the database, which can be full."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from errno import ENOSPC
from pathlib import Path
from typing import Final

import psutil

RUN_SECONDS: Final = 10
SMALLEST_BYTES: Final = 4096
LARGEST_FILE_WHEN_FULL: Final = "8192"


class Disk:
    """A file system in memory, filled by a ballast file.

    Where this process may mount none, the limit for file sizes (prlimit) of the database's
    processes stands in for it: they then fail to write with EFBIG, which PostgreSQL takes for an
    internal error and not for a full disk.
    """

    def __init__(self, folder: Path, *, mounted: bool) -> None:
        self.folder = folder
        self.is_mounted = mounted
        self._ballast = folder / "ballast"
        self._limited: list[psutil.Process] = []

    def fill(self, processes: Callable[[], list[psutil.Process]]) -> None:
        """Leave no room to the server with these processes."""
        if self.is_mounted:
            _write_until_full(self._ballast)
            return
        self._limited = processes()
        _limit(self._limited, LARGEST_FILE_WHEN_FULL)

    def free(self, processes: Callable[[], list[psutil.Process]]) -> None:
        """Give room again."""
        self._ballast.unlink(missing_ok=True)
        if self._limited:
            _limit([*self._limited, *processes()], "unlimited")
            self._limited = []


def can_be_full() -> bool:
    """Whether there is any way to it on this machine."""
    return shutil.which("prlimit") is not None


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Disk]:
    """Mount a small disk there if this process may; the folder as it is otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    # A suite that was killed leaves its disk, and on it perhaps a server: that is found there.
    mounted = folder.is_mount() or _run(
        "mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=711", "faults", str(folder)
    )
    disk = Disk(folder, mounted=mounted)
    disk.free(list)
    try:
        yield disk
    finally:
        disk.free(list)
        if mounted:
            _run("umount", str(folder))


def _write_until_full(path: Path) -> None:
    with path.open("wb") as ballast:
        size, step = 0, 64 * 1024 * 1024
        while step >= SMALLEST_BYTES:
            try:
                os.posix_fallocate(ballast.fileno(), size, step)
                size += step
            except OSError as error:
                if error.errno != ENOSPC:
                    raise
                step //= 2


def _limit(processes: list[psutil.Process], size: str) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            # By its own user: root in a container may not, unless it is given that right.
            _run("prlimit", f"--fsize={size}:", f"--pid={process.pid}", user=process.uids().real)


def _run(*command: str, user: int | None = None) -> bool:
    with suppress(OSError, subprocess.TimeoutExpired):
        ran = subprocess.run(
            command, capture_output=True, check=False, timeout=RUN_SECONDS, user=user
        )
        return ran.returncode == 0
    return False
