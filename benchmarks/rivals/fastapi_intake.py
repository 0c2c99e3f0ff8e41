"""Webhooks accepted by FastAPI and SQLAlchemy: a transaction each, into two tables like ours.

It is the fastest of what was tried: SQLAlchemy's asyncio engine, used without a session, and a pool
of 8. With a session it makes about three fifths of the rate; in as many threads as connections
about four fifths; pools of 4 and of 16 differ by no more than the machine does.
"""

import hmac
import os
from typing import Annotated, Any
from uuid import UUID, uuid4

from fastapi import Depends, FastAPI, Header, HTTPException
from pydantic import BaseModel
from sqlalchemy import JSON, Column, MetaData, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import create_async_engine

engine = create_async_engine(os.environ["DATABASE_URL"], pool_size=8, max_overflow=0)
app = FastAPI()

tables = MetaData(schema="rivals")
events = Table(
    "events",
    tables,
    Column("id", Uuid, primary_key=True),
    Column("name", Text),
    Column("subject", Uuid),
    Column("payload", JSON),
    Column("dedupe_key", Text, unique=True),
)
deliveries = Table(
    "deliveries",
    tables,
    Column("event_id", Uuid, primary_key=True),
    Column("consumer", Text, primary_key=True),
    Column("subject", Uuid),
)
record_once = insert(events).on_conflict_do_nothing().returning(events.c.id)
add_once = insert(deliveries).on_conflict_do_nothing()


class Webhook(BaseModel):
    """A webhook's body."""

    identity: dict[str, Any]


async def key_checked(x_api_key: Annotated[str, Header()]) -> None:
    """Refuse whoever does not know the key."""
    if not hmac.compare_digest(x_api_key.encode(), os.environ["API_KEY"].encode()):
        raise HTTPException(401)


@app.post("/kratos/sync-identity", dependencies=[Depends(key_checked)])
async def take_in(
    webhook: Webhook, ory_webhook_trigger_id: Annotated[UUID, Header()]
) -> dict[str, Any]:
    """Record the event once, with its delivery."""
    event = {
        "id": uuid4(),
        "name": "kratos_identity.updated",
        "subject": UUID(webhook.identity["id"]),
        "payload": webhook.model_dump(),
        "dedupe_key": f"webhook:{ory_webhook_trigger_id}",
    }
    delivery = {"event_id": event["id"], "consumer": "SyncIdentity", "subject": event["subject"]}
    async with engine.begin() as transaction:
        if await transaction.scalar(record_once, event) is not None:
            await transaction.execute(add_once, delivery)
    return {}
