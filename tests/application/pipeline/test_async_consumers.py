"""Async consumers wait for other services with all events of a batch at once."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import ClassVar
from uuid import UUID

import pytest
import structlog
from structlog.testing import capture_logs

from kratos_sync.application.application import InvalidApplication
from kratos_sync.application.consumer import Consumer, RetryLater
from kratos_sync.application.consumer_factory import ConsumerFactory
from kratos_sync.application.pipeline.outcomes import add_delivery
from kratos_sync.domain.events import KratosIdentityUpdated
from kratos_sync.domain.kratos_identities import KratosIdentities
from kratos_sync.testing.fakes import InMemoryKratosIdentities
from kratos_sync.testing.ledger import InMemoryLedger
from tests.application.delivering import deliver_to
from tests.domain.people import cause
from tests.suites.occurrences import WEBHOOK, person, subscribed, updated

AT_ONCE = 150
SECONDS = 60


class Call(Consumer[KratosIdentityUpdated]):
    """Calls another service, as a test says it answers."""

    name = "Call"
    calls: ClassVar[list[UUID]] = []
    answer: ClassVar[Callable[[UUID], Awaitable[None]]]

    async def consume(self, event: KratosIdentityUpdated) -> None:
        self.calls.append(event.id)
        await type(self).answer(event.id)


class CallBriefly(Call):
    time_limit = timedelta(milliseconds=50)


class Forgetful(Consumer[KratosIdentityUpdated]):
    """Returns a coroutine that nobody awaits: a decorator forgot that it is async."""

    name = "Forgetful"

    def consume(self, event: KratosIdentityUpdated) -> Awaitable[None]:
        return asyncio.sleep(0)


class Writes(Consumer[KratosIdentityUpdated]):
    name = "Writes"

    def __init__(self, identities: KratosIdentities) -> None: ...

    async def consume(self, event: KratosIdentityUpdated) -> None: ...


def delivered(
    kind: type[Consumer[KratosIdentityUpdated]], events: int = 4
) -> tuple[InMemoryLedger, dict[UUID, str]]:
    """A ledger in which the consumer got so many events in one message, and their outcomes."""
    ledger = InMemoryLedger()
    with subscribed(ledger, KratosIdentityUpdated, kind):
        for number in range(1, events + 1):
            ledger.publish(updated(number, person(number)), WEBHOOK)
        deliver_to(kind, ledger)
    return ledger, {each.event_id: each.outcome for each in ledger.attempts}


@pytest.fixture(autouse=True)
def no_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Call, "calls", [])


def answering(monkeypatch: pytest.MonkeyPatch, answer: Callable[[UUID], Awaitable[None]]) -> None:
    monkeypatch.setattr(Call, "answer", staticmethod(answer), raising=False)


async def at_once(_: UUID) -> None: ...


def test_a_batch_is_consumed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    all_have_begun = asyncio.Event()

    async def wait_for_the_others(_: UUID) -> None:
        if len(Call.calls) == AT_ONCE:
            all_have_begun.set()
        await asyncio.wait_for(all_have_begun.wait(), SECONDS)

    answering(monkeypatch, wait_for_the_others)

    ledger, outcomes = delivered(Call, AT_ONCE)

    assert list(outcomes.values()) == ["succeeded"] * AT_ONCE
    assert ledger.commits == 1


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ValueError("no"), "failed"),
        (TimeoutError("the service took long"), "failed"),
        (asyncio.CancelledError(), "failed"),
        (SystemExit(1), "failed"),
        (RetryLater(timedelta(minutes=1)), "postponed"),
    ],
    ids=lambda each: each if isinstance(each, str) else type(each).__name__,
)
def test_what_one_event_raises_is_its_own_and_repeats_no_other(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, outcome: str
) -> None:
    async def fail_on_the_second(event_id: UUID) -> None:
        await asyncio.sleep(0)  # the others begin before it raises
        if event_id == cause(2):
            raise error

    answering(monkeypatch, fail_on_the_second)

    ledger, outcomes = delivered(Call)

    others = dict.fromkeys([cause(1), cause(3), cause(4)], "succeeded")
    assert outcomes == {cause(2): outcome, **others}
    assert len(Call.calls) == 4
    assert "TimeLimitExceeded" not in str(ledger.deliveries[Call.name, cause(2)].last_error)


async def never(_: UUID) -> None:
    await asyncio.Event().wait()


async def never_and_fail(_: UUID) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        raise ValueError("while it was cancelled")


async def ignore_cancellation(_: UUID) -> None:
    for _each in range(2):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            continue


@pytest.mark.parametrize("hang", [never, never_and_fail, ignore_cancellation])
def test_one_that_takes_too_long_fails_alone(
    monkeypatch: pytest.MonkeyPatch, hang: Callable[[UUID], Awaitable[None]]
) -> None:
    async def hang_on_the_second(event_id: UUID) -> None:
        if event_id == cause(2):
            await hang(event_id)

    answering(monkeypatch, hang_on_the_second)

    ledger, outcomes = delivered(CallBriefly)

    others = dict.fromkeys([cause(1), cause(3), cause(4)], "succeeded")
    assert outcomes == {cause(2): "failed", **others}
    assert "TimeLimitExceeded" in str(ledger.deliveries[Call.name, cause(2)].last_error)


def test_all_batches_of_a_process_share_one_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    loops: set[asyncio.AbstractEventLoop] = set()

    async def note_loop(_: UUID) -> None:
        loops.add(asyncio.get_running_loop())

    answering(monkeypatch, note_loop)
    threads = [threading.Thread(target=delivered, args=[Call]) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(Call.calls) == 12
    assert len(loops) == 1


def test_what_it_logs_names_the_event(monkeypatch: pytest.MonkeyPatch) -> None:
    async def log_twice(_: UUID) -> None:
        structlog.get_logger().info("asking")
        await asyncio.sleep(0)  # the others log in between
        structlog.get_logger().info("answered")

    answering(monkeypatch, log_twice)

    with capture_logs(processors=[add_delivery]) as lines:
        delivered(Call)

    named = {(each["event"], each.get("event_id")) for each in lines}
    expected = {(what, str(cause(n))) for what in ("asking", "answered") for n in range(1, 5)}
    assert expected <= named


def test_one_event_alone_is_awaited_too(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, at_once)

    assert delivered(Call, 1)[1] == {cause(1): "succeeded"}


def test_a_coroutine_that_nobody_awaits_is_a_failure() -> None:
    ledger, outcomes = delivered(Forgetful, 1)

    assert outcomes == {cause(1): "failed"}
    assert "is no async def" in str(ledger.deliveries[Forgetful.name, cause(1)].last_error)


def test_one_that_asks_for_a_port_in_the_transaction_is_refused() -> None:
    with pytest.raises(InvalidApplication, match="Writes is async and asks for KratosIdentities"):
        ConsumerFactory([Writes], {KratosIdentities: lambda _: InMemoryKratosIdentities()})


def test_a_replaced_port_outside_of_the_transaction_is_accepted() -> None:
    factory = ConsumerFactory(
        [Writes],
        {KratosIdentities: lambda _: InMemoryKratosIdentities()},
        {KratosIdentities: InMemoryKratosIdentities()},
    )

    assert isinstance(factory(Writes, None), Writes)
