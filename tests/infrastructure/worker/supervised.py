"""Plays a command that is supervised, in a quick time, and as a child what its arguments say.

    python supervised.py FOLDER BEHAVIOUR…

The first child behaves as the first word says, the second as the second, and so on; each writes
what it knows of its predecessor into a file named after its turn. The last word is for all the
further ones. With `unforked` a child cannot be forked, and the next word is for the next try; with
`interrupted=2` it gets that signal before it has left its supervisor's group. Words such as
`one:live` are for a part of that name, which has turns of its own. The supervisor writes its
pauses; they are ten times as short, and those of more than three seconds do not end.
"""

import errno
import os
import re
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from kratos_sync.infrastructure.worker import child_processes, supervisor
from kratos_sync.infrastructure.worker.in_flight import InFlightDeliveries

supervisor.TICK_SECONDS = 0.05
supervisor.MOST_TICKS_WITHOUT_PULSE = 10
supervisor.MOST_TICKS_TO_STOP = 40
supervisor.STACKS_SECONDS = 0.3
supervisor.LIVED_WELL_SECONDS = 120.0
child_processes.GRACE_SECONDS = 0.3


def noting_pauses(next_pause: Callable[..., float]) -> Callable[..., float]:
    """Note what it returns; what is too long does not end."""

    def noting(before: float, *, is_well: bool) -> float:
        pause = next_pause(before, is_well=is_well)
        with (Path(sys.argv[1]) / "pauses").open("a") as file:
            file.write(f"{10 * pause:.1f}\n")
        return pause if pause <= 0.3 else 3_600.0

    return noting


supervisor.SHORTEST_PAUSE, supervisor.LONGEST_PAUSE = 0.01, 1.0
supervisor.next_pause = noting_pauses(supervisor.next_pause)


def forking(fork: Callable[[], int], behaviours: list[str]) -> Callable[[], int]:
    """Fork as the words say, whichever part they are for."""
    words = iter(behaviours)

    def played() -> int:
        behaviour, _, number = next(words, "").partition("=")
        if behaviour == "unforked":
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        pid = fork()
        if pid == 0 and behaviour == "interrupted":
            os.kill(os.getpid(), int(number))
        return pid

    return played


def child(given: supervisor.Supervised, folder: Path, behaviours: list[str]) -> None:
    """Behave as it is this child's turn to."""
    prefix = f"child-{given.part}-" if given.part else "child-"
    turn = len(list(folder.glob(f"{prefix}*")))
    behaviour, _, number = behaviours[min(turn, len(behaviours) - 1)].partition("=")
    in_flight = InFlightDeliveries(given.memory)
    received = threading.Event()
    if behaviour != "unready":
        for each in (signal.SIGTERM, supervisor.ABORT):
            signal.signal(each, lambda caught, _: receive(folder, caught, behaviour, received))
    if behaviour not in {"refuse", "unready"}:
        in_flight.beat()
    new = folder / f"new-{os.getpid()}"
    counts = ",".join(f"{reason}={number}" for reason, number in given.replacements.items())
    new.write_text(f"{os.getpid()} {given.deaths} {counts or 'none'} {given.predecessor}")
    new.rename(folder / f"{prefix}{turn}")
    if behaviour in {"exit", "refuse"}:
        os._exit(int(number))
    if behaviour == "signal":
        os.kill(os.getpid(), int(number))
    if behaviour == "hold":
        re.match(r"(a+)+$", "a" * 60 + "b")
    while not received.wait(0.01):
        if behaviour != "unready":
            in_flight.beat()


def receive(folder: Path, caught: int, behaviour: str, received: threading.Event) -> None:
    with (folder / "received").open("a") as file:
        file.write(f"{signal.Signals(caught).name}\n")
    if behaviour == "unstoppable":
        return
    if behaviour == "slow" and caught == signal.SIGTERM:
        return
    os._exit(0)


def main(folder: str, *behaviours: str) -> None:
    words = [word.rpartition(":") for word in behaviours]
    os.fork = forking(os.fork, [behaviour for _, _, behaviour in words])
    words = [word for word in words if word[-1] != "unforked"]
    given = supervisor.supervise(*dict.fromkeys(part for part, _, _ in words if part))
    child(given, Path(folder), [behaviour for part, _, behaviour in words if part == given.part])


if __name__ == "__main__":
    main(*sys.argv[1:])
