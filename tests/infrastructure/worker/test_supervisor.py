"""A worker process is supervised: replaced when it dies or hangs, ended when it should be."""

import errno
import itertools
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Self

import psutil
import pytest

from kratos_sync.infrastructure.worker.supervisor import FIRST_SECONDS, REPLACE_ME
from tests.infrastructure.worker import supervised
from tests.waiting import DEADLINE_SECONDS, lives, until


class Child(NamedTuple):
    """What a child wrote of itself."""

    pid: int
    deaths: int
    replacements: str
    predecessor: str


class Supervised:
    """A supervisor, and children that behave as a test wants."""

    def __init__(self, folder: Path, *behaviours: str, closing: str = "") -> None:
        self._folder = folder
        command = [sys.executable, str(Path(supervised.__file__)), str(folder), *behaviours]
        if closing:
            command = ["sh", "-c", f'exec "$@" {closing}', "sh", *command]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pids = [int(each.read_text().split()[0]) for each in self._folder.glob("child-*")]
        for pid in [self.process.pid, *filter(lives, pids)]:
            with_its_group = psutil.Process(pid) if lives(pid) else None
            if with_its_group is not None:
                with_its_group.kill()
        self.process.wait(DEADLINE_SECONDS)
        assert self.process.stderr is not None
        self.process.stderr.close()

    def child(self, turn: int, part: str = "") -> Child:
        """The child whose turn it is, as soon as there is one."""
        until(lambda: len(self.children_of(part)) > turn)
        return self.children_of(part)[turn]

    @property
    def children(self) -> list[Child]:
        return self.children_of("")

    def children_of(self, part: str) -> list[Child]:
        """The children so far that are this part."""
        found = []
        for turn in itertools.count():
            file = self._folder / f"child-{part}{'-' if part else ''}{turn}"
            if not file.exists():
                return found
            pid, deaths, replacements, predecessor = file.read_text().split(maxsplit=3)
            found.append(Child(int(pid), int(deaths), replacements, predecessor))
        raise AssertionError

    @property
    def received(self) -> list[str]:
        """The signals that children received."""
        file = self._folder / "received"
        return file.read_text().split() if file.exists() else []

    @property
    def pauses(self) -> list[float]:
        """The seconds that it paused between two children."""
        return list(map(float, (self._folder / "pauses").read_text().split()))

    def ask(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def ends_with(self) -> int:
        return self.process.wait(DEADLINE_SECONDS)

    def said(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where children write; none of them is left when a test ends."""
    yield tmp_path
    pids = [int(each.read_text().split()[0]) for each in tmp_path.glob("child-*")]
    until(lambda: not any(map(lives, pids)))


@pytest.mark.parametrize(
    ("end", "predecessor"),
    [
        ("exit=3", "exited with code 3"),
        ("exit=0", "exited with code 0"),
        (f"signal={signal.SIGKILL:d}", "was ended by SIGKILL"),
        (f"signal={signal.SIGSEGV:d}", "was ended by SIGSEGV"),
        (f"exit={REPLACE_ME}", "was given up"),
    ],
)
def test_a_child_that_ends_is_replaced_and_the_next_knows_how(
    folder: Path, end: str, predecessor: str
) -> None:
    with Supervised(folder, end, "live") as supervisor:
        assert supervisor.child(0).predecessor == "None"
        assert supervisor.child(1).predecessor == predecessor


def test_a_child_knows_how_many_died_before_it(folder: Path) -> None:
    with Supervised(folder, "exit=3", f"exit={REPLACE_ME}", "exit=3", "live") as supervisor:
        supervisor.child(3)
        assert [child.deaths for child in supervisor.children] == [0, 1, 1, 2]


@pytest.mark.parametrize(("end", "code"), [("refuse=3", 3), ("refuse=0", 1)])
def test_a_first_child_without_a_heartbeat_has_said_why_and_is_not_replaced(
    folder: Path, end: str, code: int
) -> None:
    with Supervised(folder, end, "live") as supervisor:
        assert supervisor.ends_with() == code
        assert len(supervisor.children) == 1


def test_a_first_child_that_is_killed_while_it_starts_is_named(folder: Path) -> None:
    with Supervised(folder, "unready") as supervisor:
        os.kill(supervisor.child(0).pid, signal.SIGKILL)

        assert supervisor.ends_with() == 1
        assert supervisor.said() == "A process was ended by SIGKILL while it was starting.\n"


def test_a_later_child_without_a_heartbeat_is_replaced(folder: Path) -> None:
    with Supervised(folder, "exit=1", "refuse=2", "live") as supervisor:
        assert supervisor.child(2).predecessor == "exited with code 2"


def test_a_child_that_holds_the_interpreter_is_ended_with_its_stacks_and_replaced(
    folder: Path,
) -> None:
    with Supervised(folder, "hold", "live") as supervisor:
        assert supervisor.child(1).predecessor == "was ended by SIGABRT"
        assert not lives(supervisor.child(0).pid)
        supervisor.ask()
        assert supervisor.ends_with() == 0
        assert re.search(
            r"Fatal Python error: Aborted\n.*\bin child\n", supervisor.said(), re.DOTALL
        )


def test_a_child_without_a_heartbeat_that_ignores_sigabrt_is_killed(folder: Path) -> None:
    with Supervised(folder, "live", "live") as supervisor:
        first = supervisor.child(0)
        os.kill(first.pid, signal.SIGSTOP)  # it reacts to nothing but SIGKILL

        assert supervisor.child(1).predecessor == "was ended by SIGKILL"


def test_replacements_are_counted_by_their_reason(folder: Path) -> None:
    ends = ["exit=3", f"signal={signal.SIGKILL:d}", f"exit={REPLACE_ME}", "exit=0", "live", "live"]
    with Supervised(folder, *ends) as supervisor:
        os.kill(supervisor.child(4).pid, signal.SIGSTOP)
        assert supervisor.child(0).replacements == "none"
        assert supervisor.child(5).replacements == "crashed=2,killed=1,hung=1,silent=1"


def test_a_request_to_stop_is_passed_on_to_its_child(folder: Path) -> None:
    with Supervised(folder, "live") as supervisor:
        supervisor.child(0)
        supervisor.ask()

        assert supervisor.ends_with() == 0
        assert (supervisor.received, len(supervisor.children)) == (["SIGTERM"], 1)


def test_ctrl_c_is_a_request_to_stop_too(folder: Path) -> None:
    with Supervised(folder, "live") as supervisor:
        supervisor.child(0)
        supervisor.process.send_signal(signal.SIGINT)

        assert supervisor.ends_with() == 0
        assert supervisor.received == ["SIGTERM"]


def test_a_second_request_aborts_its_child(folder: Path) -> None:
    with Supervised(folder, "slow") as supervisor:
        supervisor.child(0)
        supervisor.ask()
        until(lambda: supervisor.received == ["SIGTERM"])
        supervisor.ask()

        assert supervisor.ends_with() == 0
        assert supervisor.received == ["SIGTERM", "SIGUSR2"]


def test_a_child_that_is_still_being_loaded_can_be_stopped(folder: Path) -> None:
    with Supervised(folder, "unready") as supervisor:
        supervisor.child(0)
        supervisor.ask()

        assert supervisor.ends_with() == 0


def test_a_child_that_does_not_end_when_asked_to_is_killed_in_the_end(folder: Path) -> None:
    with Supervised(folder, "unstoppable") as supervisor:
        child = supervisor.child(0)
        supervisor.ask()

        assert supervisor.ends_with() == 1
        assert not lives(child.pid)


def test_a_successor_that_cannot_be_forked_is_forked_later(folder: Path) -> None:
    with Supervised(folder, "exit=3", "unforked", "unforked", "live") as supervisor:
        assert supervisor.child(1).predecessor == "exited with code 3"
        supervisor.ask()

        assert supervisor.ends_with() == 0
        sentence = f"No process could be forked: {os.strerror(errno.EAGAIN)}.\n"
        assert supervisor.said() == 2 * sentence


def test_a_part_that_cannot_be_forked_at_first_ends_the_other_and_says_why(folder: Path) -> None:
    with Supervised(folder, "one:live", "two:unforked", "two:live") as supervisor:
        assert supervisor.ends_with() == 1
        assert supervisor.received == ["SIGTERM"]
        assert "No process could be forked" in supervisor.said()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_what_a_terminal_sends_while_a_child_is_forked_is_for_the_supervisor_alone(
    folder: Path, number: signal.Signals
) -> None:
    with Supervised(folder, f"interrupted={number:d}") as supervisor:
        supervisor.child(0)
        supervisor.ask()

        assert supervisor.ends_with() == 0
        assert supervisor.received == ["SIGTERM"]


def test_a_command_whose_output_is_closed_is_supervised_too(folder: Path) -> None:
    with Supervised(folder, "live", closing="1>&-") as supervisor:
        supervisor.child(0)
        supervisor.ask()

        assert supervisor.ends_with() == 0


def test_a_request_between_two_children_starts_no_other(folder: Path) -> None:
    with Supervised(folder, *["exit=1"] * 5, "live") as supervisor:
        last = supervisor.child(4)
        until(lambda: not psutil.pid_exists(last.pid))  # dead, and known to be
        supervisor.ask()  # the pause does not end by itself

        assert supervisor.ends_with() == 0
        assert len(supervisor.children) == 5


def test_its_child_does_not_outlive_it(folder: Path) -> None:
    with Supervised(folder, "unstoppable") as supervisor:
        child = supervisor.child(0)
        supervisor.process.kill()

        until(lambda: not lives(child.pid))


def test_many_quick_deaths_have_growing_pauses_between_them(folder: Path) -> None:
    with Supervised(folder, "exit=1", "exit=1", "exit=1", "exit=1", "live") as supervisor:
        supervisor.child(4)
        assert supervisor.pauses == [0.2, 0.4, 0.8, 1.6]


def test_a_child_that_asks_to_be_replaced_is_replaced_at_once(folder: Path) -> None:
    ends = [f"exit={REPLACE_ME}"] * 5
    with Supervised(folder, *ends, "live") as supervisor:
        supervisor.child(5)
        assert supervisor.pauses == [0.1] * 5


def test_a_machine_that_was_halted_costs_no_child_its_life(folder: Path) -> None:
    with Supervised(folder, "live", "live") as supervisor:
        child = supervisor.child(0)
        for pid in (supervisor.process.pid, child.pid):
            os.kill(pid, signal.SIGSTOP)
        going_on = time.monotonic() + 1.5  # three times what it may be without a pulse
        until(lambda: time.monotonic() > going_on)
        for pid in (supervisor.process.pid, child.pid):
            os.kill(pid, signal.SIGCONT)

        supervisor.ask()
        assert supervisor.ends_with() == 0
        assert (supervisor.received, len(supervisor.children)) == (["SIGTERM"], 1)


def test_a_part_that_dies_is_replaced_and_the_other_lives_on(folder: Path) -> None:
    with Supervised(folder, "one:live", "two:exit=3", "two:live") as supervisor:
        one = supervisor.child(0, "one")
        assert supervisor.child(1, "two").predecessor == "exited with code 3"
        assert lives(one.pid)

        supervisor.ask()
        assert supervisor.ends_with() == 0
        assert supervisor.received == ["SIGTERM"] * 2


def test_a_part_that_hangs_is_replaced_and_the_other_lives_on(folder: Path) -> None:
    with Supervised(folder, "one:live", "two:hold", "two:live") as supervisor:
        one = supervisor.child(0, "one")
        assert supervisor.child(1, "two").predecessor == "was ended by SIGABRT"
        assert lives(one.pid)
        assert len(supervisor.children_of("one")) == 1


def test_a_part_that_cannot_start_ends_the_other_and_says_why(folder: Path) -> None:
    with Supervised(folder, "one:live", "two:refuse=2", "two:live") as supervisor:
        assert supervisor.ends_with() == 2
        assert len(supervisor.children_of("two")) == 1
    assert not lives(supervisor.child(0, "one").pid)


def test_a_second_request_aborts_every_part(folder: Path) -> None:
    with Supervised(folder, "one:slow", "two:slow") as supervisor:
        for part in ("one", "two"):
            supervisor.child(0, part)
        supervisor.ask()
        until(lambda: supervisor.received == ["SIGTERM"] * 2)
        supervisor.ask()

        assert supervisor.ends_with() == 0
        assert sorted(supervisor.received) == ["SIGTERM"] * 2 + ["SIGUSR2"] * 2


def test_no_part_outlives_the_supervisor(folder: Path) -> None:
    with Supervised(folder, "one:unstoppable", "two:live") as supervisor:
        pids = [supervisor.child(0, part).pid for part in ("one", "two")]
        supervisor.process.kill()

        until(lambda: not any(map(lives, pids)))


def test_a_part_waits_for_the_first_beat_of_the_one_before_but_not_for_long(folder: Path) -> None:
    with Supervised(folder, "one:unready", "two:live") as supervisor:
        supervisor.child(0, "one")
        began = time.monotonic()
        supervisor.child(0, "two")
        assert time.monotonic() - began > 0.5 * FIRST_SECONDS

        supervisor.ask()
        assert supervisor.ends_with() == 0
