"""Supervises processes, each of which is replaced when it dies or hangs.

A child runs the same command as its supervisor. They share a little memory, where the child notes
its in-flight deliveries, so that its successor can record them as lost.
"""

import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import MutableMapping
from contextlib import ExitStack, suppress
from typing import IO, Final, NamedTuple
from uuid import uuid4

from kratos_sync.application.footprint import remaining
from kratos_sync.infrastructure.worker.child_processes import PARENT_PIPE, parent_pipe
from kratos_sync.infrastructure.worker.shutdown import ShutdownSignals

SUPERVISED: Final = "KRATOS_SYNC_SUPERVISED"
"""The environment variable with a child's `Supervised`, as JSON."""
MEMORY_SIZE: Final = 512 * 1024
ABORT: Final = signal.SIGUSR2
"""Aborts a child, which may get SIGTERM both from here and with its process group."""
REPLACE_ME: Final = 75
"""The exit code of a child that asks to be replaced."""
GIVEN_UP: Final = "was given up"
"""How such a child has ended."""

TICK_SECONDS: Final = 1.0
MOST_TICKS_WITHOUT_PULSE: Final = 30
MOST_TICKS_TO_STOP: Final = 60
STACKS_SECONDS: Final = 3.0
LIVED_WELL_SECONDS: Final = 10.0
SHORTEST_PAUSE, LONGEST_PAUSE = 0.1, 10.0
FIRST_SECONDS: Final = 5.0
POLL_SECONDS: Final = 0.05
_PULSE: Final = struct.Struct("=Q")
# By a signal itself: the child was still loading, and had nothing in flight.
_ENDED_AS_ASKED: Final = frozenset({0, REPLACE_ME, -signal.SIGTERM, -ABORT})


class Supervised(NamedTuple):
    """What a child gets from its supervisor.

    ``name`` is common to a child and its successors. ``predecessor`` says how the process before
    this one ended; None for the first. ``deaths`` is how many died lately, most likely of what they
    had open. ``replacements`` counts all that were replaced: those in which a consumer ``hung``,
    and those that were ``silent``, ``killed``, or ``crashed``. ``part`` says which part of the
    command the child is.
    """

    memory: int
    name: str
    predecessor: str | None
    deaths: int
    replacements: dict[str, int]
    part: str = ""

    @property
    def is_successor(self) -> bool:
        """Whether another process was before this one."""
        return self.predecessor is not None

    @property
    def predecessor_died(self) -> bool:
        """Whether that one ended without releasing what it held."""
        return self.predecessor not in {None, GIVEN_UP}


def taken_over(environment: MutableMapping[str, str]) -> Supervised | None:
    """Take what the supervisor of this process passed on; None if it has no supervisor."""
    passed_on = environment.pop(SUPERVISED, None)
    return None if passed_on is None else Supervised(*json.loads(passed_on))


def supervise(*parts: str) -> int:
    """Run this command again as a child for each part, until this process is stopped.

    A part is started when the one before it beats, or after some seconds: that one is wanted first.
    Returns the exit code. A request to stop is passed on as SIGTERM, an abort as ABORT; a child
    that has not ended after a minute is killed. A first child that ends before its first heartbeat
    is not replaced, and ends everything: it has said why.
    """
    supervisors: list[_Supervisor] = []

    def pass_on(number: signal.Signals) -> None:
        for each in supervisors:
            each.pass_on(number)

    shutdown = ShutdownSignals(lambda: pass_on(signal.SIGTERM), lambda: pass_on(ABORT))
    codes: list[int] = []

    def run(supervisor: _Supervisor) -> None:
        code = 1
        try:
            code = supervisor.run()
        finally:
            codes.append(code)
            if not shutdown.requested.is_set():
                shutdown.request()

    with parent_pipe() as pipe, ExitStack() as undo:
        for part in parts or ("",):
            memory = undo.enter_context(_memory())
            memory.truncate(MEMORY_SIZE)
            supervisors.append(_Supervisor(memory.fileno(), pipe, part, shutdown))
        with shutdown:
            threads = [threading.Thread(target=run, args=(each,)) for each in supervisors]
            for thread, before in zip(threads, [None, *supervisors], strict=False):
                if before is not None:
                    before.await_beat()
                thread.start()
            for thread in threads:
                while thread.is_alive():
                    # Handlers run here, also of a signal that woke another thread.
                    thread.join(TICK_SECONDS)
    return max(codes)


