"""Faults done to the wires between our processes and the servers."""

import re
import time
from functools import partial
from typing import Final

from tests.faults.kinds import BROKER, RELAY
from tests.faults.schedule import Fault
from tests.faults.stage import Stage
from tests.faults.wires import ANYTHING, COMMIT, Lost, Wire
from tests.waiting import until

DELAY_SECONDS: Final = 0.03
LOST_AT_ONCE: Final = 3
"""Commits or answers, at most, that one fault loses."""
NEXT_SECONDS: Final = 30.0
"""How long the next commit or answer is waited for."""
GATHER_SECONDS: Final = 0.5


def cut(stage: Stage, fault: Fault) -> None:
    """Cut every connection."""
    assert until(_wire(stage, fault).cut)


def silence(stage: Stage, fault: Fault) -> None:
    """Carry nothing for a while; no connection ends."""
    wire = _wire(stage, fault)
    wire.stall()
    time.sleep(fault.seconds)
    wire.flow()


def slow_down(stage: Stage, fault: Fault) -> None:
    """Carry everything late and in small pieces for a while."""
    wire = _wire(stage, fault)
    wire.drip(DELAY_SECONDS)
    time.sleep(fault.seconds)
    wire.flow()


def _lose(what: Lost, after: "re.Pattern[bytes]", stage: Stage, fault: Fault) -> None:
    if fault.target == RELAY:
        after = ANYTHING  # each of its statements is a transaction
    wire = _wire(stage, fault)
    before = wire.lost
    wire.lose(what, after, LOST_AT_ONCE)
    try:
        until(lambda: wire.lost > before, NEXT_SECONDS)
        time.sleep(GATHER_SECONDS)
    finally:
        wire.flow()


lose_commit = partial(_lose, "request", COMMIT)
lose_answer_to_commit = partial(_lose, "answer", COMMIT)
lose_answer = partial(_lose, "answer", ANYTHING)


def _wire(stage: Stage, fault: Fault) -> Wire:
    return stage.broker_wire if fault.target == BROKER else stage.database_wires[fault.target]
