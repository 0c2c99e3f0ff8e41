"""The core of the pipeline: the consumer itself."""

import json

from application.pipeline.batch import Batch
from application.pipeline.logging import delivering
from domain.events import EVENTS


def consume(batch: Batch) -> None:
    """Let the consumer consume each event still owed, in the order of their ids.

    Whatever is logged meanwhile carries the delivery it was logged for.
    """
    consumer = batch.unit_of_work.consumer(batch.consumer)
    for delivery in batch.owed:
        with delivering(batch.consumer, delivery):
            payload = json.loads(delivery.payload)
            consumer.consume(
                EVENTS[delivery.name].from_json(delivery.event_id, delivery.occurred_at, payload)
            )
