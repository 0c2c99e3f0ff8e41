"""The relay: leases what is due in the ledger, and sends pointers to it to the broker."""

import threading
from collections.abc import Mapping
from time import monotonic
from typing import Any

import dramatiq
import psycopg
import structlog
from sqlalchemy.exc import SQLAlchemyError

from application.consumer import Consumer
from application.pipeline.logging import where
from application.ports.event_bus import LedgerUnavailable
from application.ports.unit_of_work import ConcurrencyConflict
from infrastructure.bus import wire_format
from infrastructure.bus.pointer_broker import BrokerUnavailable, PointerBroker
from infrastructure.bus.window import BUSY_SECONDS, MOST_BATCHES, Window
from infrastructure.ledger.claims import Claim, PostgresClaims
from infrastructure.ledger.listener import WakeUpListener
from infrastructure.ledger.survey import Backlog

IDLE_SECONDS = 1.0
"""The longest between two looks at the ledger, whatever wakes us."""
TURN_SECONDS = 0.002
"""The shortest between two looks, however often we are woken."""
LONGEST_REFUSED_SECONDS = 30.0
"""The longest between two dispatches to a broker that answers and takes nothing."""
MOST_REFUSED = 10
MOST_WAITING = 2 * MOST_BATCHES
"""Messages in a consumer's queue beyond which nothing is sent: its workers are away or drowning."""

log = structlog.get_logger()


class Relay:
    """Moves what is due to the broker; as many as wanted may run, without a leader."""

    def __init__(
        self,
        claims: PostgresClaims,
        broker: PointerBroker,
        listener: WakeUpListener,
        consumers: Mapping[str, type[Consumer[Any]]],
    ) -> None:
        self._claims = claims
        self._broker = broker
        self._listener = listener
        self._consumers = consumers
        self._windows = {
            name: Window(kind.batch_size, claims.lease) for name, kind in consumers.items()
        }
        self._broker_away = False
        self._refused = 0

    def run(self, stopped: threading.Event) -> None:
        """Relay until stopped; come back by itself from a ledger or broker that was away."""
        while not stopped.is_set():
            began = monotonic()
            try:
                pause = self.turn()
            except LedgerUnavailable as error:
                log.warning("ledger_unavailable", reason=str(error))
                pause = IDLE_SECONDS
            except (ConcurrencyConflict, SQLAlchemyError, psycopg.Error) as error:
                # A lock that was not to be had, a statement that took too long: once more, later.
                log.warning("turn_abandoned", error=type(error).__name__, at=where(error))
                pause = IDLE_SECONDS
            except BrokerUnavailable as error:
                log.warning("broker_unavailable", error=str(error))
                # No event brings it back any sooner.
                stopped.wait(self._pause_without_broker())
                continue
            self._listener.wait(pause, stopped)
            stopped.wait(began + TURN_SECONDS - monotonic())
        self._listener.close()

    def _pause_without_broker(self) -> float:
        """A second; ever longer, while it answers well and then takes nothing."""
        if self._broker_away:
            return IDLE_SECONDS
        self._broker_away = True
        return min(IDLE_SECONDS * (1 << max(self._refused - 1, 0)), LONGEST_REFUSED_SECONDS)

    def turn(self) -> float:
        """Dispatch what is due; give the seconds until it is worth to look again.

        Raises LedgerUnavailable, ConcurrencyConflict, sqlalchemy.exc.DBAPIError or
        BrokerUnavailable; what was leased and could not be sent is given back then.
        """
        if self._broker_away:
            self._broker.ping()
            self._broker_away = False
        now = monotonic()
        # Counting what is under lease is what a look costs: where it is much, none is made early.
        wanted = [name for name, window in self._windows.items() if window.is_open(now)]
        if not wanted:
            return BUSY_SECONDS
        backlogs = self._claims.survey(wanted)
        pauses = [self._serve(consumer, backlog) for consumer, backlog in backlogs.items()]
        return min([*pauses, BUSY_SECONDS if len(wanted) < len(self._windows) else IDLE_SECONDS])

    def _serve(self, consumer: str, backlog: Backlog) -> float:
        if not (backlog.leased or backlog.is_due):
            return IDLE_SECONDS if backlog.due_in is None else backlog.due_in.total_seconds()
        window, now = self._windows[consumer], monotonic()
        if backlog.leased and (rest := window.rests(now)):
            return rest
        load = self._broker.load(consumer)
        if backlog.leased and load.unacknowledged == 0:
            self._end_lost_leases(consumer)
        if not backlog.is_due:
            return IDLE_SECONDS
        room = window.room(backlog.leased, now)
        if room and load.waiting <= MOST_WAITING and self._dispatch(consumer, backlog.leased, room):
            return BUSY_SECONDS
        return window.pause(backlog.leased, now)

    def _end_lost_leases(self, consumer: str) -> None:
        if lost := self._claims.end_lost_leases(consumer):
            log.warning("leases_lost", consumer=consumer, deliveries=lost)

    def _dispatch(self, consumer: str, leased: int, room: int) -> bool:
        """False if there was nothing to be had: what is due is held by who overstays a lease."""
        window, claim = self._windows[consumer], self._claims.claim(consumer, room)
        if claim.expired:
            window.leases_ran_out()
            log.warning("leases_ran_out", consumer=consumer, deliveries=claim.expired)
        if claim.deliveries:
            self._send(consumer, claim)
            window.dispatched(leased + len(claim.deliveries), monotonic())
        return bool(claim.deliveries)

    def _send(self, consumer: str, claim: Claim) -> None:
        messages = [
            dramatiq.Message[None](
                queue_name=consumer,
                actor_name=wire_format.ACTOR,
                args=(),
                kwargs=wire_format.write(consumer, event_ids),
                options={},
            )
            for event_ids in claim.batches(self._consumers[consumer].batch_size)
        ]
        try:
            self._broker.enqueue_many(messages)
        except BrokerUnavailable:
            self._claims.give_back(consumer, claim.event_ids)
            self._refused = min(self._refused + 1, MOST_REFUSED)
            raise
        self._refused = 0
        log.debug("dispatched", consumer=consumer, deliveries=len(claim.deliveries))
