"""No consumer takes longer than it may: on a real PostgreSQL, with threads that really hang."""

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from uuid import UUID

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine
from structlog.testing import capture_logs

from kratos_sync.application.footprint import Admission
from kratos_sync.application.ports.event_bus import LedgerUnavailable
from kratos_sync.application.ports.unit_of_work import PendingDelivery
from kratos_sync.domain.events import KratosIdentityUpdated
from kratos_sync.infrastructure.ledger.claims import PostgresClaims
from kratos_sync.infrastructure.ledger.inbox import PostgresInbox
from kratos_sync.infrastructure.postgres.engine import connect
from kratos_sync.infrastructure.worker import watchdog
from tests.infrastructure.bus.conftest import Ledger, names_logged, new_event
from tests.infrastructure.bus.overrunning import Overrun, Persistent, SlowToMake, Watching
from tests.suites.ledgers import PostgresLedger
from tests.suites.occurrences import subscribed
from tests.waiting import DEADLINE_SECONDS, until

HALTED = """
import sys, threading, time
from datetime import UTC, datetime, timedelta
from uuid import uuid4
from kratos_sync.application.consumer import Consumer
from kratos_sync.application.ports.unit_of_work import PendingDelivery
from kratos_sync.application.ports.unit_of_work import TimeLimitExceeded
from kratos_sync.infrastructure.worker import watchdog
watchdog.HALT_SECONDS = 0.5
class Wait(Consumer):
    name = "Wait"
    time_limit = timedelta(seconds=1.5)
class Unit:
    def abandon(self): ...
class Ledger:
    def record(self, attempt): ...
    def release(self, consumer, event_ids): ...
dog = watchdog.Watchdog(Ledger(), Ledger())
dog.start(lambda: None)
delivery = PendingDelivery(uuid4(), 1, "", uuid4(), datetime.now(UTC), "{}", None)
with dog.over(Wait, [delivery.event_id], Unit()) as watch:
    watch.begin(delivery)
    print("began", flush=True)
    sys.stdin.readline()
    pulse = dog.in_flight.pulse
    while dog.in_flight.pulse < pulse + 3:
        time.sleep(0.01)
    try:
        watch.end()
        print("in time")
    except TimeLimitExceeded:
        print("too late")
"""


@pytest.fixture(autouse=True)
def shortened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "CUT_AFTER", 0.3)
    monkeypatch.setattr(watchdog, "HUNG_AFTER", 0.9)
    monkeypatch.setattr(watchdog, "TICK_SECONDS", 0.03)
    monkeypatch.setattr(watchdog, "IDLE_SECONDS", 0.03)


