"""An application whose consumers fail for some people, for the pictures of the console."""

from datetime import timedelta
from uuid import UUID

from kratos_sync.application.application import Application
from kratos_sync.application.consumer import Consumer
from kratos_sync.domain.events import IdentityRegistered, IdentityTraitsChanged


class SendWelcomeEmail(Consumer[IdentityRegistered]):
    """Fails for one person in ten, whose mail server does not answer."""

    name = "SendWelcomeEmail"
    max_attempts = 3
    first_backoff = timedelta(seconds=1)

    def consume(self, event: IdentityRegistered) -> None:
        """Send it, to nobody."""
        if _part_of(event.identity_id, 10):
            raise ConnectionRefusedError(f"421 the mail server of {event.identity_id} is away")


class UpdateCustomer(Consumer[IdentityTraitsChanged]):
    """Fails for one person in twenty, since the last deploy."""

    name = "UpdateCustomer"
    max_attempts = 2
    first_backoff = timedelta(seconds=1)

    def consume(self, event: IdentityTraitsChanged) -> None:
        """Update what is kept nowhere."""
        if _part_of(event.identity_id, 20):
            raise KeyError("plan")


def _part_of(person: UUID, number: int) -> bool:
    return person.int % number == 0


app = Application(
    subscriptions={
        IdentityRegistered: [SendWelcomeEmail],
        IdentityTraitsChanged: [UpdateCustomer],
    }
)
