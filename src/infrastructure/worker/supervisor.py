"""Supervises one worker process: it is replaced when it dies or hangs.

The child runs the very command that its supervisor was called with. Both share a little memory, in
which the child notes the deliveries in flight, so that its successor can record them as lost.
"""

import os
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import MutableMapping
from contextlib import suppress
from typing import IO, Final, NamedTuple
from uuid import uuid4

from kratos_sync.application.footprint import remaining
from kratos_sync.infrastructure.worker.child_processes import PARENT_PIPE, parent_pipe
from kratos_sync.infrastructure.worker.shutdown import ShutdownSignals

MEMORY: Final = "KRATOS_SYNC_IN_FLIGHT"
NAME: Final = "KRATOS_SYNC_WORKER"
PREDECESSOR: Final = "KRATOS_SYNC_PREDECESSOR"
DEATHS: Final = "KRATOS_SYNC_DEATHS"
MEMORY_SIZE: Final = 32 * 1024
ABORT: Final = signal.SIGUSR2
"""What aborts a child: it may get SIGTERM twice, from here and from who stops the whole group."""
REPLACE_ME: Final = 75
"""The exit code by which a child asks for another in its place."""

TICK_SECONDS: Final = 1.0
MOST_TICKS_WITHOUT_PULSE: Final = 30
MOST_TICKS_TO_STOP: Final = 60
STACKS_SECONDS: Final = 3.0
LIVED_WELL_SECONDS: Final = 10.0
SHORTEST_PAUSE, LONGEST_PAUSE = 0.1, 10.0
_PULSE: Final = struct.Struct("=Q")
# By the signals themselves: it was still being loaded, and had nothing in flight.
_ENDED_AS_ASKED: Final = frozenset({0, REPLACE_ME, -signal.SIGTERM, -ABORT})


class Supervised(NamedTuple):
    """What a child gets from its supervisor.

    ``name`` is that of all that come after one another. ``predecessor`` says how the process before
    this one ended; None for the first. ``deaths`` is how many died lately: of what they had open,
    most likely.
    """

    memory: int
    name: str
    predecessor: str | None
    deaths: int = 0


def taken_over(environment: MutableMapping[str, str]) -> Supervised | None:
    """Give what the supervisor of this process passed on; None if it has none."""
    memory, name = environment.pop(MEMORY, None), environment.pop(NAME, "")
    predecessor = environment.pop(PREDECESSOR, None)
    deaths = int(environment.pop(DEATHS, "0"))
    return None if memory is None else Supervised(int(memory), name, predecessor, deaths)


def supervise() -> int:
    """Run this command again as a child, until this process is stopped; give the exit code.

    A request to stop is passed on as SIGTERM, an abort as ABORT. A first child that ends before its
    first heartbeat has said why, and is not replaced. One that does not end when asked to is killed
    after a minute. None outlives its supervisor.
    """
    with _memory() as memory, parent_pipe() as pipe:
        memory.truncate(MEMORY_SIZE)
        return _Supervisor(memory.fileno(), pipe).run()


class _Supervisor:
    def __init__(self, memory: int, pipe: int) -> None:
        self._memory = memory
        self._pipe = pipe
        self._name = str(uuid4())
        self._deaths = 0
        self._child: subprocess.Popen[bytes] | None = None
        self._shutdown = ShutdownSignals(
            lambda: self._pass_on(signal.SIGTERM), lambda: self._pass_on(ABORT)
        )

    def run(self) -> int:
        predecessor, pause = None, SHORTEST_PAUSE
        with self._shutdown:
            while True:
                began = time.monotonic()
                code = self._run_child(predecessor)
                if self._shutdown.requested.is_set():
                    return 0 if code in _ENDED_AS_ASKED else 1
                if not self._pulse():
                    return code if code > 0 else 1
                lived = time.monotonic() - began
                self._deaths = remaining(self._deaths, lived) + (code != REPLACE_ME)
                pause = min(2 * pause, LONGEST_PAUSE)
                if code == REPLACE_ME or lived > LIVED_WELL_SECONDS:
                    pause = SHORTEST_PAUSE
                predecessor = _how_it_ended(code)
                if self._shutdown.requested.wait(pause):
                    return 0

    def _run_child(self, predecessor: str | None) -> int:
        passed_on = {MEMORY: self._memory, NAME: self._name, PARENT_PIPE: self._pipe}
        if predecessor is not None:
            passed_on |= {PREDECESSOR: predecessor, DEATHS: self._deaths}
        child = self._child = subprocess.Popen(  # noqa: S603
            [sys.executable, *sys.orig_argv[1:]],
            env={**os.environ, **{name: str(value) for name, value in passed_on.items()}},
            pass_fds=[self._memory, self._pipe],
            # Out of the terminal's foreground group: Ctrl-C comes once, from here.
            process_group=0,
        )
        if self._shutdown.requested.is_set():
            child.terminate()
        ended = threading.Event()
        threading.Thread(target=_wait_for, args=(child, ended), daemon=True).start()
        first = pulse = self._pulse()
        ticks = stopping = 0
        while not ended.wait(TICK_SECONDS):
            # Counted in looks of our own: where we were halted too, no time has passed for us.
            ticks = ticks + 1 if self._pulse() == pulse != first else 0
            pulse = self._pulse()
            stopping += self._shutdown.requested.is_set()
            if ticks > MOST_TICKS_WITHOUT_PULSE or stopping > MOST_TICKS_TO_STOP:
                self._kill(child)
        return child.wait()

    def _kill(self, child: "subprocess.Popen[bytes]") -> None:
        """Kill a child that does not respond; first it writes the stacks of its threads."""
        child.send_signal(signal.SIGABRT)
        with suppress(subprocess.TimeoutExpired):
            child.wait(STACKS_SECONDS)
        child.kill()

    def _pass_on(self, number: signal.Signals) -> None:
        if self._child is not None:
            self._child.send_signal(number)

    def _pulse(self) -> int:
        pulse: int = _PULSE.unpack(os.pread(self._memory, _PULSE.size, 0))[0]
        return pulse


def _wait_for(child: "subprocess.Popen[bytes]", ended: threading.Event) -> None:
    child.wait()
    ended.set()


def _memory() -> IO[bytes]:
    # In memory where there is such a thing: the disk may be full, or read-only.
    create = getattr(os, "memfd_create", None)
    return tempfile.TemporaryFile() if create is None else os.fdopen(create("in-flight"), "r+b")


def _how_it_ended(code: int) -> str:
    if code == REPLACE_ME:
        return "was given up"
    if code >= 0:
        return f"exited with code {code}"
    return f"was ended by {signal.Signals(-code).name}"
