"""Events that are published at the same time share a commit, and nothing else."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg import pq
from sqlalchemy import Engine, create_engine

from kratos_sync.application.consumers.sync_kratos_identity import SyncKratosIdentity
from kratos_sync.application.ports.event_bus import LedgerUnavailable, Provenance
from kratos_sync.infrastructure.ledger import group_commit
from kratos_sync.infrastructure.ledger.recording import EventRow
from kratos_sync.infrastructure.postgres import connections, loop_connection
from tests.domain.people import cause
from tests.suites.ledgers import PostgresLedger
from tests.suites.occurrences import person, updated
from tests.suites.publishing import bus_of, running, unread
from tests.waiting import DEADLINE_SECONDS, until, until_on_loop

WEBHOOK = Provenance("webhook")
SOON = timedelta(milliseconds=300)
LONG = timedelta(seconds=DEADLINE_SECONDS)
NOT_THE_EVENTS = ["0A000", "25006", "26000", "3F000", "42501", "42P01", "53100", "55000", "58030"]
NOT_THE_EVENTS += ["P0001", "XX000", "XX001"]


@pytest.fixture
def ledger(engine: Engine) -> PostgresLedger:
    return PostgresLedger(engine)


@pytest.fixture(autouse=True)
def long_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a test lets writers wait, they are not interrupted."""
    monkeypatch.setattr(group_commit, "STATEMENT_TIMEOUT", LONG)
    monkeypatch.setattr(loop_connection, "REPLY_SECONDS", DEADLINE_SECONDS)
    monkeypatch.setattr(group_commit, "QUEUE_SECONDS", DEADLINE_SECONDS)
    monkeypatch.setattr(group_commit, "REDO_SECONDS", DEADLINE_SECONDS)


class Publishing:
    """Publishes, and holds what the bus then asks of PostgreSQL."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.begun = self.woken = 0
        self.bus = bus_of(engine, self._wake)

    def _wake(self) -> None:
        self.woken += 1

    def run(self, scenario: Callable[[], Awaitable[Any]]) -> Any:
        return running(self.bus, scenario)

    def begin(self, number: int, key: str | None = None, payload: bytes | None = None) -> Any:
        provenance = Provenance("webhook", key)
        event = updated(number, person(number))
        published = event if payload is None else unread(event, payload)

        async def publish() -> bool:
            self.begun += 1
            return await self.bus.publish(published, provenance)

        return asyncio.create_task(publish())

    async def all(self, tasks: Sequence[Any]) -> list[Any]:
        return await asyncio.gather(*tasks, return_exceptions=True)

    @contextmanager
    def locked_out(self) -> Iterator[psycopg.Connection[Any]]:
        """Nobody can write events meanwhile."""
        with psycopg.connect(self.url) as connection:
            connection.execute("LOCK kratos_sync.events")
            yield connection

    @property
    def url(self) -> str:
        return self.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)


@pytest.fixture
def publishing(engine: Engine) -> Publishing:
    return Publishing(engine)


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[pq.abc.PGresult]:
    """The result of every statement that is sent on the bus' connections."""
    results: list[pq.abc.PGresult] = []
    ask = loop_connection.LoopConnection.ask

    async def counting(
        connection: loop_connection.LoopConnection, send: Callable[[], None]
    ) -> pq.abc.PGresult:
        result = await ask(connection, send)
        if result.status != pq.ExecStatus.COMMAND_OK:  # which is what PREPARE answers
            results.append(result)
        return result

    monkeypatch.setattr(loop_connection.LoopConnection, "ask", counting)
    return results


def transactions(ledger: PostgresLedger) -> int:
    """How many wrote what is in the tables of events and deliveries."""
    (row,) = ledger.query(
        "SELECT count(DISTINCT xmin) AS number FROM (SELECT xmin::text FROM kratos_sync.events"
        " UNION ALL SELECT xmin::text FROM kratos_sync.deliveries) AS written"
    )
    number: int = row["number"]
    return number


def test_a_lone_event_is_one_statement(
    publishing: Publishing, ledger: PostgresLedger, statements: list[pq.abc.PGresult]
) -> None:
    assert publishing.run(lambda: publishing.bus.publish(updated(1), WEBHOOK))

    assert len(statements) == 1
    assert (len(ledger.events), len(ledger.deliveries), transactions(ledger)) == (1, 1, 1)


