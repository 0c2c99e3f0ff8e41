"""From the ledger to the broker: what is due, when it is due, and nothing else."""

import json
import math
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, text
from structlog.testing import capture_logs
from uuid_utils.compat import uuid7

from kratos_sync.application.application import Subscriptions
from kratos_sync.application.consumer import Consumer
from kratos_sync.application.consumers.sync_kratos_identity import SyncKratosIdentity
from kratos_sync.application.ports.dead_letters import FailedAttempt
from kratos_sync.domain.events import (
    IdentityRegistered,
    KratosIdentityGone,
    KratosIdentityUpdated,
)
from kratos_sync.infrastructure.bus import relay as relay_module
from kratos_sync.infrastructure.bus import wire_format
from kratos_sync.infrastructure.bus.broker import BrokerUnavailable, Load
from kratos_sync.infrastructure.bus.relay import FIRST_BATCHES, IDLE_SECONDS, MOST_WAITING, Relay
from kratos_sync.infrastructure.container import Container
from kratos_sync.infrastructure.ledger import backlog
from kratos_sync.infrastructure.ledger.backlog import Backlog
from kratos_sync.infrastructure.ledger.claims import PostgresClaims
from kratos_sync.infrastructure.ledger.policies import PostgresConsumerPolicies
from kratos_sync.infrastructure.ledger.subscriptions import PostgresSubscriptions
from tests.domain.people import ADA
from tests.infrastructure.bus.conftest import Ledger, Server, names_logged, new_event, on_each
from tests.infrastructure.bus.peeking import AnyBroker, messages_in
from tests.infrastructure.bus.working import assert_nothing_is_leased_again, message, relaying
from tests.suites.publishing import publish
from tests.waiting import DEADLINE_SECONDS, until

SYNC = "SyncKratosIdentity"
BATCH = SyncKratosIdentity.batch_size


def registered() -> IdentityRegistered:
    now = datetime.now(UTC)
    return IdentityRegistered(uuid7(), now, ADA, 1, {}, now)


def gone() -> KratosIdentityGone:
    return KratosIdentityGone(uuid7(), datetime.now(UTC), ADA)


def dispatched(broker: AnyBroker, consumer: str = SYNC) -> list[list[UUID]]:
    """The event ids in each message on a consumer's queue, in order."""
    batches = []
    for encoded in messages_in(broker, consumer):
        message = json.loads(encoded)
        assert message["queue_name"] == consumer
        assert message["options"].keys() <= {"redis_message_id"}
        pointer = wire_format.read(message["args"], message["kwargs"])
        assert pointer.consumer == consumer
        batches.append(list(pointer.event_ids))
    return batches


def with_lease(container: Container, engine: Engine, lease: timedelta) -> Relay:
    claims = PostgresClaims(engine, lease)
    return Relay(
        claims,
        container.broker(),
        container.listener(),
        container.subscriptions(),
        container.policies(),
    )


def with_half_a_lease(container: Container, engine: Engine, ledger: Ledger) -> Relay:
    """A relay that has leased a delivery, and half of the lease is over."""
    ledger.record(new_event())
    relay = with_lease(container, engine, timedelta(minutes=10))
    relay.turn()
    ledger.execute("UPDATE kratos_sync.deliveries SET due_at = due_at - interval '5 minutes'")
    return relay


