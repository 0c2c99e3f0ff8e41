from benchmarks.changes import POISON_ONE_IN
from benchmarks.filling import as_told
from benchmarks.measures.deliver import backlog
from benchmarks.population import people_for, population, some_twice


def test_a_crowd_tells_of_everybody_what_was_recorded() -> None:
    told = population(400)

    assert len(told.listing) == 400
    assert {call.person for call in told.calls} == told.listing.keys()
    assert all(call.identity["id"] == call.person for call in told.calls)
    assert len({call.headers["Ory-Webhook-Trigger-Id"] for call in told.calls}) == len(told.calls)


def test_every_call_is_there_before_any_is_told_twice() -> None:
    calls = population(200).calls

    told = some_twice(calls, 900, seed=1)

    assert len(told) == 900
    assert {call.body for call in told} == {call.body for call in calls}


def test_there_are_never_more_calls_of_a_crowd_than_events_wanted() -> None:
    assert people_for(1_732) == 400
    assert people_for(1_731) == 200


def test_nothing_is_poison_unless_it_is_asked_for() -> None:
    waiting = as_told(population(200).calls)

    assert not any(event.poison or event.id.int % POISON_ONE_IN == 0 for event in waiting)


def test_poison_comes_on_top_and_in_between() -> None:
    for kind in ("garbage", "failure"):
        waiting = backlog(1_000, kind)

        assert waiting.healthy == 1_000
        assert [event.poison for event in waiting.events[::101]] == [True] * 10
        assert all((event.id.int % POISON_ONE_IN == 0) is event.poison for event in waiting.events)
