"""The inbox: what was settled before is not consumed again."""

from datetime import timedelta

from application.footprint import SET_ASIDE_FOR
from application.pipeline.batch import Batch, CallNext
from application.subscriptions import takes
from domain.events import EVENTS


def open_inbox(batch: Batch, call_next: CallNext) -> None:
    """Consume what is still owed, and settle it in the same transaction.

    An event that this release does not know is given back: a newer release may know it. So is one
    that the consumer is not subscribed to here, whoever had it delivered, and what there is no
    memory for at the same time.
    """
    batch.begin()
    inbox, name = batch.unit_of_work.inbox, batch.consumer.name
    owed = inbox.open(name, batch.event_ids, batch.admission)
    batch.is_open = True
    if batch.admission is not None and batch.admission.left:
        wait = SET_ASIDE_FOR if batch.admission.must_wait else timedelta()
        inbox.set_aside(name, batch.admission.left, wait)
    unknown = {event for event in {each.name for each in owed} if not takes(name, event)}
    for event in unknown:
        waiting = [delivery.event_id for delivery in owed if delivery.name == event]
        known = f"{event} for {name}" if event in EVENTS else event
        inbox.postpone(name, waiting, f"UnknownEvent: {known}")
    batch.owed = [delivery for delivery in owed if delivery.name not in unknown]
    if len(batch.event_ids) > 1:
        batch.suspects = [delivery.event_id for delivery in batch.owed if delivery.is_suspect]
        if batch.suspects:
            batch.owed = [delivery for delivery in batch.owed if not delivery.is_suspect]
    batch.watch.opened(batch.owed)
    if batch.owed:
        call_next(batch)
        if healthy := batch.healthy:
            inbox.settle(name, healthy, batch.started_at, batch.duration)
        if batch.poisonous:
            inbox.fail([failure.attempt for failure in batch.poisonous])
        if batch.left:
            inbox.release(name, [delivery.event_id for delivery in batch.left])
