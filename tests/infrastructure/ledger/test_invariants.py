"""What must always hold of the ledger (design, section 4), on a real PostgreSQL and Redis."""

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import dramatiq
import psycopg
import pytest
import redis
from dramatiq import Message
from pydantic import SecretStr
from sqlalchemy import Engine, event, text

from kratos_sync.application.application import Subscriptions
from kratos_sync.application.consumer import Consumer
from kratos_sync.application.consumers.count_registrations import CountRegistrations
from kratos_sync.application.consumers.sync_kratos_identity import SyncKratosIdentity
from kratos_sync.application.pipeline import Batch, deliver
from kratos_sync.application.ports.event_bus import LedgerUnavailable, Provenance
from kratos_sync.application.subscriptions import SUBSCRIPTIONS
from kratos_sync.domain.events import IdentityRegistered, KratosIdentityUpdated
from kratos_sync.domain.json_values import Json
from kratos_sync.domain.kratos_identities import KratosIdentities
from kratos_sync.infrastructure.bus.actor import Actor
from kratos_sync.infrastructure.bus.broker import BrokerUnavailable
from kratos_sync.infrastructure.bus.redis import WakefulRedisBroker
from kratos_sync.infrastructure.bus.relay import FIRST_BATCHES, Relay
from kratos_sync.infrastructure.ledger import backlog
from kratos_sync.infrastructure.ledger.claims import PostgresClaims
from kratos_sync.infrastructure.ledger.notifications import WakeUpListener
from kratos_sync.infrastructure.ledger.recording import record_many
from kratos_sync.infrastructure.worker.watchdog import Watchdog
from tests.domain.people import ADA, GRACE, NOON, cause, minutes
from tests.suites.ledgers import PostgresLedger, policies_of
from tests.suites.occurrences import HEDY, MARY, WEBHOOK, person, subscribed, updated
from tests.waiting import DEADLINE_SECONDS, at_once, until

SYNC = SyncKratosIdentity.name
SUBSCRIBED = Subscriptions(SUBSCRIPTIONS)
LEASE = timedelta(seconds=30)


@pytest.fixture
def ledger(engine: Engine) -> PostgresLedger:
    return PostgresLedger(engine)