def test_a_group_is_one_statement_whatever_its_size(
    publishing: Publishing, ledger: PostgresLedger, statements: list[pq.abc.PGresult]
) -> None:
    async def scenario() -> list[Any]:
        return await publishing.all([publishing.begin(number) for number in range(1, 65)])

    assert publishing.run(scenario) == [True] * 64
    assert [result.ntuples for result in statements] == [64]
    assert (len(ledger.events), len(ledger.deliveries), transactions(ledger)) == (64, 64, 1)
    assert publishing.woken == 1


def test_all_times_of_a_group_are_the_databases(
    publishing: Publishing, ledger: PostgresLedger
) -> None:
    async def scenario() -> list[Any]:
        return await publishing.all([publishing.begin(number) for number in (1, 2)])

    before = ledger.now
    publishing.run(scenario)
    rows = ledger.query(
        "SELECT recorded_at, owed_at, due_at, consumer, d.subject = e.subject AS same"
        " FROM kratos_sync.events e JOIN kratos_sync.deliveries d ON d.event_id = e.id"
    )
    assert len(rows) == 2
    for row in rows:
        assert before < row["recorded_at"] <= row["owed_at"] == row["due_at"] < ledger.now
        assert (row["consumer"], row["same"]) == (SyncKratosIdentity.name, True)


def test_each_caller_of_a_group_gets_whether_its_event_is_new(
    publishing: Publishing, ledger: PostgresLedger, statements: list[pq.abc.PGresult]
) -> None:
    async def scenario() -> list[Any]:
        await publishing.begin(1, "old")
        return await publishing.all(
            [
                publishing.begin(2, "old"),
                publishing.begin(3, "new"),
                publishing.begin(1),  # the id of a recorded event
                publishing.begin(4, "new"),
                publishing.begin(5),
                publishing.begin(5),
            ]
        )

    assert publishing.run(scenario) == [False, True, False, False, True, False]
    assert list(ledger.events) == [cause(1), cause(3), cause(5)]
    assert len(ledger.deliveries) == 3
    assert len(statements) == 2


def test_only_the_caller_of_an_invalid_event_gets_its_error(
    publishing: Publishing, ledger: PostgresLedger
) -> None:
    async def scenario() -> list[Any]:
        return await publishing.all(
            [publishing.begin(1), publishing.begin(2, payload=b"no JSON"), publishing.begin(3)]
        )

    first, second, third = publishing.run(scenario)
    assert (first, third) == (True, True)
    assert isinstance(second, psycopg.errors.InvalidTextRepresentation)
    assert list(ledger.events) == [cause(1), cause(3)]


def test_an_event_that_waits_for_a_lock_delays_no_other(
    publishing: Publishing, ledger: PostgresLedger
) -> None:
    async def scenario() -> list[Any]:
        calls = [publishing.begin(number) for number in (1, 2, 3)]
        for _ in ("together", "alone"):
            await until_blocked(publishing, 1)
            # As the statement timeout does.
            await asyncio.to_thread(cancel_the_blocked, ledger)
        return await publishing.all(calls)

    with psycopg.connect(publishing.url) as other:
        other.execute(
            "INSERT INTO kratos_sync.events (id, name, subject, occurred_at, payload, source)"
            " VALUES (%s, 'held', %s, now(), '{}', 'test')",
            [cause(2), cause(2)],
        )
        first, second, third = publishing.run(scenario)
    assert (first, third) == (True, True)
    assert isinstance(second, LedgerUnavailable)


def test_a_cancelled_caller_affects_no_other(
    publishing: Publishing, ledger: PostgresLedger
) -> None:
    async def scenario() -> list[Any]:
        calls = [publishing.begin(number) for number in (1, 2, 3)]
        await until_on_loop(lambda: publishing.begun == 3)
        calls[1].cancel()
        await until_on_loop(calls[0].done)
        late = publishing.begin(4)
        return [*await publishing.all([calls[0], calls[2]]), await late]

    assert publishing.run(scenario) == [True, True, True]
    assert {cause(1), cause(3), cause(4)} <= set(ledger.events)


def test_the_bus_works_on_after_a_lone_caller_was_cancelled(publishing: Publishing) -> None:
    async def scenario() -> Any:
        call = publishing.begin(1)
        await until_on_loop(lambda: publishing.begun == 1)
        call.cancel()
        await publishing.all([call])
        return await publishing.begin(2)

    assert publishing.run(scenario)


