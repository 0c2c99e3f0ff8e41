"""Asking Kratos about an identity that is said to have changed."""

from datetime import timedelta

from kratos_sync.application.consumer import Consumer
from kratos_sync.application.ports.kratos import (
    KratosAnswers,
    KratosNotConfigured,
    KratosUnavailable,
)
from kratos_sync.application.retry_delays import WAIT_FOR_A_URL, later, part_of_age, scattered
from kratos_sync.domain.events import KratosIdentityHinted


class FetchKratosIdentity(Consumer[KratosIdentityHinted]):
    """Let everybody hear what Kratos says an identity is now, or that it is gone.

    Kratos may be away for as long as it likes: a hint waits, and that is no failure. The hints of
    a batch share a question, and one that an answer was asked for since needs none.
    """

    name = "FetchKratosIdentity"
    # So many fit into one request. While Kratos answers slowly, the transaction holds its rows:
    # the first event may take ten seconds for all and ten alone, which the limit has to exceed.
    batch_size = 50
    time_limit = timedelta(seconds=30)

    def __init__(self, answers: KratosAnswers) -> None:
        self._answers = answers

    def consume(self, event: KratosIdentityHinted) -> None:
        """Ask, unless it is answered, and tell."""
        if self._answers.is_answered(event):
            return
        try:
            answer = self._answers.ask(event.identity_id)
        except KratosUnavailable as error:
            wait = max(part_of_age(event), error.retry_after or timedelta())
            raise later(scattered(wait), error) from None
        except KratosNotConfigured as error:
            raise later(scattered(WAIT_FOR_A_URL), error) from None
        self._answers.record(event.identity_id, answer)
