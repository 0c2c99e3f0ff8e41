"""An ordered consumer receives the events of one identity one after another, on either ledger."""

from datetime import timedelta
from random import Random
from uuid import UUID

import pytest

from kratos_sync import Application, Consumer, KratosIdentityUpdated
from kratos_sync.testing import Harness, Webhook, webhook
from tests.testing.backends import backend  # noqa: F401  # a fixture

pytestmark = pytest.mark.usefixtures("backend")


class Follow(Consumer[KratosIdentityUpdated]):
    """Notes what it consumes; fails so often for an event as the test says."""

    name, ordered, max_attempts = "Follow", True, 3
    first_backoff = timedelta(minutes=1)
    seen: list[tuple[UUID, object]]
    failures: dict[tuple[UUID, object], int]

    def consume(self, event: KratosIdentityUpdated) -> None:
        step = event.identity.id, event.identity.document["step"]
        if self.failures.get(step, 0) > 0:
            self.failures[step] -= 1
            raise ValueError(f"not yet {step}")
        self.seen.append(step)


class SkipDeadLetters(Follow):
    """Goes on after a dead letter."""

    name, skips_dead_letters = "SkipDeadLetters", True


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    for kind in (Follow, SkipDeadLetters):
        kind.seen, kind.failures = [], {}


@pytest.fixture
def harness() -> Harness:
    return Harness(Application(subscriptions={KratosIdentityUpdated: [Follow, SkipDeadLetters]}))


def steps(of: Webhook, *numbers: int) -> list[Webhook]:
    return [webhook("settings", after=of, step=number) for number in numbers]


def seen_of(consumer: type[Follow], of: Webhook) -> list[object]:
    return [step for identity_id, step in consumer.seen if identity_id == of.identity_id]


def let_all_be_tried(harness: Harness) -> None:
    for _ in range(6):
        harness.deliver(expect_failures=True)
        harness.advance(hours=1)


def test_events_of_one_identity_are_consumed_in_the_order_recorded(harness: Harness) -> None:
    ada, grace = webhook(), webhook()
    for pair in zip(steps(ada, *range(5)), steps(grace, *range(5)), strict=True):
        for each in pair:
            harness.receive(each)
    harness.deliver()

    assert seen_of(Follow, ada) == seen_of(Follow, grace) == [0, 1, 2, 3, 4]


def test_they_wait_behind_one_that_fails_and_other_identities_go_on(harness: Harness) -> None:
    ada, grace = webhook(), webhook()
    Follow.failures[ada.identity_id, 1] = 1
    for each in (*steps(ada, 0, 1, 2), *steps(grace, 0, 1, 2)):
        harness.receive(each)

    harness.deliver(expect_failures=True)
    assert seen_of(Follow, ada) == [0]
    assert seen_of(Follow, grace) == [0, 1, 2]

    let_all_be_tried(harness)
    assert seen_of(Follow, ada) == [0, 1, 2]


def test_they_wait_behind_a_dead_letter_unless_the_consumer_skips_it(harness: Harness) -> None:
    ada = webhook()
    for kind in (Follow, SkipDeadLetters):
        kind.failures[ada.identity_id, 1] = kind.max_attempts
    for each in steps(ada, 0, 1, 2):
        harness.receive(each)

    let_all_be_tried(harness)

    assert len(harness.dead(Follow)) == len(harness.dead(SkipDeadLetters)) == 1
    assert seen_of(Follow, ada) == [0]
    assert seen_of(SkipDeadLetters, ada) == [0, 2]


@pytest.mark.parametrize("seed", range(3))
def test_whatever_fails_the_order_is_kept(harness: Harness, seed: int) -> None:
    random = Random(seed)
    people = [webhook() for _ in range(4)]
    sent: dict[UUID, list[object]] = {each.identity_id: [] for each in people}
    for step in range(24):
        person = random.choice(people)
        if random.random() < 0.3:
            Follow.failures[person.identity_id, step] = random.randrange(1, Follow.max_attempts)
        (each,) = steps(person, step)
        harness.receive(each)
        sent[person.identity_id].append(step)
        if random.random() < 0.3:
            harness.deliver(expect_failures=True)
        if random.random() < 0.3:
            harness.advance(seconds=random.randrange(1, 5))
    let_all_be_tried(harness)
    let_all_be_tried(harness)

    assert {each.identity_id: seen_of(Follow, each) for each in people} == sent
