"""What every rival does for an event, in one transaction: inbox, load, write when newer."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Text
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP, insert
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

POOL_SIZE = 8


class Base(DeclarativeBase):
    """The tables of the rivals."""

    __table_args__ = {"schema": "rivals"}  # noqa: RUF012
    type_annotation_map = {datetime: TIMESTAMP(timezone=True), str: Text, Any: JSONB}  # noqa: RUF012


class Consumed(Base):
    """The inbox: an event that was consumed."""

    __tablename__ = "inbox"
    event_id: Mapped[UUID] = mapped_column(primary_key=True)


class Identity(Base):
    """A copy of an identity; the last that was written in Kratos wins."""

    __tablename__ = "identities"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    schema_id: Mapped[str | None]
    state: Mapped[str | None]
    traits: Mapped[Any]
    verifiable_addresses: Mapped[Any]
    recovery_addresses: Mapped[Any]
    metadata_public: Mapped[Any]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


COPIED = (
    *("schema_id", "state", "traits", "metadata_public"),
    *("verifiable_addresses", "recovery_addresses"),
)


def sync_identity(session: Session, event_id: str, document: Mapping[str, Any]) -> None:
    """Consume the event once: keep the identity if it is newer than what we have."""
    arrived = insert(Consumed).values(event_id=UUID(event_id)).on_conflict_do_nothing()
    if session.scalar(arrived.returning(Consumed.event_id)) is None:
        return
    identity_id = UUID(document["id"])
    updated_at = datetime.fromisoformat(document["updated_at"])
    known = session.get(Identity, identity_id)
    if known is not None and known.updated_at >= updated_at:
        return
    written = {
        **{name: document.get(name) for name in COPIED},
        "created_at": datetime.fromisoformat(document["created_at"]),
        "updated_at": updated_at,
    }
    upsert = insert(Identity).values(id=identity_id, **written)
    session.execute(
        upsert.on_conflict_do_update(
            index_elements=[Identity.id],
            set_={name: upsert.excluded[name] for name in written},
            where=Identity.updated_at < upsert.excluded.updated_at,
        )
    )
