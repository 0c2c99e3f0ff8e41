"""Processes killed, Redis emptied, Redis away: nothing is lost and nothing happens twice."""

import sys
from functools import cache
from pathlib import Path
from random import Random
from signal import SIGCONT, SIGSTOP
from statistics import quantiles
from time import perf_counter

import pytest

from tests.end_to_end import sleepy
from tests.end_to_end.service import Service, assert_the_books_are_right, differences
from tests.recorded import Call, two_hundred_lives
from tests.waiting import until

# Dated when each test first asks: for ten minutes a registration is one.
lives = cache(two_hundred_lives)
HELD = max(two_hundred_lives().listing)


@pytest.fixture(autouse=True)
def dated_now() -> None:
    lives.cache_clear()


def a_thousand_calls(seed: int) -> list[Call]:
    """All that is to be known, some of it twice; the one whose row is held comes late."""
    random = Random(seed)
    calls = [*lives().calls, *(call.anew() for call in random.sample(lives().calls, k=134))]
    random.shuffle(calls)
    return sorted(calls, key=lambda call: call.person == HELD)


def introduce(service: Service, person: str) -> int:
    """Let a person's row be there."""
    first = next(call for call in lives().calls if call.person == person)
    assert service.post_one(first.anew()) == 200
    until(lambda: person in service.people())
    service.settle()
    return 1


def test_a_worker_killed_among_a_thousand_events_costs_nothing(service: Service) -> None:
    received = introduce(service, HELD) + 1_000
    service.signal("worker", SIGSTOP)
    assert service.post(a_thousand_calls(1)) == [200] * 1_000
    assert service.count("attempts") == 2  # of the first call, and of the registration
    with service.holding(HELD):
        service.signal("worker", SIGCONT)
        until(lambda: service.waits_for_a_lock() and service.count("attempts") >= 100)
        service.kill("worker")
        left = service.count("deliveries")
    assert 0 < left < 1_000

    began = perf_counter()
    service.start("worker", "worker")
    service.settle()

    print(f"\n{left} events were left, and done {perf_counter() - began:.1f} s after the restart")
    assert differences(service, lives().listing) == []
    assert_the_books_are_right(service, received, lives())


def test_a_flushed_redis_costs_nothing(service: Service) -> None:
    received = introduce(service, HELD) + 1_000
    service.signal("worker", SIGSTOP)
    assert service.post(a_thousand_calls(2)) == [200] * 1_000
    with service.holding(HELD):
        service.signal("worker", SIGCONT)
        until(lambda: service.waits_for_a_lock() and service.count("attempts") >= 100)
        service.flush_redis()
        left = service.count("deliveries")
    assert 0 < left < 1_000

    began = perf_counter()
    service.settle()

    print(f"\n{left} events were left, and done after {perf_counter() - began:.1f} s")
    assert differences(service, lives().listing) == []
    assert_the_books_are_right(service, received, lives())


def test_webhooks_are_taken_while_redis_is_away_and_arrive_when_it_is_back(
    service: Service,
) -> None:
    first, *calls = lives().calls[:20]
    assert service.post_one(first) == 200
    service.settle()
    service.valkey.go_away()
    try:
        assert service.post(calls) == [200] * 19
        until(lambda: "broker_unavailable" in service.log("relay"))
        until(lambda: "connection error" in service.log("worker"))
        assert service.people().keys() == {first.person}
    finally:
        service.valkey.come_back()
    service.settle()
    assert service.people().keys() == {call.person for call in lives().calls[:20]}
    assert service.count("attempts", "outcome <> 'succeeded'") == 0


def test_a_webhook_wakes_all_that_bring_it_into_its_row_in_milliseconds(service: Service) -> None:
    service.stop("relay", "worker")
    program = [sys.executable, str(Path(sleepy.__file__))]
    for name in ("relay", "worker"):
        service.start(name, name, program=program)
    calls = list({call.person: call for call in reversed(lives().calls)}.values())[:30]
    latencies = []
    for call in calls:
        assert service.post_one(call) == 200
        answered = perf_counter()
        until(lambda call=call: service.has(call.person))  # type: ignore[misc]
        latencies.append(1000 * (perf_counter() - answered))

    cut = quantiles(latencies, n=100, method="inclusive")
    print(f"\nfrom 200 to the row: p50 {cut[49]:.1f} ms, p99 {cut[98]:.1f} ms")
    service.kill("relay", "worker")


def test_nothing_personal_is_ever_logged(service: Service) -> None:
    assert service.post(lives().calls[:50]) == [200] * 50
    service.settle()

    for name in ("api", "relay", "worker"):
        log = service.log(name)
        assert "Traceback" not in log
        assert "@" not in log
        assert "No 8" not in log  # a last name, in this recording
    assert '"webhook_accepted"' in service.log("api")
