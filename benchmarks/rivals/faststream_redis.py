"""FastStream on a Redis stream with a consumer group, and SQLAlchemy's asyncio."""

import asyncio
import os
from typing import Any

from faststream import FastStream
from faststream.redis import RedisBroker, StreamSub
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from benchmarks.rivals import work
from benchmarks.rivals.enqueue import Events

STREAM, GROUP = "identities", "sync"
broker = RedisBroker(os.environ["BROKER_URL"], logger=None)
app = FastStream(broker)
new_session = async_sessionmaker(
    create_async_engine(os.environ["DATABASE_URL"], pool_size=work.POOL_SIZE)
)


@broker.subscriber(
    stream=StreamSub(STREAM, group=GROUP, consumer=str(os.getpid()), last_id=">", max_records=100),
    max_workers=int(os.environ.get("MAX_WORKERS", "1")),
)
async def sync_identity(event_id: str, identity: dict[str, Any]) -> None:
    """FastStream acknowledges the entry when this returns."""
    async with new_session.begin() as session:
        await session.run_sync(work.sync_identity, event_id, identity)


def enqueue(events: Events) -> None:
    """Add an entry to the stream for each."""
    asyncio.run(_publish(events))


async def _publish(events: Events) -> None:
    async with Redis.from_url(os.environ["BROKER_URL"]) as redis, broker:
        # Else the group would hear only of what comes after its first consumer.
        await redis.xgroup_create(STREAM, GROUP, "0", mkstream=True)
        for some in events:
            for event in some:
                await broker.publish(event, stream=STREAM)
