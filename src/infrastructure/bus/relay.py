"""The relay: leases what is due in the ledger, and sends pointers to it to the broker."""

import threading
from collections.abc import Mapping
from time import monotonic
from typing import Any
from uuid import UUID

import dramatiq
import redis
import structlog
from sqlalchemy.exc import SQLAlchemyError

from application.consumer import Consumer
from application.pipeline.logging import where
from application.ports.event_bus import LedgerUnavailable
from application.ports.unit_of_work import ConcurrencyConflict
from infrastructure.bus import wire_format
from infrastructure.bus.broker import WakefulRedisBroker
from infrastructure.bus.window import MOST_BATCHES, Window
from infrastructure.ledger.claims import Backlog, PostgresClaims
from infrastructure.ledger.listener import WakeUpListener

IDLE_SECONDS = 1.0
"""The longest between two looks at the ledger, whatever wakes us."""
BUSY_SECONDS = 0.01
"""The shortest between two dispatches to a consumer that has work: so its batches fill."""
LONGEST_PAUSE_SECONDS = 0.2
"""The longest between two looks while something is due that there is no room for."""
MOST_WAITING = 2 * MOST_BATCHES
"""Messages in a consumer's queue beyond which nothing is sent: its workers are away or drowning."""

log = structlog.get_logger()


class Relay:
    """Moves what is due to the broker; as many as wanted may run, without a leader."""

    def __init__(
        self,
        claims: PostgresClaims,
        broker: WakefulRedisBroker,
        listener: WakeUpListener,
        consumers: Mapping[str, type[Consumer[Any]]],
    ) -> None:
        self._claims = claims
        self._broker = broker
        self._listener = listener
        self._consumers = consumers
        self._windows = {name: Window(kind.batch_size) for name, kind in consumers.items()}
        self._dispatched_at = dict.fromkeys(consumers, 0.0)
        self._pauses = dict.fromkeys(consumers, BUSY_SECONDS)
        self._leased = dict.fromkeys(consumers, 0)
        self._broker_away = False

    def run(self, stopped: threading.Event) -> None:
        """Relay until stopped; come back by itself from a ledger or broker that was away."""
        while not stopped.is_set():
            try:
                pause = self.turn()
            except LedgerUnavailable as error:
                log.warning("ledger_unavailable", reason=str(error))
                pause = IDLE_SECONDS
            except (ConcurrencyConflict, SQLAlchemyError) as error:
                # A lock that was not to be had, a statement that took too long: once more, later.
                log.warning("turn_abandoned", error=type(error).__name__, at=where(error))
                pause = IDLE_SECONDS
            except redis.RedisError as error:
                self._broker_away = True
                log.warning("broker_unavailable", error=type(error).__name__)
                pause = IDLE_SECONDS
            self._listener.wait(pause, stopped)
        self._listener.close()

    def turn(self) -> float:
        """Dispatch what is due; give the seconds until it is worth to look again.

        Raises LedgerUnavailable, ConcurrencyConflict, sqlalchemy.exc.DBAPIError or
        redis.RedisError; what was leased and could not be sent is given back then.
        """
        if self._broker_away:
            self._broker.client.ping()
            self._broker_away = False
        backlogs = self._claims.survey(list(self._consumers))
        pauses = [self._serve(consumer, backlog) for consumer, backlog in backlogs.items()]
        return min([*pauses, IDLE_SECONDS])

    def _serve(self, consumer: str, backlog: Backlog) -> float:
        if not (backlog.leased or backlog.is_due):
            return IDLE_SECONDS if backlog.due_in is None else backlog.due_in.total_seconds()
        since = monotonic() - self._dispatched_at[consumer]
        if backlog.leased and since < BUSY_SECONDS:
            return BUSY_SECONDS - since
        load = self._broker.load(consumer)
        if backlog.leased and not load.unacknowledged:
            self._end_lost_leases(consumer)
        if not backlog.is_due:
            return IDLE_SECONDS
        room = self._windows[consumer].room(backlog.leased)
        if room and load.waiting <= MOST_WAITING:
            self._dispatch(consumer, room)
        elif backlog.leased < self._leased[consumer]:
            self._pauses[consumer] = BUSY_SECONDS
        else:
            self._look_less_often(consumer)  # the workers are slow, or away
        self._leased[consumer] = backlog.leased
        return self._pauses[consumer]

    def _end_lost_leases(self, consumer: str) -> None:
        if lost := self._claims.end_lost_leases(consumer):
            log.warning("leases_lost", consumer=consumer, deliveries=lost)

    def _dispatch(self, consumer: str, room: int) -> None:
        claim = self._claims.claim(consumer, room)
        if claim.expired:
            self._windows[consumer].leases_ran_out()
            log.warning("leases_ran_out", consumer=consumer, deliveries=claim.expired)
        if claim.event_ids:
            self._send(consumer, claim.event_ids)
            self._dispatched_at[consumer] = monotonic()
            self._pauses[consumer] = BUSY_SECONDS
        else:
            # What is due is held by workers that overstay their lease.
            self._look_less_often(consumer)

    def _look_less_often(self, consumer: str) -> None:
        self._pauses[consumer] = min(2 * self._pauses[consumer], LONGEST_PAUSE_SECONDS)

    def _send(self, consumer: str, event_ids: list[UUID]) -> None:
        size = self._consumers[consumer].batch_size
        messages = [
            dramatiq.Message[None](
                queue_name=consumer,
                actor_name=wire_format.ACTOR,
                args=(),
                kwargs=wire_format.write(consumer, event_ids[start : start + size]),
                options={},
            )
            for start in range(0, len(event_ids), size)
        ]
        try:
            self._broker.enqueue_many(messages)
        except redis.RedisError:
            self._claims.give_back(consumer, event_ids)
            raise
        log.debug("dispatched", consumer=consumer, deliveries=len(event_ids))
