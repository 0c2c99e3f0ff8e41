"""The relay: leases what is due in the ledger, and sends pointers to it to the broker."""

import threading
from collections.abc import Mapping
from datetime import timedelta
from time import monotonic
from typing import Any, Final

import dramatiq
import psycopg
import structlog
from sqlalchemy.exc import SQLAlchemyError

from kratos_sync.application.consumer import Consumer
from kratos_sync.application.pipeline.logging import where
from kratos_sync.application.ports.event_bus import LedgerUnavailable
from kratos_sync.application.ports.unit_of_work import ConcurrencyConflict
from kratos_sync.infrastructure.bus import wire_format
from kratos_sync.infrastructure.bus.broker import BrokerUnavailable, PointerBroker
from kratos_sync.infrastructure.ledger.backlog import Backlog
from kratos_sync.infrastructure.ledger.claims import Claim, PostgresClaims
from kratos_sync.infrastructure.ledger.notifications import WakeUpListener

FIRST_BATCHES: Final = 4
MOST_BATCHES: Final = 100
QUICK_PART_OF_LEASE: Final = 1 / 6
BUSY_SECONDS: Final = 0.01
"""The shortest between two dispatches to a consumer that has work: so its batches fill."""
LONGEST_PAUSE_SECONDS: Final = 0.2
"""The longest between two looks while something is due that there is no room for."""


class Window:
    """The most deliveries of one consumer that may be under lease.

    It doubles while the workers empty half of it in a sixth of a lease, so that twice as much will
    be finished in two thirds of one; and it shrinks when leases ran out before they got to it. So a
    backlog waits in the ledger, not in Redis. It is filled up when it is half empty: large claims
    are cheap, and in them what concerns one identity can share a batch.

    Times are a monotonic clock's seconds; ``leased`` is how many deliveries are under lease.
    """

    def __init__(self, batch_size: int, lease: timedelta) -> None:
        self._batch_size = batch_size
        self._quick = lease.total_seconds() * QUICK_PART_OF_LEASE
        self.size = FIRST_BATCHES * batch_size
        self._filled_at = 0.0
        self._filled = 0
        self._in_vain = 0
        self._closed_until = 0.0

    def is_open(self, now: float) -> bool:
        """Whether it may be worth to look how many are under lease; see ``pause``."""
        return now >= self._closed_until

    def room(self, leased: int, now: float) -> int:
        """How many more may be dispatched while more are due."""
        half_empty = leased <= self.size // 2
        if half_empty and self._filled >= self.size and now - self._filled_at < self._quick:
            self.size = min(2 * self.size, MOST_BATCHES * self._batch_size)
        return self.size - leased if half_empty else 0

    def dispatched(self, leased: int, now: float) -> None:
        """Take note of a dispatch, after which so many are under lease."""
        self._filled, self._filled_at, self._in_vain = leased, now, 0

    def leases_ran_out(self) -> None:
        """Dispatch less from now on."""
        self.size = max(self.size // 4, self._batch_size)

    def rests(self, now: float) -> float:
        """For how many seconds nothing more is dispatched while something is under lease."""
        return max(self._filled_at + BUSY_SECONDS - now, 0.0)

    def pause(self, leased: int, now: float) -> float:
        """In how many seconds it is worth to look again: when it will be half empty.

        Ever later, up to a bound, while the workers finish nothing.
        """
        finished, seconds = self._filled - leased, now - self._filled_at
        if finished > 0 and leased > self.size // 2:
            self._in_vain = 0
            due = seconds * (leased - self.size // 2) / finished
        else:
            self._in_vain += 1
            due = BUSY_SECONDS * 2 ** min(self._in_vain, 10)
        pause = min(max(due, BUSY_SECONDS), LONGEST_PAUSE_SECONDS)
        self._closed_until = now + pause
        return pause


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
            self._claims.release(consumer, claim.event_ids)
            self._refused = min(self._refused + 1, MOST_REFUSED)
            raise
        self._refused = 0
        log.debug("dispatched", consumer=consumer, deliveries=len(claim.deliveries))
