"""Webhooks taken in by FastAPI and SQLAlchemy: a transaction each, into two tables like ours."""

import hmac
import os
from typing import Annotated, Any
from uuid import UUID, uuid4

from fastapi import Depends, FastAPI, Header, HTTPException
from pydantic import BaseModel
from sqlalchemy import JSON, Text, create_engine
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker

engine = create_engine(os.environ["DATABASE_URL"], pool_size=8, max_overflow=0)
new_session = sessionmaker(engine)
app = FastAPI()


class Base(DeclarativeBase):
    """The tables of the rivals."""

    __table_args__ = {"schema": "rivals"}  # noqa: RUF012


class Event(Base):
    """What a webhook said."""

    __tablename__ = "events"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    subject: Mapped[UUID]
    payload: Mapped[dict[str, Any]] = mapped_column(JSON)
    dedupe_key: Mapped[str | None] = mapped_column(Text, unique=True)


class Delivery(Base):
    """That a consumer is owed an event."""

    __tablename__ = "deliveries"
    event_id: Mapped[UUID] = mapped_column(primary_key=True)
    consumer: Mapped[str] = mapped_column(Text, primary_key=True)
    subject: Mapped[UUID]


class Webhook(BaseModel):
    """A webhook's body."""

    identity: dict[str, Any]


async def key_checked(x_api_key: Annotated[str, Header()]) -> None:
    """Refuse whoever does not know the key."""
    if not hmac.compare_digest(x_api_key.encode(), os.environ["API_KEY"].encode()):
        raise HTTPException(401)


@app.post("/kratos/sync-identity", dependencies=[Depends(key_checked)])
def take_in(webhook: Webhook, ory_webhook_trigger_id: Annotated[UUID, Header()]) -> dict[str, Any]:
    """Record the event once, and what is owed."""
    subject = UUID(webhook.identity["id"])
    event = {
        "id": uuid4(),
        "name": "kratos_identity.updated",
        "subject": subject,
        "payload": webhook.model_dump(),
        "dedupe_key": f"webhook:{ory_webhook_trigger_id}",
    }
    once = insert(Event).values(event).on_conflict_do_nothing().returning(Event.id)
    with new_session.begin() as session:
        if (recorded := session.scalar(once)) is not None:
            session.add(Delivery(event_id=recorded, consumer="SyncIdentity", subject=subject))
    return {}
