"""Supervises processes, each of which is replaced when it dies or hangs.

A child is forked, so that it shares what its supervisor has imported. Both share a little memory,
where the child notes its in-flight deliveries, so that its successor can record them as lost.
"""

import faulthandler
import os
import select
import signal
import struct
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Final, NamedTuple, Self
from uuid import uuid4

from kratos_sync.application.footprint import remaining
from kratos_sync.infrastructure.worker.child_processes import (
    PARENT_PIPE,
    end_with_parent,
    parent_pipe,
)
from kratos_sync.infrastructure.worker.shutdown import ShutdownSignals

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
STDERR: Final = 2
_PULSE: Final = struct.Struct("=Q")
# By a signal itself: the child was still loading, and had nothing in flight.
_ENDED_AS_ASKED: Final = frozenset({0, REPLACE_ME, -signal.SIGTERM, -ABORT})
# Those that a child would treat as its supervisor does, until it has handlers of its own.
_HANDLED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, ABORT)


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


def supervise(*parts: str) -> Supervised:
    """Run a child for each part until this process is stopped; return in each child only.

    What is imported before is shared by the children; no thread and no connection may have been
    opened. A part is started when the one before it beats, or after some seconds: that one is
    wanted first. A request to stop is passed on as SIGTERM, an abort as ABORT; a child that has not
    ended after a minute is killed. A first child that ends before its first heartbeat is not
    replaced, and ends everything: it has said why. So does one that cannot be forked; a successor
    is forked later.
    Raises SystemExit in the supervisor.
    """
    with parent_pipe() as pipe, ExitStack() as undo, _Wakeups() as wakeups:
        with ShutdownSignals(wakeups.cause, wakeups.cause) as shutdown:
            family = []
            for index, name in enumerate(parts or ("",)):
                memory = undo.enter_context(_memory())
                family.append(_Part(name, memory, shutdown, monotonic() + index * FIRST_SECONDS))
            child = _child_of(family, shutdown, wakeups)
        # The child's own, for what was opened here is closed.
        parent, child = os.dup(pipe), child._replace(memory=os.dup(child.memory))
    os.setpgid(0, 0)  # Out of the terminal's foreground group: Ctrl-C comes once, from there.
    for number in (signal.SIGINT, signal.SIGHUP):
        # What came before that was for the supervisor: ignored for a moment, it is dropped.
        signal.signal(number, signal.signal(number, signal.SIG_IGN))
    faulthandler.enable()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)
    end_with_parent({PARENT_PIPE: str(parent)})
    if child.part:
        with suppress(OSError):  # for `ps` and `top`; Linux only
            Path("/proc/self/comm").write_text(f"kratos-{child.part}")
    return child


def _child_of(family: "list[_Part]", shutdown: ShutdownSignals, wakeups: "_Wakeups") -> Supervised:
    """Supervise; return in a child, with signals blocked. Raises SystemExit in the end."""
    while True:
        for part, before in zip(family, [None, *family], strict=False):
            part.follow()
            if part.is_due(before) and part.start():
                return part.supervised
        codes = [part.exit_code for part in family]
        if None not in codes:
            raise SystemExit(max(filter(None, codes), default=0))
        if any(code is not None for code in codes) and not shutdown.requested.is_set():
            shutdown.request()
        wakeups.wait(min(part.seconds_to_wait for part in family))


class _Part:
    """Has one child after the other, until its `exit_code` is known."""

    def __init__(self, name: str, memory: int, shutdown: ShutdownSignals, due: float) -> None:
        self.supervised = Supervised(memory, str(uuid4()), None, 0, {}, name)
        self.exit_code: int | None = None
        self._shutdown = shutdown
        self._child: _Child | None = None
        self._due = due
        self._pause = SHORTEST_PAUSE

    @property
    def pulse(self) -> int:
        pulse: int = _PULSE.unpack(os.pread(self.supervised.memory, _PULSE.size, 0))[0]
        return pulse

    @property
    def seconds_to_wait(self) -> float:
        """How long nothing has to be done here, if no signal comes."""
        if self._child is not None:
            return self._child.due - monotonic()
        if self.exit_code is not None:
            return TICK_SECONDS
        # The first one also waits for a heartbeat.
        return self._due - monotonic() if self.supervised.is_successor else POLL_SECONDS

    def is_due(self, before: "_Part | None") -> bool:
        """Whether a child is to be started; the first one when the part before beats."""
        if self._child is not None or self.exit_code is not None:
            return False
        is_wanted = before is not None and before.pulse > 0 and not self.supervised.is_successor
        return is_wanted or monotonic() >= self._due

    def start(self) -> bool:
        """Fork a child. Returns whether this process is it; signals are blocked there."""
        pulse, pid = self.pulse, None
        signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
        try:
            pid = os.fork()
        except OSError as error:  # too many processes, or too little memory
            self._not_forked(error)
        if pid == 0:
            return True
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)
        if pid is not None:
            self._child = _Child(pid, pulse)
        return False

    def _not_forked(self, error: OSError) -> None:
        """Say so, and try again later in place of a child that worked."""
        _say(f"No process could be forked: {error.strerror}.")
        if not self.supervised.is_successor:
            self.exit_code = 1
            return
        self._wait(is_well=False)

    def follow(self) -> None:
        """Pass requests on to the child, and see how it is or how it ended."""
        stopping, child = self._shutdown.requested.is_set(), self._child
        if child is None:
            if stopping and self.exit_code is None:
                self.exit_code = 0
            return
        if (code := child.exit_code()) is None:
            child.follow(self.pulse, stopping, self._shutdown.aborted.is_set())
            return
        self._child = None
        if stopping:
            self.exit_code = 0 if code in _ENDED_AS_ASKED else 1
        elif not self.pulse:
            self.exit_code = code if code > 0 else 1
            if code < 0:
                _say(f"A process {_how_it_ended(code)} while it was starting.")
        else:
            self._replace(child, code)

    def _replace(self, child: "_Child", code: int) -> None:
        lived = monotonic() - child.began
        before, reason = self.supervised, _why_replaced(code, child.is_silent)
        self.supervised = before._replace(
            predecessor=_how_it_ended(code),
            deaths=remaining(before.deaths, lived) + (code != REPLACE_ME),
            replacements={**before.replacements, reason: before.replacements.get(reason, 0) + 1},
        )
        self._wait(is_well=code == REPLACE_ME or lived > LIVED_WELL_SECONDS)

    def _wait(self, *, is_well: bool) -> None:
        self._pause = next_pause(self._pause, is_well=is_well)
        self._due = monotonic() + self._pause


