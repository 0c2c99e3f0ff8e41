"""What was begun in the console and did not complete is resumed by `kratos-sync audit resume`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import UUID

import pytest
from click.testing import Result
from sqlalchemy import Engine, text

from kratos_sync.application.ports.operations import How, Operation, OperationFilter, Outcome
from kratos_sync.infrastructure.container import Container
from kratos_sync.testing.kratos import InMemoryDocuments
from tests.api.cli.invoking import kratos_sync
from tests.api.http.console.test_pages import ended, fail, group_of, sent
from tests.api.http.console.visiting import Visitor, shown
from tests.infrastructure.ledger.rows import SOMEBODY, add_event, add_identity
from tests.kratos.admin_stand_in import AdminStandIn
from tests.kratos.persons import person
from tests.suites.ledgers import PostgresLedger

SYNC = "SyncKratosIdentity"
REFUSE = """
    CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF coalesce(NEW.event_id, OLD.event_id) = ANY('{{{ids}}}'::uuid[]) THEN
            RAISE EXCEPTION 'refused';
        END IF;
        RETURN coalesce(NEW, OLD);
    END $$;
    CREATE TRIGGER refuse BEFORE INSERT OR UPDATE OR DELETE ON kratos_sync.deliveries
    FOR EACH ROW EXECUTE FUNCTION public.refuse();
