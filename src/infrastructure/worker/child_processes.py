"""Child processes that end with their parent, even if it is killed.

The parent keeps the writing end of a pipe that it never writes to. A child that reads from the pipe
is woken by the kernel when the parent has ended.
"""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from errno import EADDRINUSE
from socket import AF_INET, AF_INET6, create_server
from typing import IO, Self

PARENT_PIPE = "KRATOS_SYNC_PARENT_PIPE"
"""The environment variable with the child's end of the pipe."""
GRACE_SECONDS = 3.0
"""How long a child may take to end after SIGTERM."""
PORT_SECONDS = GRACE_SECONDS + 1
"""How long a child whose supervisor was killed may have a port; then it is ended."""
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


def wait_until_free(host: str, port: int) -> None:
    """Wait while the port is taken, but not for long: then whoever listens says so."""
    deadline = time.monotonic() + PORT_SECONDS
    while time.monotonic() < deadline:
        try:
            create_server((host, port), family=AF_INET6 if ":" in host else AF_INET).close()
        except OSError as error:
            if error.errno != EADDRINUSE:
                return
        else:
            return
        time.sleep(POLL_SECONDS)


@contextmanager
def parent_pipe() -> Iterator[int]:
    """Open the pipe and yield the end that children inherit."""
    read_end, write_end = os.pipe()
    try:
        yield read_end
    finally:
        os.close(write_end)
        os.close(read_end)


class ChildProcesses:
    """Processes whose output is passed line by line to ``show``, and that are ended together.

    On leaving, each gets SIGTERM; those that do not end within three seconds, or when ``aborted``
    returns true, are killed.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        aborted: Callable[[], bool],
        show: Callable[[str, bytes], None],
    ) -> None:
        self._aborted = aborted
        self._show = show
        self._running: dict[str, tuple[subprocess.Popen[bytes], threading.Thread]] = {}
        self._undo = ExitStack()
        self._pipe = self._undo.enter_context(parent_pipe())
        self._undo.callback(self._stop)
        self._environment = {**environment, PARENT_PIPE: str(self._pipe), "PYTHONUNBUFFERED": "1"}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def start(
        self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> None:
        """Start a process, with more in its environment; its stdout and stderr are shown alike."""
        process = subprocess.Popen(  # noqa: S603
            command,
            env={**self._environment, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[self._pipe],
            # Out of the terminal's foreground group: Ctrl-C is for the parent, which stops us.
            start_new_session=True,
        )
        reader = threading.Thread(target=self._read, args=(name, process.stdout), daemon=True)
        reader.start()
        self._running[name] = process, reader

    def ended(self) -> tuple[str, int] | None:
        """The name and exit code of a process that ended by itself, each once."""
        for name, (process, reader) in self._running.items():
            if (code := process.poll()) is not None:
                reader.join(timeout=1)
                del self._running[name]
                return name, code
        return None

    def _stop(self) -> None:
        deadline = time.monotonic() + GRACE_SECONDS
        running = self._running.values()
        for process, _ in running:
            process.terminate()
        while any(process.poll() is None for process, _ in running):
            if self._aborted() or time.monotonic() > deadline:
                break
            time.sleep(POLL_SECONDS)
        for process, reader in running:
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait(GRACE_SECONDS)
            reader.join(timeout=1)

    def _read(self, name: str, output: IO[bytes]) -> None:
        with output:
            for line in output:
                self._show(name, line)