@pytest.fixture(autouse=True)
def full_scans(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let relays find what these tests set back in time, below any low-water mark, at once."""
    monkeypatch.setattr(backlog, "SLOW_SECONDS", math.inf)


@pytest.fixture
def relay(container: Container) -> Relay:
    return container.relay()


@pytest.fixture
def away(container: Container, server: Server, its_broker: AnyBroker) -> AnyBroker:
    """The container's broker, on a server that is away."""
    container.broker.override(its_broker)
    server.go_away()
    return its_broker


@on_each
def test_what_is_due_is_dispatched_in_batches(
    relay: Relay, ledger: Ledger, broker: AnyBroker
) -> None:
    events = [new_event() for _ in range(2 * BATCH + 50)]
    ledger.record(*events)

    relay.turn()

    batches = dispatched(broker)
    assert list(map(len, batches)) == [BATCH, BATCH, 50]
    assert {event_id for batch in batches for event_id in batch} == {event.id for event in events}
    assert ledger.count("leased AND due_at > now()") == len(events)


@on_each
def test_events_of_one_person_share_a_batch(
    relay: Relay, ledger: Ledger, broker: AnyBroker
) -> None:
    people = [uuid4() for _ in range(4)]
    events = [new_event(people[number % 4]) for number in range(2 * BATCH)]
    ledger.record(*events)

    relay.turn()

    batch_of = {
        event_id: number for number, batch in enumerate(dispatched(broker)) for event_id in batch
    }
    assert set(batch_of.values()) == {0, 1}
    of_people = {(event.identity.id, batch_of[event.id]) for event in events}
    assert len(of_people) == len(people)


@on_each
def test_each_consumer_gets_messages_of_its_own(
    relay: Relay, ledger: Ledger, broker: AnyBroker
) -> None:
    said, counted, left = new_event(), registered(), gone()
    ledger.record(said, counted, left)

    relay.turn()

    assert dispatched(broker) == [[said.id]]
    assert dispatched(broker, "CountRegistrations") == [[counted.id]]
    assert dispatched(broker, "DeleteKratosIdentity") == [[left.id]]


@on_each
def test_what_is_under_lease_is_not_dispatched_again(
    relay: Relay, ledger: Ledger, broker: AnyBroker
) -> None:
    ledger.record(new_event())
    for _ in range(5):
        relay.turn()

    assert list(map(len, dispatched(broker))) == [1]


def test_with_nothing_pending_it_looks_again_in_a_second(relay: Relay) -> None:
    assert relay.turn() == IDLE_SECONDS == 1


@on_each
def test_it_looks_again_when_the_next_delivery_is_due(
    relay: Relay, ledger: Ledger, broker: AnyBroker
) -> None:
    ledger.record(new_event())
    ledger.execute("UPDATE kratos_sync.deliveries SET due_at = now() + interval '700 ms'")

    assert 0 < relay.turn() <= 0.7
    assert dispatched(broker) == []


@on_each
def test_a_failed_delivery_is_sent_when_its_backoff_is_over(
    container: Container, relay: Relay, ledger: Ledger, broker: AnyBroker
) -> None:
    event = new_event()
    ledger.record(event)
    now, backoff = datetime.now(UTC), timedelta(seconds=2)
    failed = FailedAttempt(event.id, SYNC, 1, now, timedelta(), "no luck", backoff)
    container.failures().record(failed)
    (due,) = ledger.execute("SELECT due_at FROM kratos_sync.deliveries")

    with relaying(relay):
        until(lambda: dispatched(broker))

    assert dispatched(broker) == [[event.id]]
    (lease,) = ledger.execute("SELECT due_at FROM kratos_sync.deliveries")
    late = lease.due_at - container.settings().lease - due.due_at
    assert late >= timedelta()
    print(f"\nleased {late / timedelta(milliseconds=1):.0f} ms after it was due")


@on_each
def test_a_lease_that_ran_out_is_sent_again(
    container: Container, engine: Engine, ledger: Ledger, broker: AnyBroker
) -> None:
    event = new_event()
    ledger.record(event)

    with relaying(with_lease(container, engine, timedelta(milliseconds=300))):
        until(lambda: len(dispatched(broker)) >= 3)

    assert {tuple(batch) for batch in dispatched(broker)} == {(event.id,)}


@on_each
def test_a_relay_dispatches_less_when_leases_ran_out(
    container: Container, engine: Engine, ledger: Ledger, broker: AnyBroker
) -> None:
    ledger.record(*(new_event() for _ in range(20 * BATCH)))
    relay = with_lease(container, engine, timedelta(seconds=30))
    run_out = "UPDATE kratos_sync.deliveries SET due_at = now() - interval '1 h' WHERE leased"

    sent = [0]
    for _ in range(3):
        relay.turn()
        sent.append(sum(map(len, dispatched(broker))))
        ledger.execute(run_out)
    first, second, third = (after - before for before, after in pairwise(sent))

    # The second does not know that leases ran out before it has claimed.
    assert 0 < third < second
    assert first > 0


def test_leases_whose_messages_are_gone_end_within_moments(
    container: Container, engine: Engine, ledger: Ledger, broker: AnyBroker
) -> None:
    """Else a Redis that was wiped would hold up new events too, for as long as a lease."""
    events = [new_event() for _ in range(20 * BATCH)]
    ledger.record(*events)
    with relaying(with_lease(container, engine, timedelta(hours=1))):
        until(lambda: dispatched(broker))
        broker.flush(SYNC)
        until(lambda: dispatched(broker))

    assert {i for batch in dispatched(broker) for i in batch} <= {event.id for event in events}


class Looks:
    """Counts how often a relay looks into the broker's queues."""

    def __init__(self, broker: AnyBroker, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self._load = broker.load
        monkeypatch.setattr(broker, "load", self._look)

    def _look(self, queue_name: str) -> Load:
        self.count += 1
        return self._load(queue_name)

    def turn(self, relay: Relay, looks: int = 5) -> None:
        """Let the relay look so many times; a turn that it soon repeats looks at nothing."""
        wanted = self.count + looks
        until(lambda: relay.turn() and self.count >= wanted)


@pytest.fixture
def looks(broker: AnyBroker, monkeypatch: pytest.MonkeyPatch) -> Looks:
    return Looks(broker, monkeypatch)


def test_leases_whose_messages_wait_or_are_worked_on_do_not_end(
    container: Container, engine: Engine, ledger: Ledger, broker: AnyBroker, looks: Looks
) -> None:
    relay = with_half_a_lease(container, engine, ledger)

    looks.turn(relay)
    assert len(broker.do_fetch(SYNC, 1)) == 1
    looks.turn(relay)

    assert ledger.count("leased") == 1


def test_a_relay_does_not_wait_for_rows_that_a_worker_holds(
    container: Container, engine: Engine, ledger: Ledger, broker: AnyBroker, looks: Looks
) -> None:
    relay = with_half_a_lease(container, engine, ledger)
    broker.flush(SYNC)

    with engine.begin() as worker:
        worker.execute(text("SELECT FROM kratos_sync.deliveries FOR UPDATE"))
        looks.turn(relay)  # waiting for a lock would end in an error
    assert ledger.count("leased") == 1


def test_a_relay_survives_a_statement_that_fails(
    relay: Relay, ledger: Ledger, broker: AnyBroker
) -> None:
    with capture_logs() as logged, relaying(relay):
        ledger.execute("ALTER TABLE kratos_sync.deliveries RENAME TO parcels")
        until(lambda: "turn_abandoned" in names_logged(logged))
        ledger.execute("ALTER TABLE kratos_sync.parcels RENAME TO deliveries")
        event = new_event()
        ledger.record(event)
        assert until(lambda: dispatched(broker)) == [[event.id]]


@on_each
def test_a_full_queue_gets_nothing_more(relay: Relay, ledger: Ledger, broker: AnyBroker) -> None:
    broker.enqueue_many([message(SYNC) for _ in range(MOST_WAITING + 1)])
    ledger.record(new_event())

    relay.turn()

    assert ledger.count("leased") == 0


@on_each
def test_a_backlog_waits_in_the_ledger_and_not_at_the_broker(
    container: Container, engine: Engine, ledger: Ledger, broker: AnyBroker, looks: Looks
) -> None:
    ledger.record(*(new_event() for _ in range(4 * FIRST_BATCHES * BATCH)))
    looks.turn(with_lease(container, engine, timedelta(minutes=10)))

    assert sum(map(len, dispatched(broker))) <= 2 * FIRST_BATCHES * BATCH
    assert ledger.count("NOT leased") >= 2 * FIRST_BATCHES * BATCH


@on_each
def test_a_consumer_that_this_release_does_not_know_keeps_its_deliveries(
    relay: Relay, ledger: Ledger, broker: AnyBroker
) -> None:
    known, unknown = new_event(), new_event()
    ledger.record(known, unknown)
    ledger.execute(
        "UPDATE kratos_sync.deliveries SET consumer = 'SendPostcard' WHERE event_id = :id",
        id=unknown.id,
    )
    statement = "SELECT * FROM kratos_sync.deliveries WHERE consumer = 'SendPostcard'"
    before = ledger.execute(statement)

    relay.turn()

    assert dispatched(broker) == [[known.id]]
    assert dispatched(broker, "SendPostcard") == []
    assert list(ledger.execute(statement)) == list(before)


@on_each
def test_a_dead_letter_is_not_dispatched(relay: Relay, ledger: Ledger, broker: AnyBroker) -> None:
    ledger.record(new_event())
    ledger.execute("UPDATE kratos_sync.deliveries SET failed_at = now()")

    assert relay.turn() == IDLE_SECONDS
    assert dispatched(broker) == []


def test_leases_are_released_when_the_broker_is_away(
    container: Container, ledger: Ledger, away: AnyBroker
) -> None:
    ledger.record(*(new_event() for _ in range(3)))

    with pytest.raises(BrokerUnavailable):
        container.relay().turn()

    assert ledger.count("NOT leased AND due_at <= now() AND attempts = 0") == 3


def test_everything_is_dispatched_when_the_broker_is_back(
    container: Container,
    ledger: Ledger,
    server: Server,
    away: AnyBroker,
) -> None:
    events = [new_event() for _ in range(3)]
    ledger.record(*events)

    with capture_logs() as logged, relaying(container.relay()):
        until(lambda: "broker_unavailable" in names_logged(logged))
        server.come_back()
        until(lambda: dispatched(away))

    assert list(map(sorted, dispatched(away))) == [sorted(event.id for event in events)]


def test_while_the_broker_is_away_nothing_is_leased_over_and_over(
    container: Container, ledger: Ledger, away: AnyBroker
) -> None:
    assert_nothing_is_leased_again(container, ledger)


def test_it_survives_connections_to_postgresql_that_are_terminated(
    container: Container, ledger: Ledger, broker: AnyBroker, postgres_url: str
) -> None:
    import psycopg

    database = container.engine().url.database
    first, second, third = new_event(), new_event(), new_event()
    with capture_logs() as logged, relaying(container.relay()):
        ledger.record(first)
        until(lambda: dispatched(broker) == [[first.id]])
        listens = "SELECT FROM pg_stat_activity WHERE state = 'idle' AND query LIKE 'LISTEN %'"
        until(lambda: ledger.execute(f"{listens} AND datname = current_database()"))
        with psycopg.connect(postgres_url, autocommit=True) as administrator:
            cut = administrator.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                [database],
            ).fetchall()
        assert len(cut) >= 2
        until(lambda: "wake_ups_interrupted" in names_logged(logged))

        ledger.record(second)
        until(lambda: len(dispatched(broker)) >= 2)
        ledger.record(third)
        until(lambda: len(dispatched(broker)) >= 3)

    assert dispatched(broker) == [[first.id], [second.id], [third.id]]
    # It listens again, on a connection that is new.
    assert [line["event"] for line in logged].count("wake_ups_interrupted") == 1


def test_it_waits_for_a_ledger_that_is_away_and_stops_when_asked(
    container: Container, broker: AnyBroker
) -> None:
    from kratos_sync.infrastructure.settings import Settings

    nowhere = "postgresql://postgres@127.0.0.1:9/nowhere"
    container.settings.override(
        Settings(_env_file=None, database_url=nowhere, broker_url="redis://127.0.0.1:9/0")
    )
    stopped = threading.Event()
    with capture_logs() as logged, relaying(container.relay(), stopped):
        until(lambda: [line["event"] for line in logged].count("ledger_unavailable") >= 2)
        assert not stopped.is_set()

    assert names_logged(logged) == {"ledger_unavailable", "wake_ups_interrupted"}


def test_what_another_relay_is_claiming_is_left_to_it(
    relay: Relay, ledger: Ledger, engine: Engine, broker: AnyBroker
) -> None:
    first, second = new_event(), new_event()
    ledger.record(first, second)
    with engine.begin() as other:
        claim = text("SELECT FROM kratos_sync.deliveries WHERE event_id = :id FOR UPDATE")
        other.execute(claim, {"id": first.id})

        relay.turn()

    assert dispatched(broker) == [[second.id]]


@on_each
def test_two_relays_send_nothing_twice(
    container: Container, engine: Engine, ledger: Ledger, broker: AnyBroker
) -> None:
    events = [new_event() for _ in range(4 * BATCH)]
    ledger.record(*events)
    relays = [with_lease(container, engine, timedelta(seconds=30)) for _ in range(2)]
    together = threading.Barrier(2)

    def dispatch(relay: Relay) -> None:
        together.wait(DEADLINE_SECONDS)
        relay.turn()

    threads = [threading.Thread(target=dispatch, args=(relay,)) for relay in relays]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_SECONDS)

    sent = [event_id for batch in dispatched(broker) for event_id in batch]
    assert sorted(sent) == [event.id for event in events]


