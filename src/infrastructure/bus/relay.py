"""The relay: leases due deliveries in the ledger, and sends pointers to them to the broker."""

import threading
from datetime import timedelta
from time import monotonic
from typing import Final

import psycopg
import structlog
from sqlalchemy.exc import SQLAlchemyError

from kratos_sync.application.application import Subscriptions
from kratos_sync.application.errors import summary
from kratos_sync.application.grouping import message_size
from kratos_sync.application.ports.event_bus import LedgerUnavailable
from kratos_sync.application.ports.policies import ConsumerPolicy, events_per_second
from kratos_sync.application.ports.unit_of_work import ConcurrencyConflict
from kratos_sync.infrastructure.bus import wire_format
from kratos_sync.infrastructure.bus.broker import BrokerUnavailable, PointerBroker
from kratos_sync.infrastructure.ledger.backlog import Backlog
from kratos_sync.infrastructure.ledger.claims import Claim, PostgresClaims
from kratos_sync.infrastructure.ledger.notifications import WakeUpListener
from kratos_sync.infrastructure.ledger.policies import KnownPolicies, PostgresConsumerPolicies
from kratos_sync.infrastructure.observability.observer import UNOBSERVED, Observer

FIRST_BATCHES: Final = 4
MOST_BATCHES: Final = 100
QUICK_PART_OF_LEASE: Final = 1 / 6
BUSY_SECONDS: Final = 0.01
"""The shortest time between two dispatches to a busy consumer: so its batches fill."""
LONGEST_PAUSE_SECONDS: Final = 0.2
"""The longest time between two turns while due deliveries have no room."""
IDLE_SECONDS = 1.0
"""The longest time between two turns,"""
TURN_SECONDS = 0.002
"""and the shortest, however often the relay is woken."""
LONGEST_REFUSED_SECONDS = 30.0
"""The longest time between two dispatches to a broker that answers and accepts nothing."""
REST_SECONDS = 5.0
"""A longer wait is made of such pieces, so that it is seen that the relay waits and works."""
MOST_REFUSED = 10
IN_ORDER_AT_ONCE: Final = 1_000
"""The most deliveries of an ordered consumer that one claim looks at: a worker waits for it."""
CLAIMS_IN_ORDER: Final = 8
"""The most claims for one dispatch to an ordered consumer."""
MOST_WAITING = 2 * MOST_BATCHES
"""Nothing is sent to a consumer with more messages in its queue: its workers are away or slow."""

LOOP: Final = "relay"

log = structlog.get_logger()


