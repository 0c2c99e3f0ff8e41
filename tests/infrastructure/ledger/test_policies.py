"""Pauses and limits of consumers, as the ledger keeps them."""

import threading
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

import pytest
from sqlalchemy import Connection, Engine, event, text
from structlog.testing import capture_logs

from kratos_sync.application.consumer import Consumer
from kratos_sync.application.ports.policies import ConsumerPolicy, InvalidRate, events_per_second
from kratos_sync.domain.events import IdentityRegistered
from kratos_sync.infrastructure.ledger.policies import Pauses, PostgresConsumerPolicies
from tests.waiting import DEADLINE_SECONDS, until

MINUTE_AGO = text("""
    UPDATE kratos_sync.consumer_policies
    SET refilled_at = refilled_at - CAST(:seconds AS float) * interval '1 second'
""")


class SendMail(Consumer[IdentityRegistered]):
    name, rate, concurrency = "SendMail", "100/minute", 2


@pytest.fixture
def policies(engine: Engine) -> PostgresConsumerPolicies:
    return PostgresConsumerPolicies(engine)


def pass_time(engine: Engine, seconds: float) -> None:
    with engine.begin() as connection:
        connection.execute(MINUTE_AGO, {"seconds": seconds})


def test_at_first_nothing_is_decided(policies: PostgresConsumerPolicies) -> None:
    assert policies.all() == {}


def test_a_pause_says_who_and_why_until_it_ends(policies: PostgresConsumerPolicies) -> None:
    policies.pause("SendMail", by="ada", reason="the mail server moves")

    paused = policies.all()["SendMail"]
    assert paused.paused_at is not None
    assert (paused.paused_by, paused.reason) == ("ada", "the mail server moves")
    assert policies.resume("SendMail")
    assert policies.all() == {"SendMail": ConsumerPolicy()}
    assert not policies.resume("SendMail")
    assert not policies.resume("Another")


def test_limits_stand_in_place_of_the_class(policies: PostgresConsumerPolicies) -> None:
    policies.limit("SendMail", "5/second", None)
    applies = policies.all()["SendMail"].of(SendMail)
    assert (applies.rate, applies.concurrency) == ("5/second", 2)

    policies.limit("SendMail", None, None)
    applies = policies.all()["SendMail"].of(SendMail)
    assert (applies.rate, applies.concurrency) == ("100/minute", 2)


def test_a_pause_keeps_the_limits(policies: PostgresConsumerPolicies) -> None:
    policies.limit("SendMail", "5/second", 3)
    policies.pause("SendMail", by="ada", reason="a test")
    policies.resume("SendMail")

    assert policies.all()["SendMail"] == ConsumerPolicy(rate="5/second", concurrency=3)


@pytest.mark.parametrize(
    ("rate", "per_second"), [("5/second", 5), ("100/minute", 100 / 60), ("36 / hour", 0.01)]
)
def test_a_rate_is_events_in_a_time(rate: str, per_second: float) -> None:
    assert events_per_second(rate) == pytest.approx(per_second)


@pytest.mark.parametrize("rate", ["fast", "0/second", "5", "5/fortnight", "-1/minute", "1.5/hour"])
def test_what_is_no_rate_is_refused(rate: str) -> None:
    with pytest.raises(InvalidRate, match="is no rate such as"):
        events_per_second(rate)


def test_a_rate_allows_one_event_at_first_and_then_one_in_its_time(
    engine: Engine, policies: PostgresConsumerPolicies
) -> None:
    assert policies.take("SendMail", 0.01, 10) == 1
    assert policies.take("SendMail", 0.01, 10) == 0
    pass_time(engine, 99)
    assert policies.take("SendMail", 0.01, 10) == 0
    pass_time(engine, 2)
    assert policies.take("SendMail", 0.01, 10) == 1


