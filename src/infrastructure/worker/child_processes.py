"""Child processes that never outlive their parent, even a parent killed by force.

The parent keeps the writing end of a pipe that nobody ever writes to. A child that reads its end
learns from the kernel when the parent has ended.
"""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Self

PARENT_PIPE = "KRATOS_SYNC_PARENT_PIPE"
"""The variable by which a child is given its end of the pipe."""
GRACE_SECONDS = 3.0
"""How long a child that was asked to end may take."""
POLL_SECONDS = 0.05


def end_with_parent(environment: MutableMapping[str, str]) -> None:
    """If a parent gave this process a pipe, end it by SIGTERM as soon as the parent has ended."""
    end = environment.pop(PARENT_PIPE, None)
    if end is not None:
        threading.Thread(target=_watch, args=(int(end),), name="parent", daemon=True).start()


def _watch(end: int) -> None:
    os.read(end, 1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def parent_pipe() -> Iterator[int]:
    """Give the end of the pipe that children inherit."""
    read_end, write_end = os.pipe()
    try:
        yield read_end
    finally:
        os.close(write_end)
        os.close(read_end)


class ChildProcesses:
    """Processes whose output is shown line by line, and that are ended together.

    On leaving, each is asked to end (SIGTERM); those that do not within three seconds, or when
    ``aborted`` says so, are killed. ``show`` gets each line with its process' name.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        aborted: Callable[[], bool],
        show: Callable[[str, bytes], None],
    ) -> None:
        self._environment = dict(environment)
        self._aborted = aborted
        self._show = show
        self._running: dict[str, tuple[subprocess.Popen[bytes], threading.Thread]] = {}
        self._pipe = parent_pipe()
        self._read_end = self._pipe.__enter__()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._stop()
        finally:
            self._pipe.__exit__(None, None, None)

    def start(self, name: str, command: Sequence[str]) -> None:
        """Start a process; what it writes to stdout and stderr is shown alike."""
        process = subprocess.Popen(  # noqa: S603
            command,
            env={**self._environment, PARENT_PIPE: str(self._read_end), "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[self._read_end],
            # Out of the terminal's foreground group: Ctrl-C is for the parent, which asks in order.
            start_new_session=True,
        )
        reader = threading.Thread(target=self._read, args=(name, process.stdout), daemon=True)
        reader.start()
        self._running[name] = process, reader

    def ended(self) -> tuple[str, int] | None:
        """Give name and exit code of a process that ended by itself, each once."""
        for name, (process, reader) in self._running.items():
            if (code := process.poll()) is not None:
                reader.join(timeout=1)
                del self._running[name]
                return name, code
        return None

    def _stop(self) -> None:
        deadline = time.monotonic() + GRACE_SECONDS
        for process, _ in self._running.values():
            process.terminate()
        while any(process.poll() is None for process, _ in self._running.values()):
            if self._aborted() or time.monotonic() > deadline:
                break
            time.sleep(POLL_SECONDS)
        for process, reader in self._running.values():
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait(GRACE_SECONDS)
            reader.join(timeout=1)

    def _read(self, name: str, output: IO[bytes]) -> None:
        with output:
            for line in output:
                self._show(name, line)
