"""Faults done to the service's own processes."""

import time
from signal import SIGCONT, SIGKILL, SIGSTOP
from typing import Final

from tests.faults.processes import ServiceProcess, signal_all
from tests.faults.schedule import Fault
from tests.faults.stage import Stage
from tests.waiting import until

HOUR: Final = 3600


def kill(stage: Stage, fault: Fault) -> None:
    """Kill those that do the work."""
    process = _running(stage, fault)
    assert signal_all(process.at_work(), SIGKILL)


def kill_supervisor(stage: Stage, fault: Fault) -> None:
    """Kill the first process of a worker, which starts the one that does the work."""
    process = _running(stage, fault)
    assert signal_all(process.tree()[:1], SIGKILL)


def stop(stage: Stage, fault: Fault) -> None:
    """Let a process stand still, supervisor and all."""
    tree = _running(stage, fault).tree()
    signal_all(tree, SIGSTOP)
    time.sleep(fault.seconds)
    signal_all(tree, SIGCONT)


def jump_clock(stage: Stage, fault: Fault) -> None:
    """Let a process' clock jump an hour ahead or back, and later to the right time again."""
    clock = stage.clock_of(fault.target)
    clock.write_text(str(HOUR if fault.number % 2 else -HOUR))
    time.sleep(fault.seconds)
    clock.write_text("0")


def _running(stage: Stage, fault: Fault) -> ServiceProcess:
    process = stage.processes[fault.target]
    until(process.is_alive)
    return process