def test_what_was_not_taken_for_long_does_not_pile_up_beyond_a_second(
    engine: Engine, policies: PostgresConsumerPolicies
) -> None:
    policies.take("SendMail", 5, 10)
    pass_time(engine, 3_600)

    assert policies.take("SendMail", 5, 10) == 5
    assert policies.take("SendMail", 5, 10) == 0


def test_returned_tokens_can_be_taken_again(policies: PostgresConsumerPolicies) -> None:
    assert policies.take("SendMail", 0.01, 10) == 1
    policies.return_tokens("SendMail", 1)

    assert policies.take("SendMail", 0.01, 10) == 1


def test_a_clock_that_was_ahead_takes_nothing_away(
    engine: Engine, policies: PostgresConsumerPolicies
) -> None:
    policies.take("SendMail", 1, 1)
    pass_time(engine, -3_600)
    assert policies.take("SendMail", 1, 1) == 0
    pass_time(engine, 1)
    assert policies.take("SendMail", 1, 1) == 1


def test_several_relays_share_a_rate(policies: PostgresConsumerPolicies) -> None:
    began = monotonic()
    with ThreadPoolExecutor(4) as relays:
        taken = list(relays.map(lambda _: policies.take("SendMail", 20, 3), range(200)))
    seconds = monotonic() - began

    assert 1 <= sum(taken) <= 1 + 20 * (seconds + 1)


@pytest.mark.parametrize("busy_threads", [0, 1])
def test_a_process_gets_to_know_of_a_pause(
    policies: PostgresConsumerPolicies, busy_threads: int
) -> None:
    pauses = Pauses(policies, lambda: busy_threads)
    pauses.start()
    try:
        assert not pauses.is_paused("SendMail")
        policies.pause("SendMail", by="ada", reason="a test")
        until(lambda: pauses.is_paused("SendMail"))
        policies.resume("SendMail")
        until(lambda: not pauses.is_paused("SendMail"))
    finally:
        pauses.stop()


@pytest.mark.parametrize(("busy_threads", "reads"), [(1, 40), (0, 10)])
def test_pauses_are_read_every_half_second_while_busy_and_every_two_seconds_while_not(
    policies: PostgresConsumerPolicies,
    monkeypatch: pytest.MonkeyPatch,
    busy_threads: int,
    reads: int,
) -> None:
    seconds: list[float] = []
    read_at: list[float] = []

    class TwentySeconds(threading.Event):
        """They pass at once, and only while somebody waits."""

        def is_set(self) -> bool:
            return sum(seconds) >= 20

        def wait(self, timeout: float | None = None) -> bool:
            seconds.append(timeout or 0)
            return self.is_set()

    def read() -> dict[str, ConsumerPolicy]:
        read_at.append(sum(seconds))
        return {}

    monkeypatch.setattr(policies, "all", read)
    monkeypatch.setattr(
        "kratos_sync.infrastructure.ledger.policies.monotonic", lambda: sum(seconds)
    )
    pauses = Pauses(policies, lambda: busy_threads)
    monkeypatch.setattr(pauses, "_stopped", TwentySeconds())
    pauses.start()
    pauses.thread.join(DEADLINE_SECONDS)
    assert len(read_at) == reads


def test_a_process_goes_on_to_learn_of_pauses_after_a_table_was_locked(
    engine: Engine, policies: PostgresConsumerPolicies
) -> None:
    @event.listens_for(engine, "begin")
    def give_up_soon(connection: Connection) -> None:
        connection.exec_driver_sql("SET lock_timeout = '50ms'")

    pauses = Pauses(policies, lambda: 1)
    with capture_logs() as logged:
        with engine.begin() as other:
            other.execute(text("LOCK TABLE kratos_sync.consumer_policies"))
            pauses.start()
            until(lambda: any(each["event"] == "pauses_unknown" for each in logged))
        policies.pause("SendMail", by="ada", reason="a test")
        until(lambda: pauses.is_paused("SendMail"))
    pauses.stop()
