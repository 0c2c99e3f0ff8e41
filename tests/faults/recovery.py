"""How soon after a fault all is well again."""

import time
from typing import Any, Final

from tests.faults.kratos import Call, Kratos
from tests.faults.outside import Outside

LOOK_SECONDS: Final = 0.1
MOST_SECONDS: Final = 90.0
"""What has not recovered by then has not recovered."""
EFFECTS_OF_A_CALL: Final = 3
EFFECTS: Final = """
    SELECT count(*) AS effects FROM fault_effects
    WHERE event_id = (SELECT id FROM kratos_sync.events WHERE left(dedupe_key, 44) = %s)
"""
BACKLOG: Final = """
    SELECT count(*) AS pending FROM kratos_sync.deliveries
    WHERE failed_at IS NULL AND owed_at <= to_timestamp(%s)
"""


def seconds_to_recover(kratos: Kratos, outside: Outside, most_seconds: float) -> float | None:
    """Wait, from the end of a fault on, until all is well; None if that is not to be.

    All is well when a call sent now was answered and every consumer has consumed it, no delivery
    recorded before is pending, and no call sent before waits for its answer.
    """
    ended, ended_at = time.monotonic(), time.time()
    probe = kratos.call()
    while (seconds := time.monotonic() - ended) < most_seconds:
        if probe.done() and not probe.result().is_accepted:
            probe = kratos.call()
        if (
            probe.done()
            and not kratos.is_waited_for(before=ended_at)
            and _is_consumed(outside, probe.result())
            and _is(outside.ask(BACKLOG, ended_at), 0)
        ):
            return seconds
        time.sleep(LOOK_SECONDS)
    return None


def _is_consumed(outside: Outside, call: Call) -> bool:
    return _is(outside.ask(EFFECTS, f"webhook:{call.trigger}"), EFFECTS_OF_A_CALL)


def _is(rows: list[dict[str, Any]] | None, number: int) -> bool:
    return rows is not None and next(iter(rows[0].values())) == number