class _Supervisor:
    """Runs one child after the other."""

    def __init__(self, memory: int, pipe: int, part: str, shutdown: ShutdownSignals) -> None:
        self._memory = memory
        self._pipe = pipe
        self._part = part
        self._child: subprocess.Popen[bytes] | None = None
        self._is_silent = False
        self._shutdown = shutdown

    def await_beat(self) -> None:
        """Wait until a child has beaten, but not for long."""
        deadline = time.monotonic() + FIRST_SECONDS
        while not self._pulse() and time.monotonic() < deadline:
            if self._shutdown.requested.is_set():
                break
            time.sleep(POLL_SECONDS)

    def run(self) -> int:
        """Supervise until stopped; returns the exit code."""
        supervised = Supervised(self._memory, str(uuid4()), None, 0, {}, self._part)
        pause = SHORTEST_PAUSE
        while True:
            began = time.monotonic()
            code = self._run_child(supervised)
            if self._shutdown.requested.is_set():
                return 0 if code in _ENDED_AS_ASKED else 1
            if not self._pulse():
                return code if code > 0 else 1
            lived = time.monotonic() - began
            replaced = self._why_replaced(code)
            counts = supervised.replacements
            supervised = supervised._replace(
                predecessor=_how_it_ended(code),
                deaths=remaining(supervised.deaths, lived) + (code != REPLACE_ME),
                replacements={**counts, replaced: counts.get(replaced, 0) + 1},
            )
            pause = min(2 * pause, LONGEST_PAUSE)
            if code == REPLACE_ME or lived > LIVED_WELL_SECONDS:
                pause = SHORTEST_PAUSE
            if self._shutdown.requested.wait(pause):
                return 0

    def _run_child(self, supervised: Supervised) -> int:
        passed_on = {SUPERVISED: json.dumps(supervised), PARENT_PIPE: str(self._pipe)}
        child = self._child = subprocess.Popen(  # noqa: S603
            [sys.executable, *sys.orig_argv[1:]],
            env={**os.environ, **passed_on},
            pass_fds=[self._memory, self._pipe],
            # Out of the terminal's foreground group: Ctrl-C comes once, from here.
            process_group=0,
        )
        self._is_silent = False
        if self._shutdown.requested.is_set():
            child.terminate()
        ended = threading.Event()

        def wait_for_child() -> None:
            child.wait()
            ended.set()

        threading.Thread(target=wait_for_child, daemon=True).start()
        first = pulse = self._pulse()
        ticks = stopping = 0
        while not ended.wait(TICK_SECONDS):
            # Counted in our own ticks: while this process is halted, they do not pass.
            ticks = ticks + 1 if self._pulse() == pulse != first else 0
            pulse = self._pulse()
            stopping += self._shutdown.requested.is_set()
            self._is_silent = ticks > MOST_TICKS_WITHOUT_PULSE
            if self._is_silent or stopping > MOST_TICKS_TO_STOP:
                self._kill(child)
        return child.wait()

    def _why_replaced(self, code: int) -> str:
        if self._is_silent:
            return "silent"
        if code == REPLACE_ME:
            return "hung"
        return "killed" if code < 0 else "crashed"

    def _kill(self, child: "subprocess.Popen[bytes]") -> None:
        """Kill a child that does not respond; first it writes the stacks of its threads."""
        child.send_signal(signal.SIGABRT)
        with suppress(subprocess.TimeoutExpired):
            child.wait(STACKS_SECONDS)
        child.kill()

    def pass_on(self, number: signal.Signals) -> None:
        """Send a signal to the child, if there is one."""
        if self._child is not None:
            self._child.send_signal(number)

    def _pulse(self) -> int:
        pulse: int = _PULSE.unpack(os.pread(self._memory, _PULSE.size, 0))[0]
        return pulse


def _memory() -> IO[bytes]:
    # In memory where possible: the disk may be full, or read-only.
    create = getattr(os, "memfd_create", None)
    return tempfile.TemporaryFile() if create is None else os.fdopen(create("in-flight"), "r+b")


def _how_it_ended(code: int) -> str:
    if code == REPLACE_ME:
        return GIVEN_UP
    if code >= 0:
        return f"exited with code {code}"
    return f"was ended by {signal.Signals(-code).name}"
