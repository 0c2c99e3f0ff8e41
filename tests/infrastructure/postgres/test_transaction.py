"""A transaction, and the repositories that write in it."""

from datetime import timedelta
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from kratos_sync.application.ports.event_bus import LedgerUnavailable
from kratos_sync.application.ports.unit_of_work import ConcurrencyConflict
from kratos_sync.domain.events import DomainEvent
from kratos_sync.infrastructure.postgres.transaction import Transaction
from tests.domain.people import ADA
from tests.suites.occurrences import gone, updated
from tests.waiting import until

TIME_LIMIT = timedelta(seconds=20)


class Diary:
    """A repository that writes one line when its transaction commits."""

    def __init__(self, transaction: Transaction, line: str, raised: list[DomainEvent]) -> None:
        self._transaction, self._line, self._raised = transaction, line, raised
        self._line_before = line
        transaction.join(self)

    def correct(self, line: str) -> None:
        self._line = line

    def savepoint(self) -> None:
        self._line_before = self._line

    def roll_back_to_savepoint(self) -> None:
        self._line = self._line_before

    def flush(self) -> None:
        self._transaction.execute(text("INSERT INTO diary VALUES (:line)"), {"line": self._line})

    def collect_events(self) -> list[DomainEvent]:
        raised, self._raised = self._raised, []
        return raised


@pytest.fixture
def transaction(engine: Engine) -> Transaction:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE diary (line text UNIQUE)"))
    return Transaction(engine)


def lines(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.execute(text("SELECT line FROM diary ORDER BY 1")).scalars())


def test_repositories_write_when_the_transaction_commits(
    engine: Engine, transaction: Transaction
) -> None:
    with transaction.begin(TIME_LIMIT):
        Diary(transaction, "Dear diary", [])
        Diary(transaction, "Ada came by", [])
        before = lines(engine)
        transaction.commit()

    assert (before, lines(engine)) == ([], ["Ada came by", "Dear diary"])


def test_without_a_commit_nothing_is_written(engine: Engine, transaction: Transaction) -> None:
    with transaction.begin(TIME_LIMIT):
        transaction.execute(text("INSERT INTO diary VALUES ('torn out')"), {})

    assert lines(engine) == []


def test_an_error_rolls_back_and_comes_out_as_it_was(
    engine: Engine, transaction: Transaction
) -> None:
    def tear_out() -> None:
        with transaction.begin(TIME_LIMIT):
            transaction.execute(text("INSERT INTO diary VALUES ('torn out')"), {})
            raise KeyError("shoes")

    with pytest.raises(KeyError, match="shoes"):
        tear_out()

    assert lines(engine) == []


@pytest.mark.parametrize(
    "change",
    [
        "ROLE pg_monitor",
        "SESSION AUTHORIZATION pg_monitor",
        "statement_timeout = '7s'",
        "synchronous_commit = off",
        "default_transaction_read_only = on",
        "client_encoding = 'LATIN1'",
        "search_path = nowhere",
        "idle_session_timeout = '1h'",
    ],
)
def test_what_a_consumer_sets_for_the_session_ends_with_its_transaction(
    engine: Engine, transaction: Transaction, change: str
) -> None:
    def session() -> object:
        asked = "SELECT pg_backend_pid(), current_user, name, setting FROM pg_settings ORDER BY 3"
        with engine.connect() as connection:
            return connection.execute(text(asked)).all()

    statement = f"SET {change}"
    before = session()
    runs = (
        lambda: transaction.connection.execute(text(statement)),
        lambda: transaction.execute(text(statement), {}),
        lambda: transaction.run(statement.encode(), ()),
    )
    for run in 3 * runs:  # psycopg prepares what it has executed five times
        with transaction.begin(TIME_LIMIT):
            run()
            transaction.commit()

        assert session() == before


def test_a_repository_takes_part_in_one_transaction_only(
    engine: Engine, transaction: Transaction
) -> None:
    with transaction.begin(TIME_LIMIT):
        Diary(transaction, "torn out", [gone(1)])
    with transaction.begin(TIME_LIMIT):
        collected = transaction.collect_events()
        transaction.commit()

    assert (collected, lines(engine)) == ([], [])


def test_the_events_of_every_repository_are_collected_once(transaction: Transaction) -> None:
    with transaction.begin(TIME_LIMIT):
        Diary(transaction, "one", [gone(1)])
        Diary(transaction, "two", [gone(2), updated(3)])

        assert [event.id for event in transaction.collect_events()] == [
            gone(1).id,
            gone(2).id,
            updated(3).id,
        ]
        assert transaction.collect_events() == []


def test_each_transaction_forgets_whom_the_last_one_was_about(transaction: Transaction) -> None:
    seen: list[tuple[UUID, ...]] = []
    for _ in range(2):
        with transaction.begin(TIME_LIMIT):
            seen.append(transaction.subjects)
            transaction.subjects = (ADA,)

    assert seen == [(), ()]


def test_a_statement_that_takes_too_long_is_stopped_and_is_a_failure(
    transaction: Transaction,
) -> None:
    with (
        pytest.raises(DBAPIError, match="statement timeout"),
        transaction.begin(timedelta(milliseconds=50)),
    ):
        transaction.execute(text("SELECT pg_sleep(15)"), {})


