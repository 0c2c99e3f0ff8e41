"""Deleting an identity: consumers here first, then Kratos, each step kept until it is done."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError
from uuid_utils.compat import uuid7

from kratos_sync.application.consumer import Consumer
from kratos_sync.application.consumers.delete_from_kratos import DeleteFromKratos
from kratos_sync.application.consumers.forget_identity import ForgetIdentity
from kratos_sync.application.erase import watch_deletion
from kratos_sync.application.pipeline import Batch, deliver
from kratos_sync.application.ports.event_bus import LedgerUnavailable, Provenance
from kratos_sync.domain.events import (
    IdentityDeleted,
    IdentityDeletionRequested,
    KratosIdentityUpdated,
)
from kratos_sync.domain.identity import Identity
from kratos_sync.infrastructure.deletion import PostgresDeletions, request_deletion
from kratos_sync.infrastructure.erasure import PostgresErasures
from kratos_sync.infrastructure.kratos.admin_api import HttpKratosAdmin
from kratos_sync.testing.kratos import InMemoryDocuments
from tests.infrastructure.erasure.life import Life
from tests.infrastructure.kratos.clock import Clock
from tests.kratos.admin_stand_in import AdminStandIn
from tests.kratos.reply import broken
from tests.suites.ledgers import PostgresLedger
from tests.suites.occurrences import subscribed


class SayGoodbye(Consumer[IdentityDeleted]):
    """Lets a person go, as soon as it can."""

    name = "SayGoodbye"
    max_attempts = 2
    said: list[UUID]
    fails = False

    def consume(self, event: IdentityDeleted) -> None:
        """Say it, or fail."""
        if self.fails:
            raise RuntimeError("no letter paper")
        self.said.append(event.identity_id)


@pytest.fixture
def kratos() -> Iterator[AdminStandIn]:
    with AdminStandIn(InMemoryDocuments()) as stand_in:
        yield stand_in


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(engine: Engine, kratos: AdminStandIn, clock: Clock) -> Iterator[PostgresLedger]:
    ledger = PostgresLedger(engine)
    admin = HttpKratosAdmin(SecretStr(kratos.url), pause=clock.pause, clock=clock)
    ledger.kratos = admin  # type: ignore[assignment]  # the real one, at a real server
    SayGoodbye.said, SayGoodbye.fails = [], False
    with subscribed(ledger, IdentityDeleted, SayGoodbye):
        yield ledger
    admin.close()


@pytest.fixture
def life(ledger: PostgresLedger, kratos: AdminStandIn) -> Life:
    """Somebody whom Kratos and we know."""
    somebody = Life(ledger)
    assert isinstance(kratos.people, InMemoryDocuments)
    kratos.people.put(somebody.document())
    somebody.receive()
    somebody.consume_everything()
    return somebody


@pytest.fixture
def deletions(engine: Engine) -> PostgresDeletions:
    return PostgresDeletions(engine)


def due(ledger: PostgresLedger) -> None:
    """Let time pass: what waits is due."""
    ledger.query("UPDATE kratos_sync.deliveries SET due_at = now()")


def is_in_kratos(kratos: AdminStandIn, life: Life) -> bool:
    return kratos.people.shown(life.id) is not None


def outcomes(ledger: PostgresLedger, consumer: type[Consumer[Any]]) -> list[str]:
    return [each.outcome for each in ledger.attempts if each.consumer == consumer.name]


def test_consumers_here_come_first_and_kratos_last(
    ledger: PostgresLedger, life: Life, kratos: AdminStandIn, deletions: PostgresDeletions
) -> None:
    request = deletions.request(life.id, by="ada")

    life.consume(DeleteFromKratos)
    before = deletions.progress(request)
    assert [each.consumer for each in before.awaited] == ["ForgetIdentity"]
    life.consume(ForgetIdentity)
    due(ledger)
    life.consume(DeleteFromKratos)
    half = deletions.progress(request)
    assert half.deleted_here_at is not None
    assert [each.consumer for each in half.awaited] == ["SayGoodbye"]
    assert (SayGoodbye.said, is_in_kratos(kratos, life), half.is_done) == ([], True, False)
    life.consume(SayGoodbye)
    assert is_in_kratos(kratos, life)
    due(ledger)
    life.consume(DeleteFromKratos)

    assert (SayGoodbye.said, is_in_kratos(kratos, life)) == ([life.id], False)
    assert outcomes(ledger, DeleteFromKratos) == ["postponed", "postponed", "succeeded"]
    after = deletions.progress(request)
    assert (after.awaited, after.is_done, after.has_failed) == ((), True, False)


def test_the_reason_for_waiting_is_given(
    ledger: PostgresLedger, life: Life, deletions: PostgresDeletions
) -> None:
    deletions.request(life.id)

    life.consume(DeleteFromKratos)

    (attempt,) = [each for each in ledger.attempts if each.consumer == "DeleteFromKratos"]
    assert attempt.error is not None
    assert "ForgetIdentity has 1 pending" in attempt.error


def settle_all(ledger: PostgresLedger, life: Life) -> None:
    for _ in range(6):
        due(ledger)
        life.consume_everything()


def test_a_consumer_that_fails_holds_it_and_a_dead_letter_too_until_somebody_decides(
    ledger: PostgresLedger, life: Life, kratos: AdminStandIn, deletions: PostgresDeletions
) -> None:
    SayGoodbye.fails = True
    request = deletions.request(life.id)
    settle_all(ledger, life)

    seen = list(watch_deletion(deletions, request, 60))[-1]
    assert seen.is_held
    assert [(each.consumer, each.dead_letters) for each in seen.awaited] == [("SayGoodbye", 1)]
    assert is_in_kratos(kratos, life)

    SayGoodbye.fails = False
    ledger.query("UPDATE kratos_sync.deliveries SET failed_at = NULL, attempts = 0")
    settle_all(ledger, life)
    assert deletions.progress(request).is_done
    assert not is_in_kratos(kratos, life)


def test_a_kratos_that_is_away_is_waited_for(
    ledger: PostgresLedger, life: Life, kratos: AdminStandIn, deletions: PostgresDeletions
) -> None:
    here, clock = ledger.kratos, Clock()
    nowhere = HttpKratosAdmin(SecretStr("http://127.0.0.1:9"), pause=clock.pause, clock=clock)
    ledger.kratos = nowhere  # type: ignore[assignment]  # the real one, where nothing listens
    request = deletions.request(life.id)
    settle_all(ledger, life)
    assert is_in_kratos(kratos, life)
    assert set(outcomes(ledger, DeleteFromKratos)) == {"postponed"}
    assert not deletions.progress(request).is_held

    ledger.kratos = here
    settle_all(ledger, life)
    assert deletions.progress(request).is_done
    assert not is_in_kratos(kratos, life)


def test_an_answer_that_was_lost_is_no_failure(
    ledger: PostgresLedger, life: Life, kratos: AdminStandIn, deletions: PostgresDeletions
) -> None:
    """Kratos deleted the identity, and its answer was lost."""
    request = deletions.request(life.id)
    kratos.next(broken())
    settle_all(ledger, life)

    assert deletions.progress(request).is_done
    assert outcomes(ledger, DeleteFromKratos) == ["postponed", "succeeded"]


def test_a_kratos_that_refuses_makes_a_dead_letter(
    ledger: PostgresLedger, life: Life, kratos: AdminStandIn, deletions: PostgresDeletions
) -> None:
    kratos.authorization = "Bearer another"
    request = deletions.request(life.id)
    for _ in range(3):
        settle_all(ledger, life)

    assert deletions.progress(request).has_failed
    assert outcomes(ledger, DeleteFromKratos)[-1] == "gave_up"


def test_a_worker_that_dies_after_kratos_said_yes_does_no_harm(
    ledger: PostgresLedger, life: Life, kratos: AdminStandIn, deletions: PostgresDeletions
) -> None:
    request = deletions.request(life.id, by="ada", erase=True)
    life.consume(ForgetIdentity, SayGoodbye)
    unit = ledger.unit_of_work()
    kratos.before = lambda _: unit.abandon() if kratos.seen[-1].method == "DELETE" else None
    with suppress(LedgerUnavailable):
        deliver(Batch(DeleteFromKratos, [request], unit, ledger.failures))
    assert not is_in_kratos(kratos, life)
    assert not deletions.progress(request).is_done

    kratos.before = lambda _: None
    due(ledger)
    life.consume(DeleteFromKratos)

    assert deletions.progress(request).is_done
    assert ledger.query("SELECT by FROM kratos_sync.erasures") == [{"by": "ada"}]


def test_neither_a_webhook_nor_an_answer_brings_the_person_back_in_between(
    ledger: PostgresLedger, life: Life, deletions: PostgresDeletions
) -> None:
    deletions.request(life.id)
    seen_in_kratos = {**life.document(), "updated_at": datetime.now(UTC).isoformat()}
    answer = KratosIdentityUpdated(
        uuid7(), datetime.now(UTC) + timedelta(minutes=1), Identity.from_admin_api(seen_in_kratos)
    )
    ledger.publish(answer, Provenance("reconcile"))
    life.consume_everything()
    life.receive(updated_at=datetime.now(UTC).isoformat())
    ledger.publish(
        KratosIdentityUpdated(uuid7(), datetime.now(UTC) + timedelta(hours=1), answer.identity),
        Provenance("reconcile"),
    )
    settle_all(ledger, life)

    (row,) = ledger.query(
        "SELECT traits, deleted_at, forgotten_at FROM kratos_sync.kratos_identities"
    )
    assert row["traits"] is None
    assert row["deleted_at"] is not None
    assert row["forgotten_at"] is not None
    assert SayGoodbye.said == [life.id]


def test_asking_twice_does_no_harm(
    ledger: PostgresLedger, life: Life, kratos: AdminStandIn, deletions: PostgresDeletions
) -> None:
    requests = [deletions.request(life.id), deletions.request(life.id)]
    settle_all(ledger, life)

    assert all(deletions.progress(each).is_done for each in requests)
    assert SayGoodbye.said == [life.id]
    assert not is_in_kratos(kratos, life)
    assert ledger.deliveries == {}


def test_what_is_asked_for_in_a_transaction_that_is_rolled_back_was_never_asked_for(
    engine: Engine, ledger: PostgresLedger, life: Life
) -> None:
    with engine.connect() as connection:
        request_deletion(connection, life.id)
        connection.rollback()
        assert ledger.deliveries == {}
        request_deletion(connection, life.id)
        connection.commit()
    assert len(ledger.deliveries) == 2


def test_any_application_may_ask_in_sql(engine: Engine, ledger: PostgresLedger, life: Life) -> None:
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url) as connection:
        asked = connection.execute("SELECT kratos_sync.delete_identity(%s)", [life.id]).fetchone()
    assert asked is not None
    (request,) = asked

    recorded = ledger.events[request]
    event = IdentityDeletionRequested.from_json(
        recorded.id, recorded.occurred_at, {"identity_id": str(life.id)}
    )
    assert (recorded.name, recorded.subject) == (event.name, life.id)
    assert request.version == 7
    assert abs(request.int >> 80) // 1_000 == int(recorded.occurred_at.timestamp())
    subscribed_to_it = ledger.subscriptions.consumers_of(event.name)
    assert sorted(ledger.deliveries) == sorted((each, request) for each in subscribed_to_it)


def test_the_nil_uuid_is_refused(engine: Engine) -> None:
    with engine.connect() as connection, pytest.raises(DBAPIError, match="neither NULL nor"):
        connection.execute(text("SELECT kratos_sync.delete_identity(:nil)"), {"nil": UUID(int=0)})


def test_with_erase_nothing_of_the_person_is_left_in_the_end(
    engine: Engine, ledger: PostgresLedger, life: Life, deletions: PostgresDeletions
) -> None:
    deletions.request(life.id, by="ada", erase=True)
    settle_all(ledger, life)
    erasures = PostgresErasures(engine)
    assert erasures.due(10) == [life.id]

    list(erasures.erase([life.id]))

    assert life.left() == []


def test_a_discarded_deletion_is_no_deletion(
    ledger: PostgresLedger, life: Life, deletions: PostgresDeletions
) -> None:
    request = deletions.request(life.id)
    ledger.query("DELETE FROM kratos_sync.deliveries")

    seen = deletions.progress(request)

    assert (seen.is_done, seen.has_failed) == (False, True)


def waiting(clock: Clock) -> dict[str, Callable[..., Any]]:
    return {"clock": clock, "pause": clock.pause}


def test_watching_ends_when_its_time_is_up(life: Life, deletions: PostgresDeletions) -> None:
    clock = Clock()
    request = deletions.request(life.id)

    (seen,) = watch_deletion(deletions, request, 3, **waiting(clock))

    assert not seen.is_done
    assert 3 <= sum(clock.pauses) < 5
