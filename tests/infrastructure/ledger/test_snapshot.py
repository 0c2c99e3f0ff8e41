"""Reading at one moment, by one statement or by many."""

from sqlalchemy import Connection, Engine, event, text

from kratos_sync.infrastructure.ledger.snapshot import one_moment, snapshot
from tests.infrastructure.ledger.rows import add_event

RECORDED = text("SELECT count(*) FROM kratos_sync.events")


def recorded(engine: Engine) -> int:
    with snapshot(engine) as connection:
        return int(connection.execute(RECORDED).scalar_one())


def test_each_snapshot_sees_what_was_committed_before_it(engine: Engine) -> None:
    add_event(engine)
    assert recorded(engine) == 1
    add_event(engine)
    assert recorded(engine) == 2


def test_snapshots_of_one_moment_see_nothing_that_was_committed_since_the_first(
    engine: Engine,
) -> None:
    with one_moment():
        add_event(engine)
        assert recorded(engine) == 1
        add_event(engine)
        assert recorded(engine) == 1
    assert recorded(engine) == 2


def test_snapshots_of_one_moment_share_a_transaction(engine: Engine) -> None:
    begun = list[Connection]()
    count = begun.append
    event.listen(engine, "begin", count)
    try:
        with one_moment():
            recorded(engine)
            recorded(engine)
    finally:
        event.remove(engine, "begin", count)
    assert len(begun) == 1
