"""Asking Kratos about an identity that is said to have changed."""

from datetime import UTC, datetime, timedelta
from random import uniform
from typing import Final

from application.consumer import Consumer, RetryLater
from application.ports.kratos import KratosNotConfigured, KratosUnavailable
from application.ports.kratos_answers import KratosAnswers
from domain.events import KratosIdentityHinted

PART_OF_AGE: Final = 4
"""Who waits for Kratos asks again after such a part of the time that it has waited,"""
LONGEST_WAIT: Final = timedelta(minutes=5)
"""and this at most: an outage of a night makes some hundred attempts of each hint."""
WAIT_FOR_A_URL: Final = timedelta(minutes=1)


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
            raise _later(max(_wait(event), error.retry_after or timedelta()), error) from None
        except KratosNotConfigured as error:
            raise _later(WAIT_FOR_A_URL, error) from None
        self._answers.tell(event.identity_id, answer)


def _wait(event: KratosIdentityHinted) -> timedelta:
    """How long to wait, by the hint's age: clocks differ, and little depends on it."""
    return min((datetime.now(UTC) - event.date_occurred) / PART_OF_AGE, LONGEST_WAIT)


def _later(wait: timedelta, error: Exception) -> RetryLater:
    """Not all at the same moment, nor any too early."""
    later = RetryLater(wait * uniform(1.0, 1.3))  # noqa: S311
    later.add_note(str(error))
    return later
