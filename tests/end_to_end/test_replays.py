"""What a real Kratos sent over HTTP ends in what its Admin API said, however it comes."""

from functools import cache
from random import Random
from signal import SIGCONT, SIGSTOP

import pytest

from tests.end_to_end.service import Service, assert_the_books_are_right, differences
from tests.environment import subscriptions
from tests.recorded import Call, Recording, thirteen_calls, two_hundred_lives
from tests.waiting import until

# Dated when each test first asks: for ten minutes a registration is one.
thirteen = cache(thirteen_calls)
lives = cache(two_hundred_lives)
DELETED = "407e9ba6-aec3-4a90-a6cf-b963db6b5456"


@pytest.fixture(autouse=True)
def dated_now() -> None:
    for recording in (thirteen, lives):
        recording.cache_clear()


def as_webhooks_can_know(recording: Recording) -> dict[str, dict[str, object]]:
    """Each person that a webhook announced, as listed; the one deleted since, as last sent."""
    announced = {call.person: call.identity for call in recording.calls}
    return {person: dict(recording.listing.get(person, last)) for person, last in announced.items()}


def test_the_recording_is_what_these_tests_take_it_for() -> None:
    announced = {call.person for call in thirteen().calls}

    # Four imported, and Mary, whom an admin made: no webhook was sent for them.
    assert len(thirteen().listing.keys() - announced) == 5
    assert announced - thirteen().listing.keys() == {DELETED}
    (ada,) = (p for p in thirteen().listing.values() if "loyalty_number" in p["traits"])
    assert ada["traits"]["loyalty_number"] == 9007199254740993
    assert len(lives().calls) == 866
    assert len(lives().listing) == len({call.person for call in lives().calls}) == 200


def test_the_calls_in_their_order_end_in_the_listing(service: Service) -> None:
    assert service.post(thirteen().calls, connections=1) == [200] * 13
    service.settle()

    assert differences(service, as_webhooks_can_know(thirteen())) == []
    assert_the_books_are_right(service, 13, thirteen())


def test_every_consumer_consumes_each_of_its_events_once(service: Service) -> None:
    """Those of an application that is subscribed while the tests run, too."""
    service.post(thirteen().calls, connections=1)
    until(lambda: not service.ask("SELECT FROM kratos_sync.deliveries LIMIT 1"), seconds=60)

    events = service.ask("SELECT name, count(*) AS n FROM kratos_sync.events GROUP BY name")
    recorded = {row["name"]: row["n"] for row in events}
    attempts = service.ask(
        "SELECT a.consumer, e.name, count(*) AS n, count(DISTINCT a.event_id) AS events"
        " FROM kratos_sync.attempts a JOIN kratos_sync.events e ON e.id = a.event_id"
        " WHERE a.outcome = 'succeeded' GROUP BY 1, 2"
    )
    consumed = {(row["name"], row["consumer"]): (row["n"], row["events"]) for row in attempts}
    assert consumed == {
        (event, consumer): (recorded[event], recorded[event])
        for event, consumer in subscriptions()
        if event in recorded
    }


def test_the_loyalty_number_is_the_double_that_jsonnet_makes_of_it(service: Service) -> None:
    service.post(thirteen().calls, connections=1)
    service.settle()

    numbers = [person["traits"].get("loyalty_number") for person in service.people().values()]
    assert sorted(numbers, key=str) == [9007199254740992, None, None, None]


@pytest.mark.parametrize("seed", [1, 2])
def test_the_calls_in_any_order_end_in_the_listing(service: Service, seed: int) -> None:
    calls = Random(seed).sample(thirteen().calls, k=13)

    assert service.post(calls, connections=1) == [200] * 13
    service.settle()

    assert differences(service, as_webhooks_can_know(thirteen())) == []
    assert_the_books_are_right(service, 13, thirteen())


def test_each_call_three_times_at_once_counts_once(service: Service) -> None:
    for call in thirteen().calls:
        assert service.post_together([call] * 3) == [200] * 3
    service.settle()

    assert differences(service, as_webhooks_can_know(thirteen())) == []
    assert_the_books_are_right(service, 13, thirteen())


def test_the_same_news_three_times_in_calls_of_their_own_changes_nothing_more(
    service: Service,
) -> None:
    for call in thirteen().calls:
        assert service.post_together([call, call.anew(), call.anew()]) == [200] * 3
    service.settle()

    assert differences(service, as_webhooks_can_know(thirteen())) == []
    assert_the_books_are_right(service, 39, thirteen())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_two_hundred_lives_end_in_the_listing(service: Service, seed: int) -> None:
    calls = Random(seed).sample(lives().calls, k=866) if seed else lives().calls

    assert service.post(calls) == [200] * 866
    service.settle()

    wrong = differences(service, lives().listing)
    right = 200 - len({line.partition(".")[0].partition(" ")[0] for line in wrong})
    print(f"\n{right} of 200")
    assert wrong == []
    assert right == 200
    assert_the_books_are_right(service, 866, lives())


def test_two_workers_at_once_end_in_the_listing(service: Service) -> None:
    service.start("second worker", "worker", "--threads", "2")
    calls = Random(3).sample(lives().calls, k=866)

    # Each has to do some of it: so one is halted while the other begins.
    deliver_with_one_halted(service, calls[:200], halted="worker", alone="second worker")
    deliver_with_one_halted(service, calls[200:400], halted="second worker", alone="worker")
    assert service.post(calls[400:]) == [200] * 466
    service.settle()

    assert differences(service, lives().listing) == []
    assert_the_books_are_right(service, 866, lives())
    assert service.stop("second worker") == {"second worker": 0}


def deliver_with_one_halted(service: Service, calls: list[Call], halted: str, alone: str) -> None:
    service.settle()
    before = service.log(alone).count('"delivered"')
    service.signal(halted, SIGSTOP)
    assert service.post(calls) == [200] * len(calls)
    until(lambda: service.log(alone).count('"delivered"') > before)
    service.signal(halted, SIGCONT)