def test_a_time_limit_ends_with_its_transaction(transaction: Transaction) -> None:
    def limit() -> str:
        value: str = transaction.execute(text("SHOW statement_timeout"), {}).scalar_one()
        return value

    with transaction.begin(timedelta(milliseconds=1500)):
        during = limit()
        transaction.commit()
        afterwards = limit()

    assert (during, afterwards) == ("1500ms", "30s")


def test_a_lost_connection_is_an_unavailable_ledger(
    engine: Engine, transaction: Transaction
) -> None:
    def be_killed() -> None:
        with transaction.begin(TIME_LIMIT):
            pid = transaction.execute(text("SELECT pg_backend_pid()"), {}).scalar_one()
            with engine.connect() as other:
                other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
            transaction.commit()

    with pytest.raises(LedgerUnavailable):
        be_killed()


def test_a_lost_connection_is_one_whatever_a_consumer_makes_of_it(
    engine: Engine, transaction: Transaction
) -> None:
    def be_killed_and_complain() -> None:
        with transaction.begin(TIME_LIMIT):
            pid = transaction.execute(text("SELECT pg_backend_pid()"), {}).scalar_one()
            with engine.connect() as other:
                other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
            try:
                transaction.execute(text("SELECT 1"), {})
            except DBAPIError:
                raise LookupError("nothing was found") from None

    with pytest.raises(LedgerUnavailable):
        be_killed_and_complain()
    with transaction.begin(TIME_LIMIT):
        assert transaction.fetch("SELECT 1", []) == [(1,)]


def test_a_connection_lost_to_idling_is_the_consumers_own_failure(
    engine: Engine, transaction: Transaction
) -> None:
    """Else a consumer that hangs would be tried again for ever, and never counted."""

    def is_gone(pid: int) -> bool:
        statement = text("SELECT count(*) FROM pg_stat_activity WHERE pid = :pid")
        with engine.connect() as other:
            return bool(other.execute(statement, {"pid": pid}).scalar_one() == 0)

    def hang() -> None:
        limit = text("SET LOCAL idle_in_transaction_session_timeout = '50ms'")
        with transaction.begin(TIME_LIMIT):
            pid = transaction.execute(text("SELECT pg_backend_pid()"), {}).scalar_one()
            transaction.execute(limit, {})
            until(lambda: is_gone(pid))
            transaction.commit()

    with pytest.raises(DBAPIError, match="idle-in-transaction timeout"):
        hang()


def test_who_may_take_long_may_idle_for_as_long(transaction: Transaction) -> None:
    """A batch ends after two time limits at most, perhaps without a statement in between."""
    time_limit = timedelta(minutes=5)
    setting = "CAST(current_setting('idle_in_transaction_session_timeout') AS interval)"

    with transaction.begin(time_limit):
        ((may_idle,),) = transaction.fetch(f"SELECT {setting}", [])

    assert may_idle > 2 * time_limit


def test_a_lock_waited_for_in_vain_is_a_conflict(engine: Engine, transaction: Transaction) -> None:
    def read() -> None:
        with transaction.begin(TIME_LIMIT):
            transaction.execute(text("SET LOCAL lock_timeout = '20ms'"), {})
            transaction.execute(text("SELECT * FROM diary"), {})

    with engine.begin() as other:
        other.execute(text("LOCK TABLE diary"))
        with pytest.raises(ConcurrencyConflict):
            read()


def test_a_commit_that_breaks_a_rule_is_a_failure(engine: Engine, transaction: Transaction) -> None:
    def write() -> None:
        with transaction.begin(TIME_LIMIT):
            Diary(transaction, "twice", [])
            Diary(transaction, "twice", [])
            transaction.commit()

    with pytest.raises(DBAPIError, match="diary_line_key"):
        write()

    assert lines(engine) == []


def test_what_repositories_held_back_since_the_checkpoint_is_taken_back(
    engine: Engine, transaction: Transaction
) -> None:
    with transaction.begin(TIME_LIMIT):
        diary = Diary(transaction, "Dear diary", [])
        transaction.savepoint()
        diary.correct("Dear dairy")
        assert transaction.roll_back_to_savepoint(ValueError())
        transaction.commit()

    assert lines(engine) == ["Dear diary"]


@pytest.mark.parametrize("statement", ["INSERT INTO diary VALUES ('at once')", "SELECT 1"])
def test_what_was_executed_is_not_taken_back(
    engine: Engine, transaction: Transaction, statement: str
) -> None:
    with transaction.begin(TIME_LIMIT):
        diary = Diary(transaction, "Dear diary", [])
        transaction.savepoint()
        diary.correct("Dear dairy")
        transaction.execute(text(statement), {})
        assert not transaction.roll_back_to_savepoint(ValueError())

        transaction.savepoint()
        assert transaction.roll_back_to_savepoint(ValueError())


def test_a_transaction_that_failed_is_not_taken_back(transaction: Transaction) -> None:
    with transaction.begin(TIME_LIMIT):
        transaction.savepoint()
        with pytest.raises(psycopg.Error):
            transaction.run("SELECT 1 / $1::integer", [0])

        assert not transaction.roll_back_to_savepoint(ValueError())