@pytest.fixture(autouse=True)
def full_scans(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let relays find what these tests set back in time, below any low-water mark, at once."""
    monkeypatch.setattr(backlog, "SLOW_SECONDS", math.inf)


@pytest.fixture
def claims(engine: Engine) -> PostgresClaims:
    return PostgresClaims(engine, LEASE)


@pytest.fixture
def relay(claims: PostgresClaims, broker: WakefulRedisBroker, database_url: str) -> Relay:
    return Relay(
        claims, broker, WakeUpListener(SecretStr(database_url)), SUBSCRIBED, policies_of(claims)
    )


def work(
    ledger: PostgresLedger,
    *event_ids: UUID,
    consumer: type[Consumer[Any]] = SyncKratosIdentity,
) -> None:
    """What a worker does with a message."""
    deliver(Batch(consumer, event_ids, ledger.unit_of_work(consumer), ledger))


def let_the_backoff_end(ledger: PostgresLedger) -> None:
    ledger.query("UPDATE kratos_sync.deliveries SET due_at = now() - interval '1 year'")


def publish_to(consumer: type[Consumer[Any]], ledger: PostgresLedger, *people: UUID) -> None:
    with subscribed(ledger, KratosIdentityUpdated, consumer):
        for number, who in enumerate(people, start=1):
            assert ledger.publish(updated(number, who), WEBHOOK)


def terminate_others(ledger: PostgresLedger) -> int:
    """Kill every connection that is amid a transaction."""
    killed = ledger.query(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        " AND datname = current_database() AND state = 'idle in transaction'"
    )
    return len(killed)


@contextmanager
def killed_before_commit(ledger: PostgresLedger) -> Iterator[None]:
    """The next transaction loses its connection when it wants to commit."""
    doomed: list[object] = []

    def kill(connection: object) -> None:
        if not doomed:
            doomed.append(connection)
            assert terminate_others(ledger) == 1

    event.listen(ledger.engine, "commit", kill)
    try:
        yield
    finally:
        event.remove(ledger.engine, "commit", kill)
    assert doomed, "nobody committed"


@contextmanager
def killed_while_recording(ledger: PostgresLedger) -> Iterator[None]:
    """Who records an event loses its connection between the event and its deliveries."""
    at_work = (
        "SELECT pid FROM pg_stat_activity"
        " WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )

    def kill() -> None:
        (row,) = until(lambda: ledger.query(at_work))
        assert ledger.query("SELECT pg_terminate_backend(:pid, 5000) AS done", **row)[0]["done"]

    with ledger.engine.begin() as holding:
        holding.execute(text("LOCK kratos_sync.deliveries"))
        killer = threading.Thread(target=kill)
        killer.start()
        yield
        killer.join()


def let_leases_run_out(ledger: PostgresLedger) -> None:
    ledger.query("UPDATE kratos_sync.deliveries SET due_at = now() - interval '1ms' WHERE leased")


def pointers(broker: WakefulRedisBroker) -> list[UUID]:
    """The event ids in all messages that wait in Redis."""
    found: list[UUID] = []
    client: Any = broker.client
    for key in client.scan_iter(f"{broker.namespace}:*.msgs"):
        for encoded in client.hvals(key):
            found += [UUID(each) for each in Message.decode(encoded).kwargs["event_ids"]]
    return found


def flush(broker: WakefulRedisBroker) -> None:
    for key in broker.client.scan_iter(f"{broker.namespace}:*"):
        broker.client.delete(key)


def leased(ledger: PostgresLedger) -> int:
    rows = ledger.query("SELECT 1 FROM kratos_sync.deliveries WHERE leased AND due_at > now()")
    return len(rows)


# 1. An event is recorded if and only if its cause committed.


def test_invariant_1_what_publish_returned_from_is_there_for_everybody(
    ledger: PostgresLedger, postgres_url: str, database_url: str
) -> None:
    ledger.publish(updated(1), WEBHOOK)

    with psycopg.connect(database_url) as stranger:
        seen = stranger.execute("SELECT id FROM kratos_sync.events").fetchall()
    assert seen == [(cause(1),)]


def test_invariant_1_a_publish_that_is_killed_before_its_commit_leaves_nothing(
    ledger: PostgresLedger,
) -> None:
    with killed_while_recording(ledger), pytest.raises(LedgerUnavailable):
        ledger.publish(updated(1), WEBHOOK)

    assert (ledger.events, ledger.deliveries) == ({}, {})


def test_invariant_1_a_publish_that_was_killed_may_be_tried_again(ledger: PostgresLedger) -> None:
    provenance = Provenance("webhook", dedupe_key="ada at noon")
    with killed_while_recording(ledger), pytest.raises(LedgerUnavailable):
        ledger.publish(updated(1), provenance)

    assert ledger.publish(updated(2), provenance)

    assert list(ledger.events) == [cause(2)]


def test_invariant_1_a_fact_whose_cause_did_not_commit_was_never_recorded(
    ledger: PostgresLedger,
) -> None:
    ledger.publish(updated(1), WEBHOOK)

    with killed_before_commit(ledger), pytest.raises(LedgerUnavailable):
        work(ledger, cause(1))

    assert list(ledger.events) == [cause(1)]
    assert list(ledger.deliveries) == [(SYNC, cause(1))]


# 2. The delivery to each subscribed consumer is written in the same transaction as the event.


def writers(ledger: PostgresLedger, table: str) -> set[str]:
    rows = ledger.query(f"SELECT xmin::text AS writer FROM kratos_sync.{table}")
    assert rows
    return {row["writer"] for row in rows}


def test_invariant_2_an_event_and_its_deliveries_are_written_by_one_transaction(
    ledger: PostgresLedger,
) -> None:
    class Congratulate(SyncKratosIdentity):
        name = "Congratulate"

    with subscribed(ledger, KratosIdentityUpdated, SyncKratosIdentity, Congratulate):
        ledger.publish(updated(1), WEBHOOK)

    assert list(ledger.deliveries) == [("Congratulate", cause(1)), (SYNC, cause(1))]
    assert len(writers(ledger, "events") | writers(ledger, "deliveries")) == 1


def test_invariant_2_a_fact_and_its_deliveries_are_written_with_what_caused_them(
    ledger: PostgresLedger,
) -> None:
    ledger.publish(updated(1), WEBHOOK)

    work(ledger, cause(1))

    (fact,) = ledger.query(
        "SELECT xmin::text AS writer FROM kratos_sync.events WHERE name = 'identity.registered'"
    )
    assert next(iter(ledger.deliveries))[0] == CountRegistrations.name
    assert {fact["writer"]} == writers(ledger, "deliveries") == writers(ledger, "attempts")
    assert {fact["writer"]} == writers(ledger, "kratos_identities")


# 3. A delivery row goes away only in the transaction that holds the consumer's own writes.


def registered(number: int) -> IdentityRegistered:
    return IdentityRegistered(cause(number), minutes(1), person(number), 1, {}, NOON)


def registrations(ledger: PostgresLedger) -> int:
    (row,) = ledger.query(
        "SELECT coalesce(sum(registrations), 0)::int AS n FROM kratos_sync.registrations_per_day"
    )
    count: int = row["n"]
    return count


def test_invariant_3_a_delivery_goes_away_only_with_the_consumers_own_writes(
    ledger: PostgresLedger,
) -> None:
    ledger.publish(registered(1), WEBHOOK)

    with killed_before_commit(ledger), pytest.raises(LedgerUnavailable):
        work(ledger, cause(1), consumer=CountRegistrations)
    pending_after_the_kill, counted_after_the_kill = list(ledger.deliveries), registrations(ledger)
    work(ledger, cause(1), consumer=CountRegistrations)

    assert pending_after_the_kill == [(CountRegistrations.name, cause(1))]
    assert counted_after_the_kill == 0
    assert (ledger.deliveries, registrations(ledger)) == ({}, 1)


def test_invariant_3_a_consumer_that_fails_after_writing_has_written_nothing(
    ledger: PostgresLedger,
) -> None:
    class CountAndFall(CountRegistrations):
        name = "CountAndFall"

        def consume(self, event: IdentityRegistered) -> None:
            super().consume(event)
            raise OSError("fell")

    with subscribed(ledger, IdentityRegistered, CountAndFall):
        ledger.publish(registered(1), WEBHOOK)

    work(ledger, cause(1), consumer=CountAndFall)

    assert [each.attempts for each in ledger.deliveries.values()] == [1]
    assert registrations(ledger) == 0


def test_invariant_3_a_message_that_comes_three_times_counts_once(ledger: PostgresLedger) -> None:
    for number in range(1, 6):
        ledger.publish(registered(number), WEBHOOK)
    ids = [cause(number) for number in range(1, 6)]

    for _ in range(3):
        work(ledger, *ids, consumer=CountRegistrations)

    assert registrations(ledger) == 5
    assert [each.number for each in ledger.attempts] == [1] * 5


def test_invariant_3_a_message_that_comes_to_four_workers_at_once_counts_once(
    ledger: PostgresLedger,
) -> None:
    ids = [cause(number) for number in range(1, 41)]
    for number in range(1, 41):
        ledger.publish(registered(number), WEBHOOK)

    def same_message() -> None:
        work(ledger, *ids, consumer=CountRegistrations)

    at_once(*[same_message] * 4)
    same_message()

    assert registrations(ledger) == 40
    assert ledger.deliveries == {}
    assert sorted(each.event_id for each in ledger.attempts) == ids


# 4. Dispatched is not done: Redis holds pointers, and nothing that is not also in the ledger.


def test_invariant_4_redis_holds_consumers_and_ids_and_nothing_of_a_person(
    ledger: PostgresLedger, relay: Relay, broker: WakefulRedisBroker
) -> None:
    secrets: Json = {"email": "countess@lovelace.example", "name": "Augusta", "born": 18151210}
    ledger.publish(
        updated(1, traits=secrets), Provenance("webhook", "dedupe-augusta", "00-trace-span-01")
    )
    ledger.publish(updated(2, GRACE, traits=secrets), WEBHOOK)

    relay.turn()

    client: Any = broker.client
    messages = []
    for key in client.scan_iter(f"{broker.namespace}:*"):
        kind = client.type(key)
        if kind == b"hash":
            messages += [Message.decode(value) for value in client.hgetall(key).values()]
        elif kind == b"list":
            assert client.lrange(key, 0, -1) == client.hkeys(key.decode() + ".msgs")
        else:
            assert kind == b"zset", "nothing but queues and heartbeats"
            assert key.endswith(b"__heartbeats__")
    (message,) = messages
    assert message.kwargs == {
        "version": 1,
        "consumer": SYNC,
        "event_ids": [str(cause(2)), str(cause(1))],
    }
    assert message.args == ()
    assert set(message.options) <= {"redis_message_id"}
    everything = str(messages)
    for secret in ("lovelace", "Augusta", "18151210", "trace", "dedupe", str(ADA), "attempt"):
        assert secret not in everything


def test_invariant_4_a_claim_moves_the_due_time_a_lease_ahead(
    ledger: PostgresLedger, relay: Relay
) -> None:
    ledger.publish(updated(1), WEBHOOK)

    before = ledger.now
    relay.turn()

    (delivery,) = ledger.deliveries.values()
    assert before + LEASE <= delivery.due_at <= ledger.now + LEASE
    assert (delivery.attempts, delivery.last_error) == (0, None)


def test_invariant_4_a_flushed_redis_only_makes_it_due_again_after_the_lease(
    ledger: PostgresLedger, relay: Relay, broker: WakefulRedisBroker
) -> None:
    ledger.publish(updated(1), WEBHOOK)
    relay.turn()
    flush(broker)

    relay.turn()
    under_lease = pointers(broker)
    let_leases_run_out(ledger)
    relay.turn()

    assert under_lease == []
    assert pointers(broker) == [cause(1)]
    assert [each.attempts for each in ledger.deliveries.values()] == [0]


def test_invariant_4_a_lease_runs_out_by_itself(
    ledger: PostgresLedger, engine: Engine, broker: WakefulRedisBroker, database_url: str
) -> None:
    claims = PostgresClaims(engine, timedelta(milliseconds=50))
    relay = Relay(
        claims, broker, WakeUpListener(SecretStr(database_url)), SUBSCRIBED, policies_of(claims)
    )
    ledger.publish(updated(1), WEBHOOK)
    relay.turn()
    flush(broker)

    until(lambda: relay.turn() and pointers(broker))

    assert pointers(broker) == [cause(1)]


def test_invariant_4_a_broker_that_is_away_costs_no_lease(
    ledger: PostgresLedger, claims: PostgresClaims, database_url: str
) -> None:
    nowhere = WakefulRedisBroker(redis.Redis(port=1, socket_connect_timeout=1))
    relay = Relay(
        claims, nowhere, WakeUpListener(SecretStr(database_url)), SUBSCRIBED, policies_of(claims)
    )
    ledger.publish(updated(1), WEBHOOK)

    with pytest.raises(BrokerUnavailable):
        relay.turn()

    (delivery,) = ledger.deliveries.values()
    assert (delivery.due_at <= ledger.now, delivery.attempts) == (True, 0)
    assert leased(ledger) == 0


# 5. A failing consumer moves due_at by its backoff; after max_attempts a dead letter stays.


class LoseHeart(SyncKratosIdentity):
    """Fails each time."""

    name = "LoseHeart"
    max_attempts = 3
    first_backoff = timedelta(minutes=10)

    def consume(self, event: KratosIdentityUpdated) -> None:
        super().consume(event)
        raise LookupError("no heart left")


def test_invariant_5_a_failure_moves_the_due_time_by_its_backoff_and_leaves_its_error(
    ledger: PostgresLedger,
) -> None:
    publish_to(LoseHeart, ledger, ADA)

    waits = []
    for _ in range(2):
        work(ledger, cause(1), consumer=LoseHeart)
        (delivery,) = ledger.deliveries.values()
        waits.append((delivery.due_at - ledger.now).total_seconds() / 60)
        let_the_backoff_end(ledger)

    assert 7 < waits[0] <= 10
    assert 15 < waits[1] <= 20
    assert (delivery.attempts, delivery.is_dead) == (2, False)
    assert delivery.last_error is not None
    assert delivery.last_error.endswith("LookupError: no heart left")


def test_invariant_5_a_dead_letter_stays_with_its_last_error_and_traceback(
    ledger: PostgresLedger, claims: PostgresClaims
) -> None:
    publish_to(LoseHeart, ledger, ADA)
    for _ in range(5):
        work(ledger, cause(1), consumer=LoseHeart)
        let_the_backoff_end(ledger)

    claimed = claims.claim(LoseHeart.name, 10)

    (delivery,) = ledger.deliveries.values()
    assert claimed.event_ids == []
    assert (delivery.attempts, delivery.is_dead) == (3, True)
    assert delivery.last_error is not None
    assert delivery.last_error.startswith("Traceback (most recent call last):")
    assert 'raise LookupError("no heart left")' in delivery.last_error
    assert [(each.number, each.outcome) for each in ledger.attempts] == [
        (1, "failed"),
        (2, "failed"),
        (3, "gave_up"),
    ]
    assert all("no heart left" in (each.error or "") for each in ledger.attempts)


def test_invariant_5_one_failing_event_does_not_hold_up_the_others(ledger: PostgresLedger) -> None:
    class AdmitAllButGrace(SyncKratosIdentity):
        name = "AdmitAllButGrace"

        def consume(self, event: KratosIdentityUpdated) -> None:
            super().consume(event)
            if event.identity.id == GRACE:
                raise PermissionError("not Grace")

    publish_to(AdmitAllButGrace, ledger, ADA, GRACE, MARY)

    work(ledger, cause(1), cause(2), cause(3), consumer=AdmitAllButGrace)

    assert sorted((each.event_id, each.number, each.outcome) for each in ledger.attempts) == [
        (cause(1), 1, "succeeded"),
        (cause(2), 1, "failed"),
        (cause(3), 1, "succeeded"),
    ]
    assert {row["id"] for row in ledger.query("SELECT id FROM kratos_sync.kratos_identities")} == {
        ADA,
        MARY,
    }
    facts = "SELECT subject FROM kratos_sync.events WHERE name = 'identity.registered'"
    assert {row["subject"] for row in ledger.query(facts)} == {ADA, MARY}


def test_invariant_5_a_value_that_postgresql_cannot_hold_is_a_failed_attempt(
    ledger: PostgresLedger,
) -> None:
    """Not an unavailable ledger, which would be tried again for ever and never be counted."""
    ledger.publish(updated(1, ADA, external_id="NUL \x00"), WEBHOOK)
    ledger.publish(updated(2, GRACE, traits={"name": "NUL \x00"}), WEBHOOK)
    ledger.publish(updated(3, MARY, traits={"name": "half a pair \\ud83d"}), WEBHOOK)
    ledger.publish(updated(4, HEDY), WEBHOOK)

    work(ledger, *(cause(number) for number in range(1, 5)))

    assert [(each.event_id, each.outcome) for each in ledger.attempts] == [
        (cause(1), "failed"),
        (cause(2), "failed"),
        (cause(3), "succeeded"),
        (cause(4), "succeeded"),
    ]


# 6. No high-water mark: the relay claims by state, SKIP LOCKED, in a short transaction.


def test_invariant_6_a_row_that_commits_late_is_not_lost(
    ledger: PostgresLedger, relay: Relay, broker: WakefulRedisBroker
) -> None:
    with ledger.engine.begin() as late:
        record_many(late, [(updated(1, ADA), WEBHOOK)])
        ledger.publish(updated(2, GRACE), WEBHOOK)
        relay.turn()
        work(ledger, cause(2))
        before = pointers(broker)

    until(lambda: relay.turn() and cause(1) in pointers(broker))

    assert before == [cause(2)]


def test_invariant_6_what_one_relay_is_claiming_another_skips(
    ledger: PostgresLedger, claims: PostgresClaims
) -> None:
    for number in range(1, 6):
        ledger.publish(updated(number, person(number)), WEBHOOK)

    with ledger.engine.begin() as slow:
        locked = slow.execute(
            text("SELECT event_id FROM kratos_sync.deliveries ORDER BY 1 LIMIT 3 FOR UPDATE")
        )
        held = {row.event_id for row in locked}
        others = set(claims.claim(SYNC, 10).event_ids)

    assert held == {cause(1), cause(2), cause(3)}
    assert others == {cause(4), cause(5)}


def test_invariant_6_two_relays_never_claim_the_same(
    ledger: PostgresLedger, claims: PostgresClaims
) -> None:
    add_deliveries(ledger, 500)
    claimed: list[UUID] = []

    def claim_all() -> None:
        while ids := claims.claim(SYNC, 7).event_ids:
            claimed.extend(ids)

    at_once(*[claim_all] * 3)
    claim_all()

    assert len(claimed) == len(set(claimed)) == 500


class WatchedBroker(WakefulRedisBroker):
    """A broker that looks at the ledger when it is asked."""

    look: Callable[[], None]

    def enqueue_many(self, messages: Sequence[dramatiq.Message[Any]]) -> None:
        self.look()
        super().enqueue_many(messages)


def test_invariant_6_redis_is_asked_outside_the_claims_transaction(
    ledger: PostgresLedger,
    claims: PostgresClaims,
    broker: WakefulRedisBroker,
    database_url: str,
) -> None:
    watched = WatchedBroker(broker.client, broker.namespace)
    seen: list[tuple[int, int]] = []

    def look() -> None:
        in_transaction = ledger.query(
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid() AND state <> 'idle' AND backend_type = 'client backend'"
        )
        seen.append((len(in_transaction), leased(ledger)))

    watched.look = look
    ledger.publish(updated(1), WEBHOOK)

    Relay(
        claims, watched, WakeUpListener(SecretStr(database_url)), SUBSCRIBED, policies_of(claims)
    ).turn()

    assert seen == [(0, 1)]


# 7. What is dispatched is bounded.


def add_deliveries(ledger: PostgresLedger, count: int) -> None:
    """So many events, each pending for SyncKratosIdentity, written as record would."""
    ledger.publish(updated(1), WEBHOOK)
    for table in ("events", "deliveries"):
        key = "id" if table == "events" else "event_id"
        ledger.query(
            f"INSERT INTO kratos_sync.{table} SELECT (jsonb_populate_record(one,"
            f" jsonb_build_object('{key}', md5(n::text)::uuid, 'subject', md5(n::text)::uuid))).*"
            f" FROM kratos_sync.{table} one, generate_series(2, :count) n",
            count=count,
        )


def test_invariant_7_a_backlog_waits_in_the_ledger_and_not_in_redis(
    ledger: PostgresLedger, relay: Relay, broker: WakefulRedisBroker
) -> None:
    add_deliveries(ledger, 10_000)

    for _ in range(30):
        relay.turn()

    assert 0 < leased(ledger) <= 2 * FIRST_BATCHES * SyncKratosIdentity.batch_size
    assert len(pointers(broker)) == leased(ledger)


def test_invariant_7_two_relays_share_one_window(
    ledger: PostgresLedger,
    relay: Relay,
    claims: PostgresClaims,
    broker: WakefulRedisBroker,
    database_url: str,
) -> None:
    add_deliveries(ledger, 3_000)
    second = Relay(
        claims, broker, WakeUpListener(SecretStr(database_url)), SUBSCRIBED, policies_of(claims)
    )

    for _ in range(10):
        relay.turn()
        second.turn()

    assert 0 < leased(ledger) <= 2 * FIRST_BATCHES * SyncKratosIdentity.batch_size


def test_invariant_7_a_backlog_without_workers_does_not_pile_up_in_redis(
    ledger: PostgresLedger, relay: Relay, broker: WakefulRedisBroker
) -> None:
    add_deliveries(ledger, 10_000)

    dispatched = []
    for _ in range(6):
        flush(broker)
        relay.turn()
        dispatched.append(len(pointers(broker)))
        let_leases_run_out(ledger)

    assert dispatched[-1] <= dispatched[0]


# 8. Due times and leases are the database's clock.


@contextmanager
def clock_that_is_wrong_by(error: timedelta) -> Iterator[None]:
    class WrongDatetime(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + error

    import time

    right = time.time
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: right() + error.total_seconds())
        patch.setattr("kratos_sync.application.pipeline.batch.datetime", WrongDatetime)
        yield


@pytest.mark.parametrize("days", [-2, 2])
def test_invariant_8_a_machine_whose_clock_is_wrong_does_no_harm(
    ledger: PostgresLedger, claims: PostgresClaims, days: int
) -> None:
    with clock_that_is_wrong_by(timedelta(days=days)):
        publish_to(LoseHeart, ledger, ADA, GRACE, MARY)
        due_at_first = {each.due_at for each in ledger.deliveries.values()}
        claimed = claims.claim(LoseHeart.name, 2).event_ids
        work(ledger, cause(1), consumer=LoseHeart)

    now = ledger.now
    due = {key[1]: each.due_at - now for key, each in ledger.deliveries.items()}
    assert all(abs(at - now) < timedelta(minutes=1) for at in due_at_first)
    assert set(claimed) == {cause(1), cause(2)}
    assert timedelta(minutes=7) < due[cause(1)] <= timedelta(minutes=10)
    assert timedelta() < due[cause(2)] <= LEASE
    assert timedelta(minutes=-1) < due[cause(3)] <= timedelta()


# 9. Retries live in the ledger only.


def messages_in(broker: WakefulRedisBroker) -> list[bytes]:
    return [
        key
        for key in broker.client.scan_iter(f"{broker.namespace}:*")
        if not key.endswith(b"__heartbeats__")
    ]


def test_invariant_9_dramatiq_retries_nothing(broker: WakefulRedisBroker) -> None:
    assert broker.middleware == []


def test_invariant_9_a_failing_consumer_leaves_nothing_in_redis_and_is_retried_by_the_ledger(
    ledger: PostgresLedger,
    claims: PostgresClaims,
    broker: WakefulRedisBroker,
    database_url: str,
) -> None:
    def has_logged(attempts: int) -> bool:
        return len(ledger.attempts) == attempts

    with subscribed(ledger, KratosIdentityUpdated, LoseHeart):
        ledger.publish(updated(1), WEBHOOK)
        listener = WakeUpListener(SecretStr(database_url))
        relay = Relay(claims, broker, listener, ledger.subscriptions, policies_of(claims))
        Actor(
            broker, ledger.subscriptions, ledger.unit_of_work, ledger, Watchdog(ledger, claims)
        ).declare()
        worker = dramatiq.Worker(broker, worker_threads=1, worker_timeout=50)
        worker.start()
        try:
            for attempts in (1, 2, 3):
                ledger.query("UPDATE kratos_sync.deliveries SET due_at = now()")
                relay.turn()
                until(partial(has_logged, attempts))
                until(lambda: messages_in(broker) == [])
        finally:
            worker.stop()
        relay.turn()

    assert [each.outcome for each in ledger.attempts] == ["failed", "failed", "gave_up"]
    assert messages_in(broker) == []


# What follows when workers meet, or are interrupted.


def test_two_workers_that_meet_on_one_new_identity_both_succeed(ledger: PostgresLedger) -> None:
    meeting = threading.Barrier(2)
    met: list[UUID] = []

    class MeetFirst(SyncKratosIdentity):
        name = "MeetFirst"

        def consume(self, event: KratosIdentityUpdated) -> None:
            if event.id not in met:
                met.append(event.id)
                meeting.wait(DEADLINE_SECONDS)
            super().consume(event)

    with subscribed(ledger, KratosIdentityUpdated, MeetFirst):
        ledger.publish(updated(1, HEDY), WEBHOOK)
        ledger.publish(updated(2, HEDY, minute=1, state="inactive"), WEBHOOK)

    at_once(
        lambda: work(ledger, cause(1), consumer=MeetFirst),
        lambda: work(ledger, cause(2), consumer=MeetFirst),
    )

    (hedy,) = ledger.query("SELECT id, state FROM kratos_sync.kratos_identities")
    assert hedy == {"id": HEDY, "state": "inactive"}
    assert [(each.number, each.outcome) for each in ledger.attempts] == [(1, "succeeded")] * 2
    assert MeetFirst.name not in {consumer for consumer, _ in ledger.deliveries}


@pytest.mark.parametrize("known", [False, True], ids=["new people", "known people"])
def test_overlapping_batches_in_opposite_order_get_by_each_other(
    ledger: PostgresLedger, known: bool
) -> None:
    population = [person(number) for number in range(20)]
    if known:
        for number, who in enumerate(population, start=900):
            ledger.publish(updated(number, who), WEBHOOK)
        work(ledger, *(cause(number) for number in range(900, 920)))
    for number, who in enumerate([*population, *reversed(population)], start=1):
        ledger.publish(updated(number, who, minute=number), WEBHOOK)

    at_once(
        lambda: work(ledger, *(cause(number) for number in range(1, 21))),
        lambda: work(ledger, *(cause(number) for number in range(21, 41))),
    )

    outcomes = [(each.number, each.outcome) for each in ledger.attempts]
    assert outcomes == [(1, "succeeded")] * (60 if known else 40)
    assert SYNC not in {consumer for consumer, _ in ledger.deliveries}


def test_a_deadlock_is_begun_anew_and_counts_no_attempt(ledger: PostgresLedger) -> None:
    crossed, through = threading.Barrier(2), threading.Event()
    begun: list[UUID] = []

    class VisitEachOther(Consumer[KratosIdentityUpdated]):
        """Looks at the other one too, whom no batch could have sorted in."""

        name = "VisitEachOther"

        def __init__(self, identities: KratosIdentities) -> None:
            self._identities = identities

        def consume(self, event: KratosIdentityUpdated) -> None:
            if event.id in begun:  # it would meet the other one again
                assert through.wait(DEADLINE_SECONDS)
            assert self._identities.find(event.identity.id) is not None
            begun.append(event.id)
            if begun.count(event.id) == 1:
                crossed.wait(DEADLINE_SECONDS)
            other = ADA if event.identity.id == GRACE else GRACE
            assert self._identities.find(other) is not None
            through.set()

    ledger.publish(updated(1, ADA), WEBHOOK)
    ledger.publish(updated(2, GRACE), WEBHOOK)
    work(ledger, cause(1), cause(2))
    with subscribed(ledger, KratosIdentityUpdated, VisitEachOther):
        ledger.publish(updated(3, ADA), WEBHOOK)
        ledger.publish(updated(4, GRACE), WEBHOOK)

    at_once(
        lambda: work(ledger, cause(3), consumer=VisitEachOther),
        lambda: work(ledger, cause(4), consumer=VisitEachOther),
    )

    assert len(begun) == 3, "one of them had to begin anew"
    assert [
        (each.number, each.outcome)
        for each in ledger.attempts
        if each.consumer == VisitEachOther.name
    ] == [(1, "succeeded")] * 2


def test_a_connection_lost_amid_consumption_leaves_the_delivery_pending_and_counts_no_attempt(
    ledger: PostgresLedger,
) -> None:
    killed: list[int] = []

    class LoseTheConnection(SyncKratosIdentity):
        name = "LoseTheConnection"

        def consume(self, event: KratosIdentityUpdated) -> None:
            super().consume(event)
            if not killed:
                killed.append(terminate_others(ledger))

    publish_to(LoseTheConnection, ledger, ADA, GRACE)

    with pytest.raises(LedgerUnavailable):
        work(ledger, cause(1), cause(2), consumer=LoseTheConnection)
    pending, attempts = dict(ledger.deliveries), ledger.attempts
    work(ledger, cause(1), cause(2), consumer=LoseTheConnection)

    assert killed == [1]
    assert [key[1] for key in pending] == [cause(1), cause(2)]
    assert [each.attempts for each in pending.values()] == [0, 0]
    assert attempts == []
    assert [(each.number, each.outcome) for each in ledger.attempts] == [(1, "succeeded")] * 2


def test_a_time_of_now_is_the_databases_own(ledger: PostgresLedger) -> None:
    assert abs(ledger.now - datetime.now(UTC)) < timedelta(minutes=5)
