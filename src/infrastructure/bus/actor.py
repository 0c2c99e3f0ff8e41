"""The one actor: what a worker does with a message."""

from collections.abc import Callable

import dramatiq
import structlog

from application.pipeline import Batch, deliver
from application.pipeline.logging import where
from application.ports.event_bus import LedgerUnavailable
from application.ports.failures import Failures
from application.ports.unit_of_work import UnitOfWork
from application.subscriptions import CONSUMERS
from infrastructure.bus import wire_format

log = structlog.get_logger()


def declare(
    broker: dramatiq.Broker, unit_of_work: Callable[[], UnitOfWork], failures: Failures
) -> None:
    """Declare the actor, and a queue for each consumer, on the broker.

    Whatever goes wrong inside, the message is acknowledged: a delivery that was not settled is
    still in the ledger, and due again when its lease runs out.
    """

    def perform(*args: object, **arguments: object) -> None:
        name = None
        try:
            pointer = wire_format.read(args, arguments)
            name = pointer.consumer[:100]
            consumer = CONSUMERS.get(pointer.consumer)
            if consumer is None:
                log.warning("unknown_consumer", consumer=name)
                return
            deliver(Batch(consumer, pointer.event_ids, unit_of_work(), failures))
        except wire_format.UnreadableMessage as error:
            log.warning("garbage_dropped", reason=str(error))
        except LedgerUnavailable as error:
            log.warning("ledger_unavailable", consumer=name, reason=str(error))
        except Exception as error:  # noqa: BLE001  # it would only be logged by Dramatiq, text and all
            log.error("batch_abandoned", consumer=name, error=type(error).__name__, at=where(error))  # noqa: TRY400  # its text may hold personal data

    queues = sorted(CONSUMERS)
    # An actor must have a queue of its own; one of the consumers' does.
    declared = dramatiq.actor(actor_name=wire_format.ACTOR, queue_name=queues[0], broker=broker)
    declared(perform)
    for queue_name in queues:
        broker.declare_queue(queue_name)
