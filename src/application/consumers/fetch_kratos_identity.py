"""Asks Kratos about an identity that is said to have changed."""

from datetime import timedelta

from kratos_sync.application.consumer import Consumer
from kratos_sync.application.ports.kratos import (
    HeldElsewhere,
    KratosAnswers,
    KratosNotConfigured,
    KratosUnavailable,
)
from kratos_sync.application.retry_delays import WAIT_FOR_A_URL, later, part_of_age, scattered
from kratos_sync.domain.events import KratosIdentityHinted, fact_of_flow


class FetchKratosIdentity(Consumer[KratosIdentityHinted]):
    """Record what the Admin API says an identity is now, or that it has none.

    While Kratos is unavailable a hint is postponed, which is no failure. The hints of a batch share
    one request, and a hint that is older than an answer's request needs none.
    """

    name = "FetchKratosIdentity"
    # So many fit into one request. While Kratos answers slowly, the transaction holds its rows:
    # the first event may take ten seconds for all and ten alone, which the limit has to exceed.
    batch_size = 50
    time_limit = timedelta(seconds=30)
    gives_up_on = (HeldElsewhere,)

    def __init__(self, answers: KratosAnswers) -> None:
        self._answers = answers

    def consume(self, event: KratosIdentityHinted) -> None:
        """Ask, unless it is answered, and record the answer and what the hook's label says."""
        fact = fact_of_flow(event.hook, event.identity_id, event.date_occurred, event.id)
        if self._answers.is_answered(event):
            self._answers.observe(fact)
            return
        try:
            answer = self._answers.ask(event.identity_id)
        except KratosUnavailable as error:
            wait = max(part_of_age(event), error.retry_after or timedelta())
            raise later(scattered(wait), error) from None
        except KratosNotConfigured as error:
            raise later(scattered(WAIT_FOR_A_URL), error) from None
        self._answers.record(event.identity_id, answer)
        self._answers.observe(fact)
