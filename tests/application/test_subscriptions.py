"""The table of subscriptions, and what holds for every consumer in it."""

from datetime import timedelta
from typing import Any, get_type_hints

import pytest

from kratos_sync.application.consumer import Consumer
from kratos_sync.application.subscriptions import CONSUMERS, SUBSCRIPTIONS, consumers_of
from kratos_sync.domain.events import EVENTS, DomainEvent
from kratos_sync.infrastructure.bus.wire_format import CONSUMER
from tests.suites.occurrences import OURS, gone, updated

# As an application has it, with its own consumers among them.
TABLE = dict(SUBSCRIPTIONS)
every_consumer = pytest.mark.parametrize("consumer", CONSUMERS.values(), ids=CONSUMERS.keys())


@pytest.mark.parametrize("event", OURS)
def test_what_the_project_comes_with_is_in_the_table(event: type[DomainEvent]) -> None:
    assert set(OURS[event]) <= set(TABLE[event])


def test_every_event_in_the_table_is_known_on_the_wire() -> None:
    assert set(TABLE) <= set(EVENTS.values())


def test_the_consumers_of_an_event_are_those_of_its_kind() -> None:
    assert [consumer.name for consumer in consumers_of(type(updated(1)))] == ["SyncKratosIdentity"]
    assert [consumer.name for consumer in consumers_of(type(gone(1)))] == ["DeleteKratosIdentity"]


def test_an_event_that_nobody_subscribed_to_has_no_consumers() -> None:
    class Nothing:
        name = "nothing"

    assert consumers_of(Nothing) == ()  # type: ignore[arg-type]


def test_no_two_consumers_share_a_name() -> None:
    kinds = {consumer for consumers in TABLE.values() for consumer in consumers}

    assert len({kind.name for kind in kinds}) == len(kinds)


@every_consumer
def test_a_consumer_is_named_after_its_class_and_explains_itself(
    consumer: type[Consumer[Any]],
) -> None:
    assert consumer.name == consumer.__name__
    assert CONSUMER.fullmatch(consumer.name)
    assert consumer.__doc__


@every_consumer
def test_a_consumer_consumes_the_event_it_subscribed_to(consumer: type[Consumer[Any]]) -> None:
    (event,) = (event for event, consumers in TABLE.items() if consumer in consumers)

    assert get_type_hints(consumer.consume)["event"] is event


@every_consumer
def test_a_policy_lets_every_delivery_end(consumer: type[Consumer[Any]]) -> None:
    assert consumer.batch_size >= 1
    assert consumer.max_attempts >= 1
    assert timedelta() <= consumer.first_backoff <= consumer.longest_backoff
    assert timedelta() < consumer.time_limit
