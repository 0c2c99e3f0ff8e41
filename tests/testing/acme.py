"""An application as its author writes it: one consumer of mail, one with a table, one picky."""

from datetime import timedelta
from typing import Protocol
from uuid import UUID

from sqlalchemy import text

from kratos_sync import (
    Application,
    Consumer,
    IdentityDeleted,
    IdentityRegistered,
    IdentityTraitsChanged,
    RetryLater,
    Transaction,
    serve,
)


class Mail(Protocol):
    def send(self, *, to: str, idempotency_key: str) -> None: ...


class Subscribers(Protocol):
    def put(self, identity_id: UUID, email: str) -> None: ...
    def remove(self, identity_id: UUID) -> None: ...
    def emails(self) -> list[str]: ...


# No test takes so long, and none that passes time passes less.
A_WHILE = timedelta(minutes=5)


class SendWelcomeEmail(Consumer[IdentityRegistered]):
    name, batch_size, max_attempts = "SendWelcomeEmail", 1, 2
    first_backoff = A_WHILE

    def __init__(self, mail: Mail) -> None:
        self._mail = mail

    def consume(self, event: IdentityRegistered) -> None:
        if email := event.traits.get("email"):
            self._mail.send(to=str(email), idempotency_key=str(event.id))


class KeepSubscribers(Consumer[IdentityRegistered | IdentityTraitsChanged | IdentityDeleted]):
    name = "KeepSubscribers"
    first_backoff = A_WHILE

    def __init__(self, subscribers: Subscribers) -> None:
        self._subscribers = subscribers

    def consume(self, event: IdentityRegistered | IdentityTraitsChanged | IdentityDeleted) -> None:
        match event:
            case IdentityRegistered():
                email = str(event.traits["email"])
                self._subscribers.put(event.identity_id, email)
                if email.startswith("bad"):
                    raise ValueError(f"no subscriber {email}")
            case IdentityTraitsChanged():
                for change in event.changes:
                    self._subscribers.put(event.identity_id, str(change.new))
            case IdentityDeleted():
                self._subscribers.remove(event.identity_id)


class WaitForMorning(Consumer[IdentityTraitsChanged]):
    name = "WaitForMorning"

    def consume(self, event: IdentityTraitsChanged) -> None:
        raise RetryLater(timedelta(hours=1))


class SmtpMail:
    def send(self, *, to: str, idempotency_key: str) -> None:
        raise NotImplementedError


class PostgresSubscribers:
    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        transaction.execute(
            text("CREATE TABLE IF NOT EXISTS subscribers (id uuid, email text)"), {}
        )

    def put(self, identity_id: UUID, email: str) -> None:
        self.remove(identity_id)
        self._transaction.execute(
            text("INSERT INTO subscribers VALUES (:id, :email)"),
            {"id": identity_id, "email": email},
        )

    def remove(self, identity_id: UUID) -> None:
        self._transaction.execute(
            text("DELETE FROM subscribers WHERE id = :id"), {"id": identity_id}
        )

    def emails(self) -> list[str]:
        rows = self._transaction.execute(text("SELECT email FROM subscribers ORDER BY email"), {})
        return list(rows.scalars())


app = Application(
    subscriptions={
        IdentityRegistered: [SendWelcomeEmail, KeepSubscribers],
        IdentityTraitsChanged: [KeepSubscribers, WaitForMorning],
        IdentityDeleted: [KeepSubscribers],
    },
    adapters=[serve(Mail).by(lambda _: SmtpMail())],
    adapters_in_transaction=[serve(Subscribers).by(PostgresSubscribers)],
)


class RecordingMail:
    """A fake: remembers who got mail, and fails for one of them."""

    def __init__(self) -> None:
        self.recipients: list[str] = []
        self.fails_for = ""

    def send(self, *, to: str, idempotency_key: str) -> None:
        if to == self.fails_for:
            raise ConnectionError("no mail today")
        self.recipients.append(to)


class InMemorySubscribers:
    """A fake of a port in the transaction."""

    def __init__(self) -> None:
        self.by_id: dict[UUID, str] = {}

    def put(self, identity_id: UUID, email: str) -> None:
        self.by_id[identity_id] = email

    def remove(self, identity_id: UUID) -> None:
        self.by_id.pop(identity_id, None)

    def emails(self) -> list[str]:
        return sorted(self.by_id.values())