class _Child:
    """A process, and for how long it has not beaten."""

    def __init__(self, pid: int, pulse: int) -> None:
        self.began = monotonic()
        self.due = self.began + TICK_SECONDS
        self.is_silent = False
        self._pid = pid
        self._first = self._pulse = pulse
        self._ticks = self._ticks_stopping = 0
        self._sent: set[signal.Signals] = set()

    def exit_code(self) -> int | None:
        """How it ended: minus the signal's number, if that was one; None while it runs."""
        pid, status = os.waitpid(self._pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None

    def follow(self, pulse: int, stopping: bool, aborting: bool) -> None:
        """Pass on what is asked; kill one that does not beat any more, or does not end."""
        for number, is_asked in ((signal.SIGTERM, stopping), (ABORT, aborting)):
            if is_asked:
                self._send(number)
        if monotonic() < self.due:
            return
        self.due = monotonic() + TICK_SECONDS
        if signal.SIGABRT in self._sent:
            self._send(signal.SIGKILL)
            return
        # Counted in our own ticks: while this process is halted, they do not pass.
        self._ticks = self._ticks + 1 if pulse == self._pulse != self._first else 0
        self._pulse = pulse
        self._ticks_stopping += stopping
        self.is_silent = self._ticks > MOST_TICKS_WITHOUT_PULSE
        if self.is_silent or self._ticks_stopping > MOST_TICKS_TO_STOP:
            self._send(signal.SIGABRT)  # it writes the stacks of its threads
            self.due = monotonic() + STACKS_SECONDS

    def _send(self, number: signal.Signals) -> None:
        """Send it once."""
        if number not in self._sent:
            self._sent.add(number)
            os.kill(self._pid, number)


class _Wakeups:
    """Ends a wait at any signal, whichever thread it came to: also when a child has ended."""

    def __enter__(self) -> Self:
        self._read_end, self._write_end = os.pipe()
        for end in (self._read_end, self._write_end):
            os.set_blocking(end, False)
        self._fd_before = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        self._handler_before = signal.signal(signal.SIGCHLD, lambda *_: None)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGCHLD, self._handler_before)
        signal.set_wakeup_fd(self._fd_before)
        for end in (self._read_end, self._write_end):
            os.close(end)

    def cause(self) -> None:
        """End the wait, or the next one."""
        with suppress(OSError):
            os.write(self._write_end, bytes(1))

    def wait(self, seconds: float) -> None:
        """Wait for a signal, for so long at most."""
        select.select([self._read_end], [], [], max(seconds, 0))
        with suppress(BlockingIOError):
            os.read(self._read_end, 4096)


@contextmanager
def _memory() -> Iterator[int]:
    # In memory where possible: the disk may be full, or read-only.
    create = getattr(os, "memfd_create", None)
    with (
        tempfile.TemporaryFile()
        if create is None
        else os.fdopen(create("in-flight"), "r+b") as file
    ):
        file.truncate(MEMORY_SIZE)
        yield file.fileno()


def next_pause(before: float, *, is_well: bool) -> float:
    """How many seconds to pause, and so many the last time: longer while nothing ends well."""
    return SHORTEST_PAUSE if is_well else min(2 * before, LONGEST_PAUSE)


def _say(sentence: str) -> None:
    with suppress(OSError):
        os.write(STDERR, f"{sentence}\n".encode())


def _why_replaced(code: int, is_silent: bool) -> str:
    if is_silent:
        return "silent"
    if code == REPLACE_ME:
        return "hung"
    return "killed" if code < 0 else "crashed"


def _how_it_ended(code: int) -> str:
    if code == REPLACE_ME:
        return GIVEN_UP
    if code >= 0:
        return f"exited with code {code}"
    return f"was ended by {signal.Signals(-code).name}"
