"""A replay at the command line: watched, and ended by whoever asks."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import structlog
from sqlalchemy.exc import SQLAlchemyError

from api.commands.lifeline import Interruptions, Stopped
from api.commands.process import why_unavailable
from api.commands.progress import progress
from application.ports.event_bus import LedgerUnavailable
from application.ports.replay import RecordedEvents, Stretch
from application.ports.unit_of_work import ConcurrencyConflict
from application.replay import ConsumerIsBehind, Replay

log = structlog.get_logger()


@dataclass(slots=True)
class Outcome:
    """What came of a replay; ``ended_early`` says why, and ``go_on_since`` where to go on."""

    replayed: int = 0
    left: int = 0
    ended_early: str | None = None
    go_on_since: datetime | None = None


def replayed(
    events: RecordedEvents,
    wake_relay: Callable[[], None],
    stretch: Stretch,
    rate: int,
    number: int,
) -> Outcome:
    """Replay a stretch of so many events; SIGINT and SIGTERM end it between two steps."""
    outcome, last = Outcome(), stretch.since
    with Interruptions() as asked, progress(f"Replay to {stretch.consumer}", number) as show:
        replay = Replay(events, wake_relay, pause=asked.pause)
        try:
            for step in replay.run(stretch, rate):
                outcome.replayed, outcome.left = step.replayed, step.left
                last = step.position.recorded_at
                show(step.replayed + step.left)
        except Stopped:
            outcome.ended_early = "Interrupted"
        except ConsumerIsBehind as error:
            outcome.ended_early = f"{error}: is a worker running?"
        except ConcurrencyConflict:
            outcome.ended_early = "PostgreSQL was too busy"
        except (LedgerUnavailable, SQLAlchemyError) as error:
            outcome.ended_early = why_unavailable(error)
    if outcome.ended_early:
        outcome.go_on_since = last
    if outcome.replayed:
        log.info("replayed", consumer=stretch.consumer, deliveries=outcome.replayed)
    return outcome
