"""Looking after a worker's process: it is replaced when it dies or hangs.

The child runs the very command that its supervisor was called with. Both share a little memory, in
which the child notes what it has in hand: the next one reads there what its predecessor died of.
"""

import os
import select
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import MutableMapping
from contextlib import ExitStack, suppress
from typing import IO, Final, NamedTuple
from uuid import uuid4

from kratos_sync.api.cli.lifeline import VARIABLE as LIFELINE
from kratos_sync.application.footprint import remaining

MEMORY: Final = "KRATOS_SYNC_HANDS"
NAME: Final = "KRATOS_SYNC_WORKER"
PREDECESSOR: Final = "KRATOS_SYNC_PREDECESSOR"
DEATHS: Final = "KRATOS_SYNC_DEATHS"
MEMORY_SIZE: Final = 32 * 1024
HURRY: Final = signal.SIGUSR2
REPLACE_ME: Final = 75
"""The exit code by which a child asks for another in its place."""

TICK_SECONDS: Final = 1.0
MOST_TICKS_WITHOUT_PULSE: Final = 30
MOST_TICKS_TO_STOP: Final = 60
LAST_WORDS_SECONDS: Final = 3.0
LIVED_WELL_SECONDS: Final = 10.0
SHORTEST_PAUSE, LONGEST_PAUSE = 0.1, 10.0
_PULSE: Final = struct.Struct("=Q")
# By the signals themselves: it was still being loaded, and had nothing in hand.
_ENDED_AS_ASKED: Final = frozenset({0, REPLACE_ME, -signal.SIGTERM, -HURRY})


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
    """What the supervisor of this process gave it; None if it has none."""
    memory, name = environment.pop(MEMORY, None), environment.pop(NAME, "")
    predecessor = environment.pop(PREDECESSOR, None)
    deaths = int(environment.pop(DEATHS, "0"))
    return None if memory is None else Supervised(int(memory), name, predecessor, deaths)


def supervise() -> int:
    """Run this command again as a child, for as long as nobody asks to stop; give the exit code.

    SIGTERM and SIGINT are handed on, and a second one as HURRY. A first child that ends before it
    has shown a pulse has said why, and is not replaced. One that does not end when asked to is
    killed after a minute. None outlives its supervisor.
    """
    with ExitStack() as undo:
        memory = undo.enter_context(_memory())
        memory.truncate(MEMORY_SIZE)
        lifeline, our_end = os.pipe()
        undo.callback(os.close, our_end)
        undo.callback(os.close, lifeline)
        return _Supervisor(memory.fileno(), lifeline).run()


class _Supervisor:
    def __init__(self, memory: int, lifeline: int) -> None:
        self._memory = memory
        self._lifeline = lifeline
        self._name = str(uuid4())
        self._asked = self._deaths = 0
        self._child: subprocess.Popen[bytes] | None = None
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._wake, False)

    def run(self) -> int:
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)
        predecessor, pause = None, SHORTEST_PAUSE
        while True:
            began = time.monotonic()
            code = self._run_child(predecessor)
            if self._is_asked():
                return 0 if code in _ENDED_AS_ASKED else 1
            if not self._pulse():
                return code if code > 0 else 1
            lived = time.monotonic() - began
            self._deaths = remaining(self._deaths, lived) + (code != REPLACE_ME)
            pause = min(2 * pause, LONGEST_PAUSE)
            if code == REPLACE_ME or lived > LIVED_WELL_SECONDS:
                pause = SHORTEST_PAUSE
            predecessor = "was given up" if code == REPLACE_ME else _told(code)
            self._wait(pause)
            if self._is_asked():
                return 0

    def _run_child(self, predecessor: str | None) -> int:
        environment = {
            **os.environ,
            MEMORY: str(self._memory),
            NAME: self._name,
            LIFELINE: str(self._lifeline),
        }
        if predecessor is not None:
            environment[PREDECESSOR] = predecessor
            environment[DEATHS] = str(self._deaths)
        self._child = subprocess.Popen(  # noqa: S603
            [sys.executable, *sys.orig_argv[1:]],
            env=environment,
            pass_fds=[self._memory, self._lifeline],
            # Out of the terminal's foreground group: Ctrl-C comes once, from here.
            process_group=0,
        )
        if self._is_asked():
            self._child.terminate()
        first = pulse = self._pulse()
        ticks = stopping = 0
        while (code := self._child.poll()) is None:
            self._wait(TICK_SECONDS)
            # Counted in looks of our own: where we were halted too, no time has passed for us.
            ticks = ticks + 1 if self._pulse() == pulse != first else 0
            pulse = self._pulse()
            stopping = stopping + 1 if self._is_asked() else 0
            if ticks > MOST_TICKS_WITHOUT_PULSE or stopping > MOST_TICKS_TO_STOP:
                self._kill(self._child)
        return code

    def _kill(self, child: "subprocess.Popen[bytes]") -> None:
        """End a child that does not even look after itself; it writes the stacks of its threads."""
        child.send_signal(signal.SIGABRT)
        with suppress(subprocess.TimeoutExpired):
            child.wait(LAST_WORDS_SECONDS)
        child.kill()

    def _ask(self, *_: object) -> None:
        self._asked += 1
        if self._child is not None:
            self._child.send_signal(signal.SIGTERM if self._asked == 1 else HURRY)

    def _is_asked(self) -> bool:
        return self._asked > 0

    def _wait(self, seconds: float) -> None:
        if select.select([self._woken], [], [], seconds)[0]:
            os.read(self._woken, 4096)

    def _pulse(self) -> int:
        pulse: int = _PULSE.unpack(os.pread(self._memory, _PULSE.size, 0))[0]
        return pulse


def _memory() -> IO[bytes]:
    # In memory where there is such a thing: the disk may be full, or read-only.
    create = getattr(os, "memfd_create", None)
    return tempfile.TemporaryFile() if create is None else os.fdopen(create("hands"), "r+b")


def _told(code: int) -> str:
    if code >= 0:
        return f"exited with code {code}"
    return f"was ended by {signal.Signals(-code).name}"