@on_each
def test_an_event_published_by_another_process_is_dispatched_at_once(
    container: Container, broker: AnyBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kratos_sync.application.ports.event_bus import Provenance

    # Without being woken it would not look again.
    monkeypatch.setattr(relay_module, "IDLE_SECONDS", 3_600)
    stopped = threading.Event()
    with relaying(container.relay(), stopped):
        for count in range(1, 9):
            publish(container.event_bus(), new_event(), Provenance("test"))
            until(lambda count=count: len(dispatched(broker)) == count)  # type: ignore[misc]
        assert list(map(len, dispatched(broker))) == [1] * 8
        stopped.set()
        publish(container.event_bus(), new_event(), Provenance("test"))


@pytest.fixture
def policies(container: Container) -> PostgresConsumerPolicies:
    return container.policies()


def known_at_once(relay: Relay) -> Relay:
    relay._known_policies._read_at = -math.inf
    return relay


@on_each
def test_a_paused_consumer_is_sent_nothing_and_the_others_are(
    relay: Relay, ledger: Ledger, broker: AnyBroker, policies: PostgresConsumerPolicies
) -> None:
    policies.pause(SYNC, by="ada", reason="a test")
    counted, said = registered(), new_event()
    ledger.record(said, counted)

    relay.turn()
    assert dispatched(broker) == []
    assert dispatched(broker, "CountRegistrations") == [[counted.id]]

    policies.resume(SYNC)
    known_at_once(relay).turn()
    assert dispatched(broker) == [[said.id]]


class Follow(Consumer[KratosIdentityUpdated]):
    name, ordered, batch_size = "Follow", True, 10

    def consume(self, event: KratosIdentityUpdated) -> None:
        """It is never called here."""


def test_an_ordered_consumer_gets_its_fill_although_most_of_what_is_due_has_to_wait(
    container: Container, engine: Engine, ledger: Ledger, broker: AnyBroker
) -> None:
    subscriptions = Subscriptions({KratosIdentityUpdated: [Follow]})
    PostgresSubscriptions(engine, subscriptions).add_missing()
    container.subscriptions.override(subscriptions)
    people = [uuid4() for _ in range(100)]
    ledger.record(*(new_event(person) for person in people for _ in range(5)))

    container.relay().turn()

    room, looked_at_once = FIRST_BATCHES * Follow.batch_size, FIRST_BATCHES * Follow.batch_size // 5
    assert 3 * looked_at_once < ledger.count("leased AND consumer = 'Follow'") <= room
    sent = {each for batch in dispatched(broker, Follow.name) for each in batch}
    assert len(sent) == ledger.count("leased AND consumer = 'Follow'")


@on_each
def test_no_more_than_the_concurrency_is_under_lease(
    relay: Relay, ledger: Ledger, broker: AnyBroker, policies: PostgresConsumerPolicies
) -> None:
    policies.limit(SYNC, None, 2)
    ledger.record(*(new_event() for _ in range(5)))

    for _ in range(3):
        known_at_once(relay).turn()

    assert list(map(len, dispatched(broker))) == [1, 1]
    assert ledger.count("leased") == 2


def test_two_relays_that_count_at_the_same_moment_keep_the_concurrency_together(
    container: Container,
    engine: Engine,
    ledger: Ledger,
    broker: AnyBroker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    container.policies().limit(SYNC, None, 2)
    ledger.record(*(new_event() for _ in range(8)))
    relay = container.relay()
    other = with_lease(container, engine, timedelta(seconds=30))
    survey = other._claims.survey

    def survey_and_let_the_other_dispatch(wanted: Sequence[str]) -> Mapping[str, Backlog]:
        backlogs = survey(wanted)
        relay.turn()
        return backlogs

    monkeypatch.setattr(other._claims, "survey", survey_and_let_the_other_dispatch)
    other.turn()

    assert ledger.count("leased") == 2
    assert list(map(len, dispatched(broker))) == [1, 1]


@on_each
def test_no_more_than_the_rate_is_dispatched_by_any_relay(
    container: Container,
    engine: Engine,
    ledger: Ledger,
    broker: AnyBroker,
    policies: PostgresConsumerPolicies,
) -> None:
    policies.limit(SYNC, "1/hour", None)
    ledger.record(*(new_event() for _ in range(5)))
    relays = [with_lease(container, engine, timedelta(seconds=30)) for _ in range(2)]

    for relay in [*relays, *relays]:
        relay.turn()

    assert list(map(len, dispatched(broker))) == [1]
    assert ledger.count("NOT leased") == 4
