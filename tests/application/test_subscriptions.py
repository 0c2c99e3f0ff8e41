"""The service's own subscriptions, and what an application may not subscribe."""

from datetime import timedelta
from typing import Any, Never

import pytest

from kratos_sync.application.application import InvalidApplication, Subscriptions, Table
from kratos_sync.application.consumer import Consumer
from kratos_sync.application.consumers.sync_kratos_identity import SyncKratosIdentity
from kratos_sync.application.subscriptions import SUBSCRIPTIONS
from kratos_sync.domain.events import (
    DomainEvent,
    IdentityDeleted,
    IdentityRegistered,
    KratosIdentityUpdated,
)

OWN = Subscriptions(SUBSCRIPTIONS)
HOUR = timedelta(hours=1)
every_consumer = pytest.mark.parametrize("consumer", OWN.consumers.values(), ids=OWN.consumers)


class KeepSubscribers(Consumer[IdentityRegistered | IdentityDeleted]):
    name = "KeepSubscribers"

    def consume(self, event: IdentityRegistered | IdentityDeleted) -> None:
        raise NotImplementedError


class SendWelcomeEmail(Consumer[IdentityRegistered]):
    name = "SendWelcomeEmail"

    def consume(self, event: IdentityRegistered) -> None:
        raise NotImplementedError


class ReadEverything(Consumer[DomainEvent]):
    name = "ReadEverything"

    def consume(self, event: DomainEvent) -> None:
        raise NotImplementedError


class Unknown(DomainEvent):
    name = "identity.unknown"


class SetTwice(SendWelcomeEmail):
    pass


class Nameless(Consumer[IdentityRegistered]):
    def consume(self, event: IdentityRegistered) -> None:
        raise NotImplementedError


class Idle(Consumer[IdentityRegistered]):
    name = "Idle"


def with_policy(**policy: Any) -> type[Consumer[Any]]:
    return type("Policy", (SendWelcomeEmail,), {"name": "Policy", **policy})


def named(name: str) -> type[Consumer[Any]]:
    return type("Named", (SendWelcomeEmail,), {"name": name})


@every_consumer
def test_a_consumer_of_ours_is_named_after_its_class_and_explains_itself(
    consumer: type[Consumer[Any]],
) -> None:
    assert consumer.name == consumer.__name__
    assert consumer.__doc__


def test_each_event_has_the_consumers_of_every_table() -> None:
    both = Subscriptions(SUBSCRIPTIONS, {KratosIdentityUpdated: [ReadEverything]})

    assert both.consumers_of("kratos_identity.updated") == ("SyncKratosIdentity", "ReadEverything")
    assert both.events_of("ReadEverything") == ("kratos_identity.updated",)
    assert both.consumers.keys() == {*OWN.consumers, "ReadEverything"}
    assert set(both) == {*OWN, ("kratos_identity.updated", "ReadEverything")}


def test_a_class_may_consume_several_events() -> None:
    subscriptions = Subscriptions(
        {
            IdentityRegistered: [SendWelcomeEmail, KeepSubscribers],
            IdentityDeleted: [KeepSubscribers],
        }
    )

    assert subscriptions.events_of("KeepSubscribers") == ("identity.registered", "identity.deleted")


def test_a_consumer_of_every_event_may_subscribe_to_any() -> None:
    assert Subscriptions({IdentityDeleted: [ReadEverything]}).events_of("ReadEverything")


def test_a_policy_may_be_all_that_is_documented() -> None:
    policy = with_policy(
        ordered=True,
        skips_dead_letters=True,
        gives_up_on=(ValueError, KeyboardInterrupt),
        rate="100/minute",
        concurrency=1,
        longest_backoff=timedelta(seconds=1),
    )

    assert Subscriptions({IdentityRegistered: [policy]}).consumers == {"Policy": policy}


def test_what_is_not_subscribed_has_no_events_and_no_consumers() -> None:
    assert OWN.events_of("SendWelcomeEmail") == ()
    assert OWN.consumers_of("identity.deleted") == ()


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({Unknown: [ReadEverything]}, "Unknown is no event of this release"),
        ({"identity.deleted": [ReadEverything]}, "'identity.deleted' is no event of this release"),
        ({IdentityDeleted: [Unknown]}, "Unknown is no subclass of Consumer"),
        ({IdentityDeleted: ["KeepSubscribers"]}, "'KeepSubscribers' is no subclass of Consumer"),
        (
            {IdentityDeleted: [SendWelcomeEmail]},
            "SendWelcomeEmail is subscribed to IdentityDeleted, and is a"
            " Consumer[IdentityRegistered]",
        ),
        (
            {IdentityRegistered: [SendWelcomeEmail, SendWelcomeEmail]},
            "SendWelcomeEmail is subscribed to IdentityRegistered twice",
        ),
        (
            {IdentityRegistered: [SendWelcomeEmail, SetTwice]},
            "two consumers have the name SendWelcomeEmail",
        ),
        (
            {IdentityRegistered: [Nameless]},
            "Nameless needs a name of letters, digits, dots, hyphens and underscores",
        ),
        (
            {IdentityRegistered: [named("two words")]},
            "Named needs a name of letters, digits, dots, hyphens and underscores",
        ),
        ({IdentityRegistered: [Idle]}, "Idle has no method consume"),
        ({IdentityRegistered: [with_policy(batch_size=0)]}, "Policy has a wrong batch_size"),
        (
            {
                IdentityRegistered: [
                    with_policy(max_attempts=0, time_limit=timedelta(), first_backoff=-HOUR)
                ]
            },
            "Policy has a wrong max_attempts and first_backoff and time_limit",
        ),
        (
            {IdentityRegistered: [with_policy(longest_backoff=timedelta())]},
            "Policy has a wrong longest_backoff",
        ),
        (
            {
                IdentityRegistered: [
                    with_policy(
                        batch_size="x",
                        max_attempts=None,
                        first_backoff=1,
                        longest_backoff=60,
                        gives_up_on=ValueError,
                        time_limit=5,
                        rate=100,
                        concurrency="2",
                    )
                ]
            },
            "Policy has a wrong batch_size and max_attempts and first_backoff and longest_backoff"
            " and gives_up_on and time_limit and rate and concurrency",
        ),
        (
            {IdentityRegistered: [with_policy(gives_up_on=(ValueError, "KeyError"))]},
            "Policy has a wrong gives_up_on",
        ),
        (
            {IdentityRegistered: [with_policy(skips_dead_letters=True)]},
            "Policy has skips_dead_letters, and is not ordered",
        ),
    ],
)
def test_what_cannot_be_delivered_is_refused_in_a_sentence(table: Table, sentence: str) -> None:
    with pytest.raises(InvalidApplication) as refused:
        Subscriptions(table)

    assert str(refused.value) == sentence


def test_the_name_of_one_of_our_consumers_is_taken() -> None:
    class Another(SyncKratosIdentity):
        def consume(self, event: KratosIdentityUpdated) -> Never:
            raise NotImplementedError

    with pytest.raises(InvalidApplication, match="two consumers have the name SyncKratosIdentity"):
        Subscriptions(SUBSCRIPTIONS, {KratosIdentityUpdated: [Another]})
