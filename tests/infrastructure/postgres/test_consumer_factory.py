"""Consumers are given what their constructors ask for."""

from typing import Any

import pytest

from kratos_sync.application.application import InvalidApplication, Subscriptions
from kratos_sync.application.consumer import Consumer
from kratos_sync.application.consumer_factory import ConsumerFactory
from kratos_sync.application.consumers.count_registrations import RegistrationCounts
from kratos_sync.application.subscriptions import SUBSCRIPTIONS
from kratos_sync.domain.events import KratosIdentityGone
from kratos_sync.domain.kratos_identities import KratosIdentities
from kratos_sync.infrastructure.container import Container
from kratos_sync.infrastructure.postgres.transaction import Transaction
from kratos_sync.testing.fakes import InMemoryKratosIdentities, InMemoryRegistrationCounts

PORTS: dict[type[Any], Any] = {
    KratosIdentities: lambda _: InMemoryKratosIdentities(),
    RegistrationCounts: lambda _: InMemoryRegistrationCounts(),
}


class AskForNothing(Consumer[KratosIdentityGone]):
    name = "AskForNothing"

    def consume(self, event: KratosIdentityGone) -> None: ...


class AskForBoth(AskForNothing):
    def __init__(self, identities: KratosIdentities, *, counts: RegistrationCounts) -> None:
        self.identities, self.counts = identities, counts


class AskForTheMoon(AskForNothing):
    def __init__(self, moon: complex) -> None: ...


class AskForTheMoonByName(AskForNothing):
    def __init__(self, *, moon: complex) -> None: ...


class AskForAnything(AskForNothing):
    def __init__(self, anything) -> None: ...  # type: ignore[no-untyped-def]


class AskForTheUnknown(AskForNothing):
    def __init__(self, unknown: "Unknown") -> None: ...  # type: ignore[name-defined]  # noqa: F821


@pytest.fixture
def transaction() -> Transaction:
    return Transaction(engine=None)  # type: ignore[arg-type]


def test_a_consumer_gets_what_it_asks_for(transaction: Transaction) -> None:
    consumer = ConsumerFactory([AskForBoth], PORTS)(AskForBoth, transaction)

    assert isinstance(consumer, AskForBoth)
    assert isinstance(consumer.identities, InMemoryKratosIdentities)
    assert isinstance(consumer.counts, InMemoryRegistrationCounts)


def test_a_consumer_may_ask_for_nothing(transaction: Transaction) -> None:
    assert isinstance(
        ConsumerFactory([AskForNothing], {})(AskForNothing, transaction), AskForNothing
    )


def test_what_a_consumer_gets_works_in_its_transaction(transaction: Transaction) -> None:
    given: list[Transaction] = []
    ports: dict[type[Any], Any] = {**PORTS, KratosIdentities: given.append}

    ConsumerFactory([AskForBoth], ports)(AskForBoth, transaction)

    assert given == [transaction]


def test_each_transaction_has_a_consumer_of_its_own(transaction: Transaction) -> None:
    factory = ConsumerFactory([AskForBoth], PORTS)

    one, other = factory(AskForBoth, transaction), factory(AskForBoth, transaction)

    assert one is not other
    assert isinstance(one, AskForBoth)
    assert isinstance(other, AskForBoth)
    assert one.identities is not other.identities


@pytest.mark.parametrize("kind", [AskForTheMoon, AskForTheMoonByName])
def test_a_port_that_nothing_serves_is_refused_at_once(kind: type[Consumer[Any]]) -> None:
    with pytest.raises(
        InvalidApplication, match=rf"^{kind.__name__} asks for .*, which nothing serves$"
    ):
        ConsumerFactory([AskForNothing, kind], PORTS)


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (
            AskForAnything,
            "the parameter anything of AskForAnything's constructor needs an annotation",
        ),
        (
            AskForTheUnknown,
            "an annotation of AskForTheUnknown's constructor cannot be evaluated:"
            " NameError: name 'Unknown' is not defined",
        ),
    ],
)
def test_a_parameter_that_names_no_port_is_refused_at_once(
    kind: type[Consumer[Any]], sentence: str
) -> None:
    with pytest.raises(InvalidApplication) as refused:
        ConsumerFactory([AskForNothing, kind], PORTS)

    assert str(refused.value) == sentence


@pytest.mark.parametrize("kind", Subscriptions(SUBSCRIPTIONS).consumers.values())
def test_the_container_can_make_every_consumer_of_the_table(
    kind: type[Consumer[Any]], container: Container, transaction: Transaction
) -> None:
    assert isinstance(container.consumers()(kind, transaction), kind)


def test_what_works_outside_of_the_transaction_is_given_as_it_is(transaction: Transaction) -> None:
    identities, counts = InMemoryKratosIdentities(), InMemoryRegistrationCounts()
    factory = ConsumerFactory(
        [AskForBoth], {KratosIdentities: lambda _: identities}, {RegistrationCounts: counts}
    )

    consumer = factory(AskForBoth, transaction)

    assert isinstance(consumer, AskForBoth)
    assert (consumer.identities, consumer.counts) == (identities, counts)
