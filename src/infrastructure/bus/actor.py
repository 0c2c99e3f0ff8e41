"""The one actor: what a worker does with a message."""

import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import dramatiq
import structlog

from kratos_sync.application.application import Subscriptions
from kratos_sync.application.consumer import Consumer
from kratos_sync.application.errors import summary
from kratos_sync.application.footprint import OpenBatches
from kratos_sync.application.grouping import EventTimes
from kratos_sync.application.pipeline import Batch, Deliver, Result, deliver
from kratos_sync.application.ports.dead_letters import Failures
from kratos_sync.application.ports.event_bus import LedgerUnavailable
from kratos_sync.application.ports.unit_of_work import UnitOfWork
from kratos_sync.infrastructure.bus import wire_format
from kratos_sync.infrastructure.bus.broker import BrokerUnavailable
from kratos_sync.infrastructure.ledger.policies import Pauses
from kratos_sync.infrastructure.observability.observer import UNOBSERVED, Observer
from kratos_sync.infrastructure.worker.watchdog import Watchdog

if TYPE_CHECKING:
    from kratos_sync.infrastructure.bus.broker import DramatiqBroker

PAUSE_SECONDS: Final = 1.0
"""The pause between two attempts while the ledger is away."""

log = structlog.get_logger()


class Actor:
    """What a worker does with a message: it delivers the events that the message points to.

    While the ledger is away a batch is retried, for the `ledger_timeout` or until `stopped`. What
    comes for a paused consumer is released. Of a message that takes too long for one commit the
    rest is sent again. A message is acknowledged whatever happens: a delivery that was not settled
    is still in the ledger, and due again when its lease runs out.
    """

    def __init__(
        self,
        broker: "DramatiqBroker",
        subscriptions: Subscriptions,
        unit_of_work: Callable[[], UnitOfWork],
        failures: Failures,
        watchdog: Watchdog,
        *,
        ledger_timeout: timedelta = timedelta(),
        stopped: threading.Event | None = None,
        open_batches: OpenBatches | None = None,
        pauses: Pauses | None = None,
        release: Callable[[str, Sequence[UUID]], None] | None = None,
        deliver: Deliver = deliver,
        observer: Observer = UNOBSERVED,
    ) -> None:
        self._broker = broker
        self._subscriptions = subscriptions
        self._unit_of_work = unit_of_work
        self._failures = failures
        self._watchdog = watchdog
        self._ledger_timeout = ledger_timeout
        self._stopped = stopped or threading.Event()
        self._open_batches = open_batches or OpenBatches()
        self._pauses = pauses
        self._release = release
        self._deliver = deliver
        self._observer = observer
        self._times = EventTimes()

    def declare(self) -> None:
        """Declare the actor, and a queue for each consumer, on the broker."""
        queues = sorted(self._subscriptions.consumers)
        # Dramatiq wants a queue for the actor; one of the consumers' serves.
        declared = dramatiq.actor(
            actor_name=wire_format.ACTOR, queue_name=queues[0], broker=self._broker
        )

        # A function: Dramatiq sets attributes on it, which a method does not have.
        def perform(*args: object, **arguments: object) -> None:
            self._perform(args, arguments)

        declared(perform)
        for queue_name in queues:
            self._broker.declare_queue(queue_name)

    def _perform(self, args: tuple[object, ...], arguments: dict[str, object]) -> None:
        name = None
        try:
            pointer = wire_format.read(args, arguments)
            name = pointer.consumer
            if (consumer := self._subscriptions.consumers.get(name)) is None:
                log.warning("unknown_consumer", consumer=name)
            elif self._release is not None and self._is_paused(consumer):
                self._release(name, pointer.event_ids)
            else:
                self._deliver_all(consumer, self._own_share(consumer, pointer.event_ids))
        except wire_format.UnreadableMessage as error:
            log.warning("garbage_dropped", reason=str(error))
        except LedgerUnavailable as error:
            log.warning("ledger_unavailable", consumer=name, reason=str(error))
        except BaseException as error:  # noqa: BLE001  # Dramatiq would log its text
            log.error("batch_abandoned", consumer=name, **summary(error))  # noqa: TRY400  # likewise

    def _is_paused(self, consumer: type[Consumer[Any]]) -> bool:
        return self._pauses is not None and self._pauses.is_paused(consumer.name)

    def _own_share(
        self, consumer: type[Consumer[Any]], event_ids: Sequence[UUID]
    ) -> Sequence[UUID]:
        """Send what takes too long for one commit to other threads; returns the rest."""
        size = self._times.fitting(consumer)
        if len(event_ids) <= size:
            return event_ids
        parts = [event_ids[at : at + size] for at in range(size, len(event_ids), size)]
        try:
            self._broker.enqueue_many(wire_format.messages(consumer.name, parts))
        except BrokerUnavailable as error:
            self._observer.broker_unavailable()
            log.warning("broker_unavailable", error=str(error))
            return event_ids
        return event_ids[:size]

    def _deliver_all(self, consumer: type[Consumer[Any]], event_ids: Sequence[UUID]) -> None:
        """Deliver one batch after the other, each of what fits into memory.

        What is left after the time of a batch, or once the consumer is paused, is released.
        """
        until = monotonic() + consumer.time_limit.total_seconds()
        while event_ids:
            result = self._deliver_in_time(consumer, event_ids)
            consumed = len(result.succeeded) + len(result.failed)
            self._times.note(consumer, consumed, result.seconds)
            event_ids = result.later
            is_over = event_ids and (self._is_paused(consumer) or monotonic() > until)
            if is_over and self._release is not None:
                self._release(consumer.name, event_ids)
                return

    def _deliver_in_time(self, consumer: type[Consumer[Any]], event_ids: Sequence[UUID]) -> Result:
        until = monotonic() + self._ledger_timeout.total_seconds()
        while True:
            unit = self._unit_of_work()
            try:
                with self._watchdog.over(consumer, event_ids, unit) as watch:
                    return self._deliver(
                        Batch(
                            consumer,
                            event_ids,
                            unit,
                            self._failures,
                            watch,
                            self._open_batches,
                            events=self._subscriptions.events_of(consumer.name),
                            is_paused=partial(self._is_paused, consumer),
                        )
                    )
            except LedgerUnavailable:
                self._observer.ledger_unavailable()
                if monotonic() + PAUSE_SECONDS > until or self._stopped.wait(PAUSE_SECONDS):
                    raise