class Window:
    """The most deliveries of one consumer that may be under lease.

    It doubles while workers empty half of it in a sixth of a lease, and shrinks when leases run out
    before they are processed: so a backlog waits in the ledger and not in the broker. It is filled
    when it is half empty: large claims are cheap, and keep deliveries about one identity together.

    Times are in seconds of a monotonic clock; ``leased`` is the number of deliveries under lease.
    """

    def __init__(self, batch_size: int, lease: timedelta, message_size: int | None = None) -> None:
        """A message has at most ``message_size`` deliveries, ``batch_size`` if not given."""
        self._batch_size = batch_size
        self._most = MOST_BATCHES * (message_size or batch_size)
        self._quick = lease.total_seconds() * QUICK_PART_OF_LEASE
        self.size = FIRST_BATCHES * batch_size
        self._filled_at = 0.0
        self._filled = 0
        self._in_vain = 0
        self._closed_until = 0.0

    def is_open(self, now: float) -> bool:
        """Whether the last ``pause`` is over."""
        return now >= self._closed_until

    def room(self, leased: int, now: float) -> int:
        """How many more may be dispatched."""
        half_empty = leased <= self.size // 2
        if half_empty and self._filled >= self.size and now - self._filled_at < self._quick:
            self.size = min(2 * self.size, self._most)
        return self.size - leased if half_empty else 0

    def dispatched(self, leased: int, now: float) -> None:
        """Note a dispatch, after which so many are under lease."""
        self._filled, self._filled_at, self._in_vain = leased, now, 0

    def leases_ran_out(self) -> None:
        """Shrink."""
        self.size = max(self.size // 4, self._batch_size)

    def rests(self, now: float) -> float:
        """The seconds until the next dispatch to a busy consumer."""
        return max(self._filled_at + BUSY_SECONDS - now, 0.0)

    def pause(self, leased: int, now: float) -> float:
        """Close for as long as workers probably need to empty half of it; returns the seconds.

        The pause grows, up to a bound, while they finish nothing.
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


class Relay:
    """Dispatches due deliveries; any number of relays may run, without a leader."""

    def __init__(
        self,
        claims: PostgresClaims,
        broker: PointerBroker,
        listener: WakeUpListener,
        subscriptions: Subscriptions,
        policies: PostgresConsumerPolicies,
        *,
        observer: Observer = UNOBSERVED,
    ) -> None:
        self._observer = observer
        self._claims = claims
        self._broker = broker
        self._listener = listener
        self._consumers = consumers = subscriptions.consumers
        self._windows = {
            name: Window(kind.batch_size, claims.lease, message_size(kind))
            for name, kind in consumers.items()
        }
        self._policies = policies
        self._known_policies = KnownPolicies(policies)
        self._broker_away = False
        self._refused = 0

    def run(self, stopped: threading.Event) -> None:
        """Relay until stopped; while the ledger or the broker is away, retry."""
        while not stopped.is_set():
            began = monotonic()
            self._observer.turned(LOOP)
            try:
                pause = self.turn()
            except LedgerUnavailable as error:
                self._observer.ledger_unavailable()
                log.warning("ledger_unavailable", reason=str(error))
                pause = IDLE_SECONDS
            except (ConcurrencyConflict, SQLAlchemyError, psycopg.Error) as error:
                # Such as a lock that was not free, or a statement that took too long.
                log.warning("turn_abandoned", **summary(error))
                pause = IDLE_SECONDS
            except BrokerUnavailable as error:
                self._observer.broker_unavailable()
                log.warning("broker_unavailable", error=str(error))
                self._rest(self._pause_without_broker(), stopped)
                continue
            self._listener.wait(pause, stopped)
            stopped.wait(began + TURN_SECONDS - monotonic())
        self._listener.close()

    def _rest(self, seconds: float, stopped: threading.Event) -> None:
        until = monotonic() + seconds
        while (left := until - monotonic()) > 0 and not stopped.wait(min(left, REST_SECONDS)):
            self._observer.turned(LOOP)

    def _pause_without_broker(self) -> float:
        """A second; increasing while the broker answers pings and refuses messages."""
        if self._broker_away:
            return IDLE_SECONDS
        self._broker_away = True
        return min(IDLE_SECONDS * (1 << max(self._refused - 1, 0)), LONGEST_REFUSED_SECONDS)

    def turn(self) -> float:
        """Dispatch what is due; returns the seconds until the next turn.

        Raises LedgerUnavailable, ConcurrencyConflict, sqlalchemy.exc.DBAPIError or
        BrokerUnavailable: then what was leased and could not be sent is released.
        """
        if self._broker_away:
            self._broker.ping()
            self._broker_away = False
        self._known_policies.refresh()
        now = monotonic()
        # Counting what is under lease costs most: it is not done before a window may have room.
        wanted = [name for name, window in self._windows.items() if window.is_open(now)]
        if not wanted:
            return BUSY_SECONDS
        backlogs = self._claims.survey(wanted)
        pauses = [self._serve(consumer, backlog) for consumer, backlog in backlogs.items()]
        return min([*pauses, BUSY_SECONDS if len(wanted) < len(self._windows) else IDLE_SECONDS])

    def _serve(self, consumer: str, backlog: Backlog) -> float:
        self._observer.turned(LOOP)  # however many consumers, each of which may take its time
        policy = self._known_policies.of(consumer).of(self._consumers[consumer])
        if policy.paused_at is not None:
            return IDLE_SECONDS
        if not (backlog.leased or backlog.is_due):
            return IDLE_SECONDS if backlog.due_in is None else backlog.due_in.total_seconds()
        if backlog.leased and (rest := self._windows[consumer].rests(monotonic())):
            return rest
        load = self._broker.load(consumer)
        if backlog.leased and load.unacknowledged == 0:
            self._end_lost_leases(consumer)
        if not backlog.is_due:
            return IDLE_SECONDS
        return self._fill(consumer, policy, backlog.leased, load.waiting)

    def _fill(self, consumer: str, policy: ConsumerPolicy, leased: int, waiting: int) -> float:
        """Dispatch what window and policy have room for; returns the seconds until the next time.

        ``leased`` deliveries are under lease, ``waiting`` messages in the queue.
        """
        window, now = self._windows[consumer], monotonic()
        room, batch_size = window.room(leased, now), message_size(self._consumers[consumer])
        if policy.concurrency is not None:
            room, batch_size = min(room, policy.concurrency - leased), 1
        if room <= 0 or waiting > MOST_WAITING:
            return window.pause(leased, now)
        if policy.rate is None:
            sent = self._dispatch(consumer, policy, leased, room, batch_size)
            return BUSY_SECONDS if sent else window.pause(leased, now)
        per_second = events_per_second(policy.rate)
        allowed = self._policies.take(consumer, per_second, room)
        sent = self._dispatch(consumer, policy, leased, allowed, batch_size) if allowed else 0
        if sent < allowed:
            self._policies.return_tokens(consumer, allowed - sent)
        return min(max(1 / per_second, BUSY_SECONDS), IDLE_SECONDS)

    def _end_lost_leases(self, consumer: str) -> None:
        if lost := self._claims.end_lost_leases(consumer):
            self._observer.leases_expired(consumer, lost)
            log.warning("leases_lost", consumer=consumer, deliveries=lost)

    def _dispatch(
        self, consumer: str, policy: ConsumerPolicy, leased: int, room: int, batch_size: int
    ) -> int:
        """Return how many; 0 if workers with expired leases hold what is due."""
        window, kind = self._windows[consumer], self._consumers[consumer]
        sent = 0
        # In order most of what a claim looks at may have to wait: the next one fills the room.
        for _ in range(CLAIMS_IN_ORDER if kind.ordered else 1):
            claim = self._claims.claim(
                consumer,
                min(room - sent, IN_ORDER_AT_ONCE) if kind.ordered else room,
                ordered=kind.ordered,
                skips_dead_letters=kind.skips_dead_letters,
                most_leased=policy.concurrency,
            )
            if claim.expired:
                window.leases_ran_out()
                self._observer.leases_expired(consumer, claim.expired)
                log.warning("leases_ran_out", consumer=consumer, deliveries=claim.expired)
            if claim.deliveries:
                self._send(consumer, claim, batch_size)
                sent += len(claim.deliveries)
                window.dispatched(leased + sent, monotonic())
            if not claim.set_back or sent == room:
                break
        return sent

    def _send(self, consumer: str, claim: Claim, batch_size: int) -> None:
        messages = wire_format.messages(consumer, claim.batches(batch_size))
        try:
            self._broker.enqueue_many(messages)
        except BrokerUnavailable:
            self._claims.release(consumer, claim.event_ids)
            self._refused = min(self._refused + 1, MOST_REFUSED)
            raise
        self._refused = 0
        self._observer.dispatched(consumer, len(claim.deliveries))
        log.debug("dispatched", consumer=consumer, deliveries=len(claim.deliveries))
