"""The one actor: what a worker does with a message."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
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
    from kratos_sync.infrastructure.bus.rabbitmq import ConfirmingRabbitmqBroker
    from kratos_sync.infrastructure.bus.redis import WakefulRedisBroker

PAUSE_SECONDS: Final = 1.0
"""The pause between two attempts while the ledger is away."""

log = structlog.get_logger()


def declare(
    broker: "WakefulRedisBroker | ConfirmingRabbitmqBroker",
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
    """Declare the actor, and a queue for each consumer, on the broker.

    While the ledger is away a batch is retried, for the `ledger_timeout` or until `stopped`. What
    comes for a paused consumer is released. Of a message that takes too long for one commit the
    rest is sent again. A message is acknowledged whatever happens: a delivery that was not settled
    is still in the ledger, and due again when its lease runs out.
    """
    stopping, memory = stopped or threading.Event(), open_batches or OpenBatches()
    times = EventTimes()

    def perform(*args: object, **arguments: object) -> None:
        name = None
        try:
            pointer = wire_format.read(args, arguments)
            name = pointer.consumer
            if (consumer := subscriptions.consumers.get(name)) is None:
                log.warning("unknown_consumer", consumer=name)
                return
            if pauses is not None and release is not None and pauses.is_paused(name):
                release(name, pointer.event_ids)
                return
            event_ids = own_share(consumer, pointer.event_ids)
            result = deliver_in_time(consumer, event_ids)
            times.note(consumer, len(result.succeeded) + len(result.failed), result.seconds)
        except wire_format.UnreadableMessage as error:
            log.warning("garbage_dropped", reason=str(error))
        except LedgerUnavailable as error:
            log.warning("ledger_unavailable", consumer=name, reason=str(error))
        except BaseException as error:  # noqa: BLE001  # Dramatiq would log its text
            log.error("batch_abandoned", consumer=name, **summary(error))  # noqa: TRY400  # likewise

    def own_share(consumer: type[Consumer[Any]], event_ids: Sequence[UUID]) -> Sequence[UUID]:
        """Send what takes too long for one commit to other threads; returns the rest."""
        size = times.fitting(consumer)
        if len(event_ids) <= size:
            return event_ids
        parts = [event_ids[at : at + size] for at in range(size, len(event_ids), size)]
        try:
            broker.enqueue_many(wire_format.messages(consumer.name, parts))
        except BrokerUnavailable as error:
            observer.broker_unavailable()
            log.warning("broker_unavailable", error=str(error))
            return event_ids
        return event_ids[:size]

    def deliver_in_time(consumer: type[Consumer[Any]], event_ids: Sequence[UUID]) -> Result:
        until = monotonic() + ledger_timeout.total_seconds()
        while True:
            unit = unit_of_work()
            try:
                with watchdog.over(consumer, event_ids, unit) as watch:
                    events = subscriptions.events_of(consumer.name)
                    batch = Batch(consumer, event_ids, unit, failures, watch, memory)
                    is_paused = partial(pauses.is_paused, consumer.name) if pauses else None
                    return deliver(
                        replace(batch, events=events, is_paused=is_paused or batch.is_paused)
                    )
            except LedgerUnavailable:
                observer.ledger_unavailable()
                if monotonic() + PAUSE_SECONDS > until or stopping.wait(PAUSE_SECONDS):
                    raise

    queues = sorted(subscriptions.consumers)
    # Dramatiq wants a queue for the actor; one of the consumers' serves.
    declared = dramatiq.actor(actor_name=wire_format.ACTOR, queue_name=queues[0], broker=broker)
    declared(perform)
    for queue_name in queues:
        broker.declare_queue(queue_name)
