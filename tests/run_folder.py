"""The folder of a test run: its own while it runs, and gone afterwards.

pytest's folders of several runs lie side by side in one, and each run that begins sets the mode of
that one anew: a server that runs as another user would lose its data in the middle of a test.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

LOCK: Final = "owner.lock"
IN_MEMORY: Final = Path("/dev/shm")
ROOM: Final = 8 << 30
"""Bytes free from which the servers' data may be in memory: a run takes some two gigabytes."""


@contextmanager
def run_folder(parent: Path | None = None) -> Iterator[Path]:
    """Make a folder for a run, after those of runs that were killed have been removed."""
    parent = parent or _parent()
    prefix = f"ks-{os.geteuid()}-"
    for left in parent.glob(f"{prefix}*"):
        _remove_if_left(left)
    made = Path(tempfile.mkdtemp(prefix="ks-new-", dir=parent))
    with (made / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Not found by another run before it is locked.
        folder = made.rename(made.with_name(prefix + made.name.removeprefix("ks-new-")))
        try:
            yield folder
        finally:
            _remove(folder)


def _parent() -> Path:
    if given := os.environ.get("PYTEST_DEBUG_TEMPROOT"):
        return Path(given)
    with suppress(OSError):
        found = os.statvfs(IN_MEMORY)
        if found.f_bavail * found.f_frsize >= ROOM and not found.f_flag & os.ST_NOEXEC:
            return IN_MEMORY
    return Path(tempfile.gettempdir())


def _remove_if_left(folder: Path) -> None:
    with suppress(OSError), (folder / LOCK).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(folder)


def _remove(folder: Path) -> None:
    """Remove it all; a server that a killed process left running there is ended before."""
    if locks := list(folder.rglob("server.lock")):
        from kratos_sync.infrastructure.embedded import (
            EmbeddedPostgres,
            EmbeddedServerError,
            EmbeddedValkey,
        )

        for directory in {lock.parent for lock in locks}:
            kind = EmbeddedPostgres if (directory / "data").is_dir() else EmbeddedValkey
            with suppress(EmbeddedServerError):
                kind(directory)._end()
            if (sockets := directory / "sockets").is_symlink():
                shutil.rmtree(sockets.readlink(), ignore_errors=True)
    for settings in folder.rglob("rabbitmq.conf"):
        _end_those_at_work_in(settings.parent)
    shutil.rmtree(folder, ignore_errors=True)


def _end_those_at_work_in(folder: Path) -> None:
    """End a RabbitMQ node and its name server, which have nothing but their folder in common."""
    import psutil

    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if Path(process.cwd()) == folder:
                process.kill()