@pytest.fixture(autouse=True)
def wire(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The other end of what a hanging consumer listens to."""
    ours, theirs = socket.socketpair()
    monkeypatch.setattr(Overrun, "wire", theirs, raising=False)
    monkeypatch.setattr(Overrun, "backends", [])
    with ours, theirs:
        yield ours


@pytest.fixture
def spare_engine(database_url: str) -> Iterator[Engine]:
    engine = connect(SecretStr(database_url), pool_size=2)
    yield engine
    engine.dispose()


@pytest.fixture
def watching(engine: Engine, spare_engine: Engine) -> Iterator[Watching]:
    watching = Watching(engine, spare_engine)
    with watching.looking():
        yield watching


@pytest.fixture
def leased(ledger: Ledger, watching: Watching) -> list[UUID]:
    """Four events, leased and on their way to Overrun."""
    return lease(ledger, watching)


def until_given_up(watching: Watching) -> None:
    until(lambda: watching.replacements)
    until(lambda: not list(watching.watchdog.in_flight))


def lease(ledger: Ledger, watching: Watching) -> list[UUID]:
    events = [new_event() for _ in range(4)]
    with subscribed(PostgresLedger(ledger.engine), KratosIdentityUpdated, Overrun):
        ledger.record(*events)
    return sorted(watching.claims.claim(Overrun.name, 10).event_ids)


def get_into(trouble: str, *slow: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Overrun, "trouble", trouble)
    monkeypatch.setattr(Overrun, "slow", frozenset(slow))


def attempts(ledger: Ledger) -> dict[UUID, list[str]]:
    found: dict[UUID, list[str]] = {}
    for event_id, outcome in ledger.execute(
        "SELECT event_id, outcome FROM kratos_sync.attempts ORDER BY id"
    ):
        found.setdefault(event_id, []).append(outcome)
    return found


def last_error(ledger: Ledger, event_id: UUID) -> tuple[str, str]:
    ((kind, error),) = ledger.execute(
        "SELECT error_type, last_error FROM kratos_sync.deliveries WHERE event_id = :id",
        id=event_id,
    )
    return kind, error


def is_free(ledger: Ledger, event_id: UUID) -> bool:
    """Whether nobody holds the delivery's row."""
    statement = "SELECT FROM kratos_sync.deliveries WHERE event_id = :id FOR UPDATE SKIP LOCKED"
    return bool(ledger.execute(statement, id=event_id))


def backend_lives(ledger: Ledger, pid: int) -> bool:
    return bool(ledger.execute("SELECT FROM pg_stat_activity WHERE pid = :pid", pid=pid))


@pytest.mark.parametrize("trouble", ["spin", "swallow", "query", "query_without_timeout"])
def test_who_can_be_interrupted_comes_back_and_the_others_of_its_batch_succeed(
    ledger: Ledger,
    watching: Watching,
    leased: list[UUID],
    monkeypatch: pytest.MonkeyPatch,
    trouble: str,
) -> None:
    monkeypatch.setattr(watchdog, "HUNG_AFTER", 30.0)
    get_into(trouble, leased[1], monkeypatch=monkeypatch)

    thread = watching.begin(leased)
    thread.join(DEADLINE_SECONDS)

    assert not thread.is_alive()
    # What was given back just when the thread came back for it comes again.
    until(lambda: watching.relay() or len(attempts(ledger)) == 4)
    expected = {event_id: ["succeeded"] for event_id in leased}
    assert attempts(ledger) == expected | {leased[1]: ["failed"]}
    assert last_error(ledger, leased[1])[0] == "TimeLimitExceeded"
    assert watching.replacements == 0
    assert list(watching.watchdog.in_flight) == []


def test_deliveries_released_just_when_their_thread_returns_wait_for_no_lease(
    ledger: Ledger, watching: Watching, leased: list[UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its transaction is older than that, and leaves it alone."""
    monkeypatch.setattr(watchdog, "HUNG_AFTER", 30.0)
    get_into("query", leased[1], monkeypatch=monkeypatch)
    others = [leased[0], *leased[2:]]
    came_back, open_inbox, release = (
        threading.Event(),
        PostgresInbox.open,
        PostgresClaims.release_when_unlocked,
    )

    def open_when_given_back(
        inbox: PostgresInbox,
        consumer: str,
        event_ids: Sequence[UUID],
        admission: Admission | None = None,
    ) -> list[PendingDelivery]:
        if list(event_ids) == others and not came_back.is_set():
            came_back.set()
            until(lambda: ledger.count("leased") == 0)
        return open_inbox(inbox, consumer, event_ids, admission)

    def release_when_it_came_back(
        claims: PostgresClaims, consumer: str, event_ids: Sequence[UUID]
    ) -> None:
        assert came_back.wait(DEADLINE_SECONDS)
        release(claims, consumer, event_ids)

    monkeypatch.setattr(PostgresInbox, "open", open_when_given_back)
    monkeypatch.setattr(PostgresClaims, "release_when_unlocked", release_when_it_came_back)

    watching.begin(leased).join(DEADLINE_SECONDS)

    assert attempts(ledger) == {leased[1]: ["failed"]}
    assert ledger.count("NOT leased AND due_at <= now() AND attempts = 0") == 3
    watching.relay()
    assert sorted(ledger.succeeded()) == others


@pytest.mark.parametrize("trouble", ["spin", "swallow", "query", "query_without_timeout"])
def test_an_interrupted_connection_is_used_by_nobody_again(
    ledger: Ledger,
    watching: Watching,
    leased: list[UUID],
    monkeypatch: pytest.MonkeyPatch,
    trouble: str,
) -> None:
    get_into(trouble, leased[0], monkeypatch=monkeypatch)

    watching.begin(leased).join(DEADLINE_SECONDS)

    (backend,) = Overrun.backends
    until(lambda: not backend_lives(ledger, backend))
    (size,) = ledger.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND state LIKE 'idle in transaction%'"
    )
    assert size[0] == 0


def test_a_hanging_consumer_is_cut_off_recorded_and_given_up(
    ledger: Ledger, watching: Watching, leased: list[UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    get_into("hang", leased[1], monkeypatch=monkeypatch)

    with capture_logs() as logged:
        watching.begin(leased)
        until_given_up(watching)

    assert attempts(ledger) == {leased[1]: ["failed"]}
    kind, error = last_error(ledger, leased[1])
    assert kind == "TimeLimitExceeded"
    assert "in _hang" in error
    assert "self.wire.recv(1)" in error
    assert ledger.count("error_shape = 'took longer than #'") == 1
    until(lambda: ledger.count("leased") == 0)
    assert all(is_free(ledger, event_id) for event_id in leased)
    assert ledger.count("attempts = 0 AND due_at <= now()") == 3
    assert {"consumer_overran", "consumer_hangs"} <= names_logged(logged)
    assert len(watching.watchdog.hung_threads) == 1


def test_a_consumer_whose_making_hangs_is_given_up_and_fails_its_first_event(
    ledger: Ledger, watching: Watching, leased: list[UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    get_into("hang", monkeypatch=monkeypatch)

    watching.begin(leased, SlowToMake)
    until_given_up(watching)

    assert attempts(ledger) == {leased[0]: ["failed"]}
    kind, error = last_error(ledger, leased[0])
    assert kind == "TimeLimitExceeded"
    assert "in __init__" in error


def test_a_consumer_whose_making_takes_too_long_is_interrupted(
    ledger: Ledger, watching: Watching, leased: list[UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "HUNG_AFTER", 30.0)
    get_into("spin", monkeypatch=monkeypatch)

    thread = watching.begin(leased[:1], SlowToMake)
    thread.join(DEADLINE_SECONDS)

    assert not thread.is_alive()
    assert attempts(ledger) == {leased[0]: ["failed"]}
    assert last_error(ledger, leased[0])[0] == "TimeLimitExceeded"


def test_one_that_hangs_is_given_up_once(
    ledger: Ledger, watching: Watching, leased: list[UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    get_into("hang", leased[1], monkeypatch=monkeypatch)
    watching.begin(leased)
    until(lambda: watching.replacements)

    pulse = watching.watchdog.in_flight.pulse
    until(lambda: watching.watchdog.in_flight.pulse > pulse + 20)

    assert watching.replacements == 1
    assert attempts(ledger) == {leased[1]: ["failed"]}


def test_nothing_is_recorded_twice_when_a_thread_comes_back_late(
    ledger: Ledger,
    watching: Watching,
    leased: list[UUID],
    monkeypatch: pytest.MonkeyPatch,
    wire: socket.socket,
) -> None:
    get_into("hang", leased[1], monkeypatch=monkeypatch)
    thread = watching.begin(leased)
    until(lambda: watching.replacements)
    until(lambda: attempts(ledger))
    until(lambda: ledger.count("leased") == 0)

    wire.send(b"!")
    thread.join(DEADLINE_SECONDS)

    assert not thread.is_alive()
    assert attempts(ledger)[leased[1]] == ["failed"]
    assert ledger.count("attempts = 1") == 1
    # What it does after that it does well.
    assert sorted(ledger.succeeded()) == [leased[0], *leased[2:]]


def test_a_thread_that_comes_back_late_is_watched_as_before(
    ledger: Ledger,
    watching: Watching,
    leased: list[UUID],
    monkeypatch: pytest.MonkeyPatch,
    wire: socket.socket,
) -> None:
    get_into("hang", leased[1], leased[2], monkeypatch=monkeypatch)
    thread = watching.begin(leased)
    until(lambda: attempts(ledger) == {leased[1]: ["failed"]})
    until(lambda: ledger.count("leased") == 0)

    wire.send(b"!")
    until(lambda: attempts(ledger).get(leased[2]) == ["failed"])
    wire.send(b"!")
    thread.join(DEADLINE_SECONDS)

    assert not thread.is_alive()
    assert sorted(ledger.succeeded()) == [leased[0], leased[3]]
    assert ledger.count("attempts = 1") == 2


def test_what_is_cut_off_is_recorded_when_every_connection_hangs(
    database_url: str, ledger: Ledger, spare_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = connect(SecretStr(database_url), pool_size=2)
    watching = Watching(small, spare_engine)
    leased = lease(ledger, watching)
    get_into("hang", *leased, monkeypatch=monkeypatch)

    with watching.looking():
        for event_id in leased[:2]:
            watching.begin([event_id])
        until(lambda: attempts(ledger) == {each: ["failed"] for each in leased[:2]})
        until(lambda: watching.replacements == 2)
    small.dispose()


def test_what_cannot_be_recorded_stays_in_flight_for_the_process_after_this_one(
    engine: Engine, ledger: Ledger, spare_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Away:
        def record(self, attempt: object) -> None:
            raise LedgerUnavailable("gone")

    watching = Watching(engine, spare_engine, failures=Away())
    leased = lease(ledger, watching)
    get_into("hang", leased[1], monkeypatch=monkeypatch)

    with watching.looking(), capture_logs() as logged:
        watching.begin(leased)
        until(lambda: watching.replacements)
        until(lambda: "attempt_not_recorded" in names_logged(logged))
        (lost,) = watching.watchdog.in_flight

    assert (lost.consumer, lost.event_id, lost.attempt) == (Overrun.name, leased[1], 1)


@pytest.mark.parametrize("trouble", ["hang", "query_without_timeout"])
def test_released_deliveries_count_no_attempt_and_wait_for_no_lease(
    ledger: Ledger,
    watching: Watching,
    leased: list[UUID],
    monkeypatch: pytest.MonkeyPatch,
    trouble: str,
) -> None:
    get_into(trouble, leased[1], monkeypatch=monkeypatch)
    watching.begin(leased, Persistent)
    until(lambda: list(watching.watchdog.in_flight))
    until(lambda: Overrun.backends)

    watching.watchdog.release_everything()

    assert ledger.count("NOT leased AND due_at <= now() AND attempts = 0") == 4
    assert all(is_free(ledger, event_id) for event_id in leased)
    # Nor does the process after this one count it, should the thread not come back.
    assert list(watching.watchdog.in_flight) == []
    watching.let_everybody_go()
    assert (watching.unavailable, attempts(ledger)) == (1, {})


def test_a_transaction_that_hangs_around_its_events_is_cut_and_counts_no_attempt(
    ledger: Ledger,
    engine: Engine,
    watching: Watching,
    leased: list[UUID],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    soon = 0.5 - 2 * Persistent.time_limit.total_seconds()
    monkeypatch.setattr(watchdog, "STATEMENTS_SECONDS", soon)
    with engine.connect() as holding, capture_logs() as logged:
        holding.exec_driver_sql("LOCK TABLE kratos_sync.attempts")
        thread = watching.begin(leased, Persistent)
        thread.join(DEADLINE_SECONDS)
        assert not thread.is_alive()

    assert names_logged(logged) == {"connection_cut"}
    assert (watching.unavailable, attempts(ledger)) == (1, {})


def test_a_pulse_is_shown_before_the_first_delivery_comes(
    engine: Engine, spare_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a process that dies of its first delivery would look like one that never began."""
    monkeypatch.setattr(watchdog, "IDLE_SECONDS", 1.0)
    watching = Watching(engine, spare_engine)
    assert watching.watchdog.in_flight.pulse == 0
    with watching.looking():
        assert watching.watchdog.in_flight.pulse == 1


def test_a_process_that_was_halted_fails_no_consumer_for_it() -> None:
    command = [sys.executable, "-c", HALTED]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"began\n"
        process.send_signal(signal.SIGSTOP)
        going_on = time.monotonic() + 2.5
        until(lambda: time.monotonic() > going_on)
        process.send_signal(signal.SIGCONT)
        assert process.communicate(b"\n", timeout=DEADLINE_SECONDS)[0] == b"in time\n"
