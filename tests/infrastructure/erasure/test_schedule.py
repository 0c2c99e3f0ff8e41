"""The relay's eye on erasures."""

import threading
from collections.abc import Iterator, Sequence
from uuid import UUID, uuid4

from sqlalchemy import Engine, text

from kratos_sync.application.ports.deletions import Erased
from kratos_sync.application.ports.event_bus import LedgerUnavailable
from kratos_sync.application.ports.operations import How, OperationFilter, Outcome
from kratos_sync.infrastructure.erasure import ErasureSchedule, PostgresErasures
from kratos_sync.infrastructure.ledger.purge import hold_off_purges
from tests.fakes.operations import InMemoryOperations
from tests.infrastructure.erasure.life import Life
from tests.suites.ledgers import PostgresLedger
from tests.waiting import DEADLINE_SECONDS, in_a_thread, until


class Flickering:
    """Erasures of one person, in a database that is away at first."""

    def __init__(self, *steps: Erased) -> None:
        self.steps = steps or (Erased(events=2, held=1), Erased(texts=1))
        self.people: list[UUID] = []
        self.looks = 0
        self.noted = threading.Event()
        self.complete: list[bool] = []

    def due(self, most: int) -> Sequence[UUID]:
        self.looks += 1
        if self.looks == 1:
            raise LedgerUnavailable("it is away")
        found = [uuid4()] if self.looks == 2 else []
        self.people += found
        return found

    def erase(self, ids: Sequence[UUID]) -> Iterator[Erased]:
        yield from self.steps

    def note(self, ids: Sequence[UUID], *, is_complete: bool) -> None:
        self.complete.append(is_complete)
        self.noted.set()


def test_a_database_that_was_away_is_asked_again_and_what_was_held_is_not_complete() -> None:
    erasures = Flickering()
    operations = InMemoryOperations()
    schedule = ErasureSchedule(erasures, operations, look_seconds=0.02)  # type: ignore[arg-type]  # what it uses
    with in_a_thread(schedule.run):
        assert erasures.noted.wait(DEADLINE_SECONDS)
    assert erasures.complete == [False]
    (recorded,) = operations.newest(OperationFilter(), 9)
    assert (recorded.operation, recorded.by, recorded.how) == ("erase", "relay", How.SCHEDULE)
    assert (recorded.outcome, recorded.done) == (Outcome.COMPLETED, 2)
    assert recorded.result == {"deliveries": 0, "texts": 1}
    assert recorded.subject in erasures.people


def test_an_erasure_that_finds_nothing_to_erase_is_no_operation() -> None:
    erasures, operations = Flickering(Erased()), InMemoryOperations()
    erasures.looks = 1
    ErasureSchedule(erasures, operations).run_once(threading.Event())  # type: ignore[arg-type]  # what it uses
    assert erasures.complete == [True]
    assert operations.newest(OperationFilter(), 9) == []


WAITING = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")


def test_nothing_is_erased_during_a_replay(engine: Engine) -> None:
    """Else what is being replayed would be pending, with nothing left to say."""
    life = Life(PostgresLedger(engine))
    life.live()
    erasures = PostgresErasures(engine)
    erasures.begin(life.id, "ada", "asked")
    erasing = threading.Thread(target=lambda: list(erasures.erase([life.id])))
    with engine.connect() as replaying, engine.connect() as looking:
        hold_off_purges(replaying)
        erasing.start()
        until(lambda: looking.execute(WAITING).scalar_one() == 1)
        assert "events" in life.left()
        replaying.rollback()
        erasing.join(DEADLINE_SECONDS)
    assert life.left() == []
