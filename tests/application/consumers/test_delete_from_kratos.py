from datetime import UTC, datetime, timedelta

import pytest

from kratos_sync.application.consumer import RetryLater
from kratos_sync.application.consumers.delete_from_kratos import DeleteFromKratos, WaitsForOthers
from kratos_sync.application.ports.deletions import AwaitedConsumer
from kratos_sync.application.ports.kratos import (
    KratosNotConfigured,
    KratosRefused,
    KratosUnavailable,
)
from kratos_sync.application.retry_delays import LONGEST_WAIT, WAIT_FOR_A_URL
from kratos_sync.domain.events import IdentityDeletionRequested
from kratos_sync.testing.fakes import InMemoryDeletionFinalizer
from kratos_sync.testing.kratos import InMemoryDocuments, InMemoryKratos
from tests.domain.people import cause
from tests.kratos.persons import person


@pytest.fixture
def kratos() -> InMemoryKratos:
    return InMemoryKratos(InMemoryDocuments([person()]))


@pytest.fixture
def finalizer(kratos: InMemoryKratos) -> InMemoryDeletionFinalizer:
    return InMemoryDeletionFinalizer(kratos)


def requested(
    kratos: InMemoryKratos, *, ago: timedelta = timedelta(), erase: bool = False
) -> IdentityDeletionRequested:
    assert isinstance(kratos.people, InMemoryDocuments)
    (identity_id,) = kratos.people.documents
    at = datetime.now(UTC) - ago
    return IdentityDeletionRequested(cause(1), at, identity_id, "ada", erase)


def test_it_deletes_once_no_other_consumer_has_a_delivery(
    kratos: InMemoryKratos, finalizer: InMemoryDeletionFinalizer
) -> None:
    event = requested(kratos)

    DeleteFromKratos(finalizer).consume(event)

    assert kratos.find(event.identity_id) is None
    assert finalizer.erased == []


def test_it_waits_for_others_and_names_them(kratos: InMemoryKratos) -> None:
    event = requested(kratos, ago=timedelta(seconds=40))
    finalizer = InMemoryDeletionFinalizer(
        kratos,
        lambda _: [
            AwaitedConsumer("SendGoodbye", 2, 1),
            AwaitedConsumer("ForgetIdentity", 1, 0),
        ],
    )

    with pytest.raises(WaitsForOthers) as raised:
        DeleteFromKratos(finalizer).consume(event)

    assert raised.value.__notes__ == [
        "SendGoodbye has 2 pending, 1 of them dead letters, ForgetIdentity has 1 pending"
    ]
    assert timedelta(seconds=10) <= raised.value.delay < timedelta(seconds=14)
    assert kratos.find(event.identity_id)


def test_who_waits_for_days_is_looked_at_now_and_then(kratos: InMemoryKratos) -> None:
    awaited = [AwaitedConsumer("SendGoodbye", 1, 1)]
    finalizer = InMemoryDeletionFinalizer(kratos, lambda _: awaited)

    with pytest.raises(WaitsForOthers) as raised:
        DeleteFromKratos(finalizer).consume(requested(kratos, ago=timedelta(days=3)))

    assert LONGEST_WAIT <= raised.value.delay <= 1.3 * LONGEST_WAIT


def test_a_worker_that_does_not_know_where_kratos_is_leaves_it_to_another(
    kratos: InMemoryKratos, finalizer: InMemoryDeletionFinalizer
) -> None:
    kratos.fail(error=KratosNotConfigured())

    with pytest.raises(RetryLater) as raised:
        DeleteFromKratos(finalizer).consume(requested(kratos))

    assert raised.value.delay >= WAIT_FOR_A_URL


def test_a_kratos_that_is_away_is_no_failure(
    kratos: InMemoryKratos, finalizer: InMemoryDeletionFinalizer
) -> None:
    kratos.fail(error=KratosUnavailable("it is away", timedelta(minutes=9)))

    with pytest.raises(RetryLater) as raised:
        DeleteFromKratos(finalizer).consume(requested(kratos, erase=True))

    assert raised.value.delay == timedelta(minutes=9)
    assert finalizer.erased == []


def test_a_kratos_that_refuses_is_a_failure(
    kratos: InMemoryKratos, finalizer: InMemoryDeletionFinalizer
) -> None:
    kratos.fail(error=KratosRefused("it wants credentials", 401))

    with pytest.raises(KratosRefused):
        DeleteFromKratos(finalizer).consume(requested(kratos))


def test_who_was_deleted_before_is_no_failure(
    kratos: InMemoryKratos, finalizer: InMemoryDeletionFinalizer
) -> None:
    event = requested(kratos, erase=True)

    DeleteFromKratos(finalizer).consume(event)
    DeleteFromKratos(finalizer).consume(event)

    assert {(who, by) for who, by, _ in finalizer.erased} == {(event.identity_id, "ada")}
