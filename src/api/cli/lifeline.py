"""Child processes that never outlive their parent, even a parent killed by force.

The parent keeps the writing end of a pipe that nobody ever writes to; a child that reads its end
learns from the kernel that the parent is gone.
"""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from contextlib import ExitStack, suppress
from itertools import cycle
from typing import IO, Self

import click

from kratos_sync.api.cli.output import echo, harmless

VARIABLE = "KRATOS_SYNC_LIFELINE"
GRACE_SECONDS = 3.0
"""How long a child that was asked to end may take."""
POLL_SECONDS = 0.05
COLOURS = ("cyan", "yellow", "green", "magenta")


def hold(environment: MutableMapping[str, str]) -> None:
    """If a parent gave this process a lifeline, end it by SIGTERM as soon as the parent is gone."""
    end = environment.pop(VARIABLE, None)
    if end is not None:
        threading.Thread(target=_watch, args=(int(end),), name="lifeline", daemon=True).start()


def _watch(end: int) -> None:
    os.read(end, 1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


class Children:
    """Processes that share one terminal: every line under its process' name, all ended together.

    On leaving, each is asked to end (SIGTERM); those that do not within three seconds, or when
    ``hurried`` says so, are killed.
    """

    def __init__(self, environment: Mapping[str, str], hurried: Callable[[], bool]) -> None:
        self._environment = dict(environment)
        self._hurried = hurried
        self._colours = cycle(COLOURS)
        self._running: dict[str, tuple[subprocess.Popen[bytes], threading.Thread]] = {}
        self._read_end, self._write_end = os.pipe()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._stop()
        finally:
            os.close(self._write_end)
            os.close(self._read_end)

    def start(self, name: str, command: Sequence[str]) -> None:
        """Start a process; its output appears line by line, stderr and stdout alike."""
        process = subprocess.Popen(  # noqa: S603
            command,
            env={**self._environment, VARIABLE: str(self._read_end), "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[self._read_end],
            # Out of the terminal's foreground group: Ctrl-C is for the parent, which asks in order.
            start_new_session=True,
        )
        prefix = click.style(f"{name:>7} | ", fg=next(self._colours))
        reader = threading.Thread(target=_show, args=(prefix, process.stdout), daemon=True)
        reader.start()
        self._running[name] = process, reader

    def ended(self) -> tuple[str, int] | None:
        """Name and exit code of a process that has ended by itself, each once."""
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
            if self._hurried() or time.monotonic() > deadline:
                break
            time.sleep(POLL_SECONDS)
        for process, reader in self._running.values():
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait(GRACE_SECONDS)
            reader.join(timeout=1)


class Stopped(Exception):
    """Somebody asked this process to stop."""


class Interruptions:
    """How often somebody asked this process to stop: once is in order, twice is at once.

    While entered, SIGINT, SIGTERM and SIGHUP do nothing but count.
    """

    def __init__(self) -> None:
        self.count = 0
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._undo.callback(signal.signal, number, signal.signal(number, self._count))
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def pause(self, seconds: float) -> None:
        """Wait. Raises Stopped if somebody has asked."""
        if not self.count:
            time.sleep(seconds)
        if self.count:
            raise Stopped

    def _count(self, *_: object) -> None:
        self.count += 1


def say(text: str) -> None:
    """Print a line. A terminal that has gone away stops nobody."""
    with suppress(OSError):
        echo(*text.split("\n"))


def _show(prefix: str, output: IO[bytes]) -> None:
    with output:
        for line in output:
            said = harmless(line.decode(errors="replace").rstrip("\r\n"))
            with suppress(OSError):
                click.echo(prefix + said)
