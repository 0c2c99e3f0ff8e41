from benchmarks.changes import FAILING_ONE_IN
from benchmarks.filling import events_of
from benchmarks.measures.deliver import backlog
from benchmarks.population import people_for, population, some_twice


def test_a_population_has_the_recorded_calls_of_everybody() -> None:
    people = population(400)

    assert len(people.listing) == 400
    assert {call.person for call in people.calls} == people.listing.keys()
    assert all(call.identity["id"] == call.person for call in people.calls)
    assert len({call.headers["Ory-Webhook-Trigger-Id"] for call in people.calls}) == len(
        people.calls
    )


def test_every_call_is_there_before_any_is_sent_twice() -> None:
    calls = population(200).calls

    sent = some_twice(calls, 900, seed=1)

    assert len(sent) == 900
    assert {call.body for call in sent} == {call.body for call in calls}


def test_there_are_never_more_calls_of_a_population_than_events_wanted() -> None:
    assert people_for(1_732) == 400
    assert people_for(1_731) == 200


def test_no_event_is_to_fail_unless_that_is_asked_for() -> None:
    waiting = events_of(population(200).calls)

    assert not any(event.fails or event.id.int % FAILING_ONE_IN == 0 for event in waiting)


def test_events_that_are_to_fail_come_on_top_and_in_between() -> None:
    for kind in ("garbage", "failure"):
        waiting = backlog(1_000, kind)

        assert waiting.healthy == 1_000
        assert [event.fails for event in waiting.events[::101]] == [True] * 10
        assert all((event.id.int % FAILING_ONE_IN == 0) is event.fails for event in waiting.events)
