"""A consumer of several events with a table of its own, written in the batch's transaction."""

from typing import Protocol
from uuid import UUID

from sqlalchemy import text

from kratos_sync import (
    Consumer,
    IdentityDeleted,
    IdentityRegistered,
    IdentityTraitsChanged,
    Transaction,
)


class Contacts(Protocol):
    """The people who may be contacted."""

    def put(self, identity_id: UUID, event_id: UUID) -> None:
        """Add one, or note that there is news."""

    def remove(self, identity_id: UUID) -> None:
        """Remove one."""


class KeepContacts(Consumer[IdentityRegistered | IdentityTraitsChanged | IdentityDeleted]):
    """Keeps the table of contacts."""

    name = "KeepContacts"

    def __init__(self, contacts: Contacts) -> None:
        self._contacts = contacts

    def consume(self, event: IdentityRegistered | IdentityTraitsChanged | IdentityDeleted) -> None:
        match event:
            case IdentityRegistered() | IdentityTraitsChanged():
                self._contacts.put(event.identity_id, event.id)
            case IdentityDeleted():
                self._contacts.remove(event.identity_id)


PUT = text("""
    INSERT INTO foreign_app.contacts AS c (id, latest_event) VALUES (:id, :event)
    ON CONFLICT (id) DO UPDATE SET latest_event = excluded.latest_event, news = c.news + 1
""")
REMOVE = text("DELETE FROM foreign_app.contacts WHERE id = :id")


class PostgresContacts:
    """The table of contacts."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def put(self, identity_id: UUID, event_id: UUID) -> None:
        self._transaction.execute(PUT, {"id": identity_id, "event": event_id})

    def remove(self, identity_id: UUID) -> None:
        self._transaction.execute(REMOVE, {"id": identity_id})