def test_a_connection_that_died_is_noticed_before_it_is_used(
    publishing: Publishing, ledger: PostgresLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: list[object] = []
    lose = loop_connection.LoopConnection._lose

    def losing(connection: loop_connection.LoopConnection) -> None:
        lost.append(connection)
        lose(connection)

    monkeypatch.setattr(loop_connection.LoopConnection, "_lose", losing)

    async def scenario() -> list[Any]:
        first = await publishing.begin(1)
        await asyncio.to_thread(terminate_the_others, ledger)
        await until_on_loop(lambda: lost)
        return [first, await publishing.begin(2)]

    assert publishing.run(scenario) == [True, True]


def test_a_connection_lost_at_work_is_an_unavailable_ledger_for_all_and_is_replaced(
    publishing: Publishing, ledger: PostgresLedger
) -> None:
    async def scenario() -> list[Any]:
        with publishing.locked_out() as holding:
            calls = [publishing.begin(number) for number in (1, 2, 3)]
            await until_blocked(publishing, 1)
            await asyncio.to_thread(terminate_the_others, ledger, holding.info.backend_pid)
            lost = await publishing.all(calls)
        return [*map(type, lost), await publishing.begin(1)]

    assert publishing.run(scenario) == [LedgerUnavailable] * 3 + [True]
    assert len(ledger.events) == 1


def test_an_unavailable_ledger_fails_every_caller_and_wakes_no_relay(
    publishing: Publishing,
) -> None:
    url = publishing.engine.url.set(query={"host": "/nonexistent"})
    nowhere = Publishing(create_engine(url))

    async def scenario() -> list[Any]:
        return await nowhere.all([nowhere.begin(number) for number in (1, 2, 3)])

    assert [type(answer) for answer in nowhere.run(scenario)] == [LedgerUnavailable] * 3
    assert nowhere.woken == 0


def test_a_statement_that_takes_too_long_is_an_unavailable_ledger(
    publishing: Publishing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "STATEMENT_TIMEOUT", SOON)
    publishing = Publishing(publishing.engine)
    with publishing.locked_out():
        answer = publishing.run(lambda: publishing.all([publishing.begin(1)]))
    assert isinstance(answer[0], LedgerUnavailable)
    assert str(answer[0]) == "PostgreSQL was too slow"


def test_a_process_that_cannot_connect_for_want_of_threads_has_an_unavailable_ledger(
    publishing: Publishing, ledger: PostgresLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    async def scenario() -> list[Any]:
        with monkeypatch.context() as short_of_threads:
            short_of_threads.setattr(connections, "best_first", refuse)
            refused = await publishing.all([publishing.begin(1)])
        return [*map(type, refused), await publishing.begin(1)]

    assert publishing.run(scenario) == [LedgerUnavailable, True]
    assert len(ledger.events) == 1


def test_an_error_whose_causes_form_a_circle_comes_to_its_caller() -> None:
    async def scenario() -> BaseException | None:
        lost, other = psycopg.OperationalError(), LookupError()
        lost.__cause__, other.__cause__ = other, lost
        recorded: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        row = EventRow.of(updated(1), WEBHOOK)
        group_commit.fail([group_commit.WaitingEvent(row, recorded, 0)], lost)
        return recorded.exception()

    assert isinstance(asyncio.run(scenario()), LedgerUnavailable)


@contextmanager
def failing_with(publishing: Publishing, sqlstate: str) -> Iterator[None]:
    """Whoever adds an event of identity 13 gets this error meanwhile."""
    with psycopg.connect(publishing.url, autocommit=True) as administrator:
        administrator.execute(
            f"""
            CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                RAISE EXCEPTION 'as asked' USING ERRCODE = '{sqlstate}';
            END $$;
            CREATE TRIGGER fail BEFORE INSERT ON kratos_sync.events FOR EACH ROW
            WHEN (NEW.subject = '{person(13)}') EXECUTE FUNCTION fail()
        """.encode()
        )
        yield
        administrator.execute("DROP FUNCTION fail CASCADE")


@pytest.mark.parametrize(
    "sqlstate",
    [
        "0A000",
        "25006",
        "26000",
        "3F000",
        "42501",
        "42P01",
        "53100",
        "55000",
        "58030",
        "P0001",
        "XX000",
        "XX001",
    ],
)
def test_an_error_that_is_not_the_events_own_is_an_unavailable_ledger_until_it_is_mended(
    publishing: Publishing, ledger: PostgresLedger, sqlstate: str
) -> None:
    async def scenario() -> list[Any]:
        with failing_with(publishing, sqlstate):
            failed = (await publishing.all([publishing.begin(13)]))[0]
        return [failed, *await publishing.all([publishing.begin(13)])]

    failed, recorded = publishing.run(scenario)
    assert type(failed) is LedgerUnavailable
    assert recorded is True
    assert "as asked" not in str(failed)


@pytest.mark.parametrize("sqlstate", ["22P05", "22003", "23514", "54000"])
def test_an_error_that_is_the_events_own_is_raised_as_it_is_and_harms_no_other(
    publishing: Publishing, ledger: PostgresLedger, sqlstate: str
) -> None:
    async def scenario() -> list[Any]:
        with failing_with(publishing, sqlstate):
            return await publishing.all([publishing.begin(number) for number in (12, 13, 14)])

    before, failed, after = publishing.run(scenario)
    assert (before, after) == (True, True)
    assert isinstance(failed, psycopg.Error)
    assert failed.sqlstate == sqlstate


@pytest.mark.parametrize("bound", ["MOST_WAITING", "MOST_BYTES_WAITING"])
def test_no_more_waits_than_allowed_and_what_waits_is_recorded(
    publishing: Publishing, ledger: PostgresLedger, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    size = len(b'{"identity":{}}') + 4
    monkeypatch.setattr(group_commit, bound, 2 if bound == "MOST_WAITING" else 2 * size)
    payload = b'{"identity":{}}'

    async def scenario() -> list[Any]:
        with publishing.locked_out():
            taken = []
            for number in range(1, group_commit.WRITERS + 1):
                taken.append(publishing.begin(number, payload=payload))
                await until_blocked(publishing, number)
            waiting = [publishing.begin(10 + number, payload=payload) for number in range(3)]
            await until_on_loop(waiting[2].done)
            refused = (await publishing.all(waiting[2:]))[0]
        return [*await publishing.all([*taken, *waiting[:2]]), type(refused)]

    expected = [True] * (group_commit.WRITERS + 2)
    assert publishing.run(scenario) == [*expected, LedgerUnavailable]
    assert len(ledger.events) == group_commit.WRITERS + 2


def test_an_event_that_never_gets_its_turn_gives_up(
    publishing: Publishing, ledger: PostgresLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> list[Any]:
        with publishing.locked_out():
            taken = []
            for number in range(1, group_commit.WRITERS + 1):
                taken.append(publishing.begin(number))
                await until_blocked(publishing, number)
            monkeypatch.setattr(group_commit, "QUEUE_SECONDS", 0.05)
            refused = (await publishing.all([publishing.begin(9)]))[0]
        return [*await publishing.all(taken), type(refused)]

    assert publishing.run(scenario) == [True] * group_commit.WRITERS + [LedgerUnavailable]
    assert cause(9) not in ledger.events


def test_a_group_of_many_bytes_is_sent_whole(
    publishing: Publishing, ledger: PostgresLedger
) -> None:
    payload = b'{"identity":{"traits":"' + b"x" * 300_000 + b'"}}'

    async def scenario() -> list[Any]:
        return await publishing.all(
            [publishing.begin(number, payload=payload) for number in range(1, 31)]
        )

    assert publishing.run(scenario) == [True] * 30
    assert {event.payload for event in ledger.events.values()} == {payload.decode()}
    assert transactions(ledger) == 3


def test_stopping_finishes_what_waits_and_closes_every_connection(
    publishing: Publishing, ledger: PostgresLedger
) -> None:
    async def scenario() -> list[Any]:
        calls = [publishing.begin(number) for number in (1, 2, 3)]
        await until_on_loop(lambda: publishing.begun == 3)
        await publishing.bus.stop()
        await asyncio.to_thread(until, lambda: others(ledger) == [])
        return [*await publishing.all(calls), await publishing.begin(4)]

    assert publishing.run(scenario) == [True] * 4
    until(lambda: others(ledger) == [])


def others(ledger: PostgresLedger) -> list[int]:
    return [
        row["pid"]
        for row in ledger.query(
            "SELECT pid FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    ]


def terminate_the_others(ledger: PostgresLedger, but: int = 0) -> None:
    ledger.query(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid() AND pid <> :but",
        but=but,
    )


BLOCKED = "FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


def cancel_the_blocked(ledger: PostgresLedger) -> None:
    """Cancel the statement that waits for a lock, and wait until it has ended."""
    (blocked,) = ledger.query(f"SELECT pid, query_start {BLOCKED}")
    ledger.query(f"SELECT pg_cancel_backend(pid) {BLOCKED}")
    still = f"SELECT {BLOCKED} AND pid = :pid AND query_start = :query_start"
    until(lambda: not ledger.query(still, **blocked))


async def until_blocked(publishing: Publishing, number: int) -> None:
    """So many writers wait for a lock."""
    with psycopg.connect(publishing.url, autocommit=True) as connection:
        blocked = f"SELECT {BLOCKED}".encode()
        await until_on_loop(lambda: connection.execute(blocked).rowcount >= number)
