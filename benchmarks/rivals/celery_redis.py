"""Celery and SQLAlchemy, as their manuals have it; acknowledged late, as losing nothing needs."""

import os
from typing import Any

from celery import Celery
from celery.signals import worker_process_init
from sqlalchemy import create_engine
from sqlalchemy.orm import sessionmaker

from benchmarks.rivals import work
from benchmarks.rivals.enqueue import Events

app = Celery("rival", broker=os.environ["BROKER_URL"])
app.conf.update(
    task_acks_late=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=int(os.environ.get("PREFETCH", "4")),
)
engine = create_engine(os.environ["DATABASE_URL"], pool_size=work.POOL_SIZE)
new_session = sessionmaker(engine)


@worker_process_init.connect
def forget_the_parents_connections(**_: object) -> None:
    """A fork must not share what its parent has open."""
    engine.dispose(close=False)


@app.task(name="sync_identity")
def sync_identity(event_id: str, identity: dict[str, Any]) -> None:
    """Celery acknowledges the message when this returns."""
    with new_session.begin() as session:
        work.sync_identity(session, event_id, identity)


def enqueue(events: Events) -> None:
    """Send a message for each."""
    with app.producer_pool.acquire(block=True) as producer:
        for some in events:
            for event in some:
                sync_identity.apply_async(kwargs=event, producer=producer)
