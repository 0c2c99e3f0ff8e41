"""What Kratos said when it was asked, in the transaction that settles why it was asked."""

from datetime import datetime
from typing import NamedTuple, Protocol
from uuid import UUID

from domain.events import KratosIdentityHinted
from domain.identity import Identity


class Answer(NamedTuple):
    """What Kratos said of one identity; None if it has none.

    ``asked_at`` is right before it was asked, by the ledger's clock.
    """

    asked_at: datetime
    identity: Identity | None


class KratosAnswers(Protocol):
    """Kratos' answers, as one transaction gets them, and those that were recorded before."""

    def is_answered(self, hint: KratosIdentityHinted) -> bool:
        """Whether an answer is recorded that Kratos was asked for after the hint was recorded."""

    def ask(self, identity_id: UUID) -> Answer:
        """Give Kratos' answer; the same one each time.

        Raises KratosUnavailable, KratosRefused or KratosNotConfigured. The first question is about
        all whom this transaction is about: so many of them cost one request, and who is not shown
        there is asked for alone.
        """

    def tell(self, identity_id: UUID, answer: Answer) -> None:
        """Record KratosIdentityUpdated or KratosIdentityGone in this transaction, once."""