"""
ALLOW = "DROP TRIGGER refuse ON kratos_sync.deliveries; DROP FUNCTION public.refuse();"
Command = Callable[..., Result]
Resume = Callable[..., Operation]


@contextmanager
def refusing(engine: Engine, *event_ids: UUID) -> Iterator[None]:
    """Have PostgreSQL refuse to change the deliveries of these events."""
    with engine.begin() as connection:
        connection.exec_driver_sql(REFUSE.format(ids=",".join(map(str, event_ids))))
    yield
    with engine.begin() as connection:
        connection.exec_driver_sql(ALLOW)


@pytest.fixture
def audit_resume(container: Container, database_url: str, broker_url: str) -> Command:
    """The command for the newest operation, which failed in the console."""

    def run(**settings: str) -> Result:
        (failed,) = container.operations().newest(OperationFilter(), 1)
        assert (failed.how, failed.outcome) == (How.CONSOLE, Outcome.FAILED)
        urls = {"DATABASE_URL": database_url, "BROKER_URL": broker_url}
        return kratos_sync("audit", "resume", str(failed.id), "--yes", **urls, **settings)

    return run


@pytest.fixture
def resume(container: Container, audit_resume: Command) -> Resume:
    """Runs it, and gives the operation that resumed the other."""

    def run(**settings: str) -> Operation:
        result = audit_resume(**settings)
        assert result.exit_code == 0, result.output
        return container.operations().newest(OperationFilter(), 1)[0]

    return run


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kratos_sync.application.actions.STEP", 1)


def dead(engine: Engine) -> set[UUID]:
    deliveries = PostgresLedger(engine).deliveries.items()
    return {event_id for (_, event_id), delivery in deliveries if delivery.is_dead}


@pytest.mark.parametrize("operation", ["retry", "discard"])
def test_a_decision_about_a_group_is_resumed_for_the_group_alone(
    visitor: Visitor, engine: Engine, resume: Resume, operation: str
) -> None:
    other = fail(engine, shape="another")
    *_, third = [fail(engine, shape="Zoë is no int") for _ in range(3)]
    page = group_of(visitor)
    with refusing(engine, third):
        said = {**shown(visitor, page), "which": "all"}
        assert "failed" in ended(visitor, sent(visitor, f"{page}/{operation}", **said))
    assert dead(engine) == {third, other}
    later = fail(engine, shape="Zoë is no int")

    resumed = resume()

    assert (resumed.outcome, resumed.done, resumed.total) == (Outcome.COMPLETED, 1, 1)
    assert dead(engine) == {other, later}


def test_the_record_of_a_decision_does_not_quote_the_shape(
    visitor: Visitor, engine: Engine, container: Container
) -> None:
    fail(engine, shape="Zoë is no int")
    ended(
        visitor,
        sent(visitor, f"{(page := group_of(visitor))}/retry", **shown(visitor, page), which="all"),
    )
    (operation,) = container.operations().newest(OperationFilter(), 9)
    assert "Zoë" not in repr(operation)
    assert operation.scope["exception"] == "ValueError"
    assert "shape" in operation.scope


def test_a_decision_about_a_group_that_is_gone_is_not_resumed(
    visitor: Visitor, engine: Engine, audit_resume: Command
) -> None:
    only, other = fail(engine, shape="Zoë is no int"), fail(engine, shape="another")
    page = group_of(visitor)
    with refusing(engine, only, other):
        ended(visitor, sent(visitor, f"{page}/retry", **shown(visitor, page), which="all"))
    PostgresLedger(engine).query("DELETE FROM kratos_sync.deliveries")
    fail(engine, shape="a third")

    result = audit_resume()

    assert result.exit_code == 1
    assert "no dead letter of its group is left" in result.stderr
    assert len(dead(engine)) == 1


def test_a_retry_of_one_is_resumed_for_that_one(
    visitor: Visitor, engine: Engine, resume: Resume
) -> None:
    ids = {fail(engine), fail(engine)}
    with refusing(engine, *ids):
        ended(
            visitor,
            sent(
                visitor, f"{(page := group_of(visitor))}/retry", **shown(visitor, page), which="one"
            ),
        )
    assert dead(engine) == ids

    assert resume().done == 1

    assert len(dead(engine)) == 1


def test_a_replay_of_an_identity_is_resumed(
    visitor: Visitor, engine: Engine, resume: Resume
) -> None:
    add_identity(engine)
    ids = [add_event(engine) for _ in range(3)]
    with refusing(engine, ids[-1]):
        ended(
            visitor, sent(visitor, f"/identity/{SOMEBODY}/replay", consumer=SYNC, confirmed="yes")
        )

    resumed = resume()

    assert (resumed.outcome, resumed.subject) == (Outcome.COMPLETED, SOMEBODY)
    assert {event_id for _, event_id in PostgresLedger(engine).deliveries} == set(ids)


def test_a_replay_of_a_time_is_resumed(visitor: Visitor, engine: Engine, resume: Resume) -> None:
    ids = [add_event(engine) for _ in range(3)]
    with refusing(engine, ids[-1]):
        form = {"consumer": SYNC, "since": "2020-01-01T00:00", "confirmed": "yes"}
        ended(visitor, sent(visitor, "/events/replay", **form))

    assert resume().outcome is Outcome.COMPLETED

    assert {event_id for _, event_id in PostgresLedger(engine).deliveries} == set(ids)


def test_a_replay_of_a_group_is_resumed_for_the_group_alone(
    visitor: Visitor, engine: Engine, resume: Resume
) -> None:
    fail(engine, shape="another")
    ids = [fail(engine, shape="Zoë is no int") for _ in range(3)]
    PostgresLedger(engine).query("UPDATE kratos_sync.events SET name = 'identity.registered'")
    page = group_of(visitor)
    with refusing(engine, ids[-1]):
        said = {**shown(visitor, page), "consumer": "CountRegistrations", "confirmed": "yes"}
        assert "failed" in ended(visitor, sent(visitor, f"{page}/replay", **said))

    resumed = resume()

    assert (resumed.outcome, "Zoë" in repr(resumed)) == (Outcome.COMPLETED, False)
    counted = {
        event_id
        for consumer, event_id in PostgresLedger(engine).deliveries
        if consumer == "CountRegistrations"
    }
    assert counted == set(ids)


@pytest.mark.parametrize(("form", "events"), [({"dry_run": "yes"}, 0), ({}, 1)])
def test_a_reconciliation_is_resumed_as_what_it_was(
    visitor: Visitor, engine: Engine, resume: Resume, form: dict[str, str], events: int
) -> None:
    ended(visitor, sent(visitor, "/kratos/reconcile", **form))  # there is no KRATOS_ADMIN_URL
    town = InMemoryDocuments()
    town.put(person())
    with AdminStandIn(town) as kratos:
        resume(KRATOS_ADMIN_URL=kratos.url)
    with engine.connect() as connection:
        count = connection.execute(text("SELECT count(*) FROM kratos_sync.events")).scalar_one()
    assert count == events
