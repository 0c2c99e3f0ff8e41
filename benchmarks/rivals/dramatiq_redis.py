"""Dramatiq and SQLAlchemy, as their manuals have it."""

import os
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from sqlalchemy import create_engine
from sqlalchemy.orm import sessionmaker

from benchmarks.rivals import work
from benchmarks.rivals.enqueue import Events

dramatiq.set_broker(RedisBroker(url=os.environ["BROKER_URL"]))
new_session = sessionmaker(create_engine(os.environ["DATABASE_URL"], pool_size=work.POOL_SIZE))


@dramatiq.actor
def sync_identity(event_id: str, identity: dict[str, Any]) -> None:
    """Dramatiq acknowledges the message when this returns."""
    with new_session.begin() as session:
        work.sync_identity(session, event_id, identity)


def enqueue(events: Events) -> None:
    """Send a message for each."""
    for some in events:
        for event in some:
            sync_identity.send(**event)
