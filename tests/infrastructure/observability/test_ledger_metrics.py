"""The ledger's metrics as they are read from PostgreSQL."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import ProgrammingError

from kratos_sync.application.ports.dead_letters import RETRY_LATER, WAITS_FOR_EARLIER
from kratos_sync.domain.events import NO_IDENTITY
from kratos_sync.infrastructure.observability import definitions as define
from kratos_sync.infrastructure.observability import ledger_metrics
from kratos_sync.infrastructure.observability.definitions import Metric
from kratos_sync.infrastructure.observability.ledger_metrics import LedgerMetrics

CONSUMERS = ("Greet", "Mourn")
ADD = """
    INSERT INTO kratos_sync.deliveries
           (event_id, consumer, subject, attempts, owed_at, due_at, leased, last_error, failed_at,
            error_type)
    SELECT gen_random_uuid(), :consumer, gen_random_uuid(), :attempts, now() - :age,
           now() + :due_in, :leased, :error, CASE WHEN :dead THEN now() END, :error_type
    FROM generate_series(1, :number)
"""
LIMIT = text("SELECT set_config('statement_timeout', :most, true)")
DUE: dict[str, Any] = {}
LEASED = {"leased": True, "due_in": timedelta(seconds=20)}
EXPIRED = {"leased": True, "due_in": timedelta(seconds=-1)}
AHEAD = {"due_in": timedelta(hours=1)}
WAITING = {"due_in": timedelta(hours=1), "attempts": 1, "error_type": "LookupError"}
POSTPONED = {"due_in": timedelta(hours=1), "error_type": RETRY_LATER}
IN_ORDER = {"due_in": timedelta(hours=1), "error_type": WAITS_FOR_EARLIER}
UNKNOWN = {"due_in": timedelta(hours=1), "error_type": "UnknownEvent"}
DEAD = {"dead": True, "attempts": 12, "error_type": "LookupError"}


class Ledger:
    """A ledger that is filled row by row."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.metrics = LedgerMetrics(CONSUMERS)
        self.statement_timeout = "30000"

    def execute(self, statement: str, **parameters: object) -> None:
        with self._engine.begin() as connection:
            connection.execute(text(statement), parameters)

    def add(self, number: int = 1, consumer: str = "Greet", age: float = 0, **how: object) -> None:
        """Add deliveries that were recorded so many seconds ago."""
        row = {"attempts": 0, "due_in": timedelta(), "leased": False, "dead": False}
        row |= {"error_type": None, "error": None, "number": number, "consumer": consumer}
        self.execute(ADD, **(row | {"age": timedelta(seconds=age)} | how))

    def read(self, metric: Metric) -> dict[tuple[str, ...], float]:
        """Read every part, as an exporter does."""
        found: dict[Metric, Any] = {}
        with self._engine.connect() as connection:
            for part in self.metrics.parts:
                with connection.begin():
                    connection.execute(LIMIT, {"most": self.statement_timeout})
                    found |= part(connection)
        return dict(found[metric])

    def deliveries(self, consumer: str = "Greet") -> dict[str, float]:
        """The consumer's deliveries by state, without those of which there are none."""
        read = self.read(define.DELIVERIES)
        return {
            state: number for (name, state), number in read.items() if name == consumer and number
        }


@pytest.fixture
def ledger(engine: Engine) -> Iterator[Ledger]:
    ledger = Ledger(engine)
    ledger.execute("DELETE FROM kratos_sync.subscriptions")
    return ledger


@pytest.mark.parametrize(
    ("state", "how"),
    [
        ("due", DUE),
        ("due", EXPIRED),
        ("due", AHEAD),
        ("leased", LEASED),
        ("waiting", WAITING),
        ("waiting", UNKNOWN),
        ("postponed", POSTPONED),
        ("postponed", IN_ORDER),
        ("dead", DEAD),
    ],
)
def test_a_delivery_is_in_one_state(ledger: Ledger, state: str, how: dict[str, Any]) -> None:
    ledger.add(3, **how)
    assert ledger.deliveries() == {state: 3}


def test_all_states_together_are_all_deliveries(ledger: Ledger) -> None:
    for number, how in enumerate((DUE, EXPIRED, LEASED, WAITING, POSTPONED, DEAD), start=1):
        ledger.add(number, **how)
        ledger.add(1, "Mourn", **how)
    assert ledger.deliveries() == {
        "due": 1 + 2,
        "leased": 3,
        "waiting": 4,
        "postponed": 5,
        "dead": 6,
    }
    assert sum(ledger.deliveries("Mourn").values()) == 6


def test_a_consumer_without_deliveries_has_zeros(ledger: Ledger) -> None:
    read = ledger.read(define.DELIVERIES)
    assert read == {(name, state): 0 for name in CONSUMERS for state in define.STATES}
    assert ledger.read(define.LAG) == {("Greet",): 0, ("Mourn",): 0}


def test_the_lag_is_the_age_of_the_oldest_that_is_not_postponed(ledger: Ledger) -> None:
    ledger.add(age=5_000, **POSTPONED)
    ledger.add(age=4_000, **DEAD)
    ledger.add(age=300, **WAITING)
    ledger.add(age=200, **LEASED)
    ledger.add(age=100)
    lag = ledger.read(define.LAG)["Greet",]
    assert 300 <= lag < 400


def test_what_waits_for_a_newer_release_is_counted(ledger: Ledger) -> None:
    ledger.add(2, **UNKNOWN)
    ledger.add(1, **WAITING)
    assert ledger.read(define.UNKNOWN_EVENTS) == {(): 2}


def test_beyond_the_limit_a_number_is_estimated(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_metrics, "COUNTED", 100)
    monkeypatch.setattr(ledger_metrics, "LOOKED_AT", 50)
    ledger.add(2_000)
    ledger.add(1_500, **WAITING)
    ledger.add(500, **POSTPONED)
    ledger.add(40, **DEAD)
    ledger.execute("ANALYZE kratos_sync.deliveries")
    found = ledger.deliveries()
    assert found["due"] == pytest.approx(2_000, rel=0.2)
    assert found["waiting"] + found.get("postponed", 0) == pytest.approx(2_000, rel=0.2)
    assert found["dead"] == 40


def test_what_cannot_be_counted_in_time_is_estimated(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_metrics, "COUNTED", 100)
    monkeypatch.setattr(
        ledger_metrics,
        "COUNTS",
        text("SELECT pg_sleep(60), CAST(:consumers AS text[]), CAST(:most AS integer)"),
    )
    ledger.add(2_000)
    ledger.execute("ANALYZE kratos_sync.deliveries")
    ledger.statement_timeout = "500"
    assert ledger.deliveries()["due"] == pytest.approx(2_000, rel=0.2)


def test_consumers_that_only_the_database_knows_are_named_too(ledger: Ledger) -> None:
    ledger.execute("INSERT INTO kratos_sync.subscriptions VALUES ('identity.deleted', 'Renamed')")
    ledger.add(1, "Removed")
    ledger.add(1, "LeasedOnly", **LEASED)
    ledger.add(1, "DeadOnly", **DEAD)
    assert ledger.read(define.KNOWN) == {
        ("Greet",): 1,
        ("Mourn",): 1,
        ("DeadOnly",): 0,
        ("LeasedOnly",): 0,
        ("Removed",): 0,
        ("Renamed",): 0,
    }


def test_what_is_no_name_of_a_consumer_is_no_label(ledger: Ledger) -> None:
    ledger.add(1, "robin@example.org")
    ledger.add(1, f"for {uuid4()}")
    assert ledger.read(define.KNOWN) == {("Greet",): 1, ("Mourn",): 1}


def test_the_number_of_consumers_is_bounded(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_metrics, "MOST_CONSUMERS", 4)
    for number in range(6):
        ledger.add(1, f"Other{number}")
    assert list(ledger.read(define.KNOWN)) == [("Greet",), ("Mourn",), ("Other0",), ("Other1",)]


def test_a_paused_consumer_shows(ledger: Ledger) -> None:
    ledger.execute(
        "INSERT INTO kratos_sync.consumer_policies (consumer, paused_at, paused_by, pause_reason)"
        " VALUES ('Mourn', now(), 'ops', 'holidays')"
    )
    assert ledger.read(define.PAUSED) == {("Greet",): 0, ("Mourn",): 1}


def succeed(ledger: Ledger, consumer: str, ago: float, outcome: str = "succeeded") -> None:
    ledger.execute(
        "INSERT INTO kratos_sync.attempts"
        " (event_id, consumer, number, outcome, started_at, duration)"
        " VALUES (gen_random_uuid(), :consumer, 1, :outcome, now() - :ago, '0')",
        consumer=consumer,
        outcome=outcome,
        ago=timedelta(seconds=ago),
    )


def test_the_last_success_of_each_consumer_is_remembered(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    succeed(ledger, "Greet", 600)
    succeed(ledger, "Mourn", 60)
    first = ledger.read(define.LAST_SUCCESS)
    assert first["Mourn",] - first["Greet",] == pytest.approx(540, abs=5)
    succeed(ledger, "Greet", 0, "failed")
    succeed(ledger, "Mourn", 0)
    second = ledger.read(define.LAST_SUCCESS)
    assert second["Greet",] == first["Greet",]
    assert second["Mourn",] > first["Mourn",]


def people(ledger: Ledger, number: int, state: str | None, *, deleted: bool = False) -> None:
    ledger.execute(
        "INSERT INTO kratos_sync.kratos_identities (id, state, synced_at, version, deleted_at)"
        " SELECT gen_random_uuid(), :state, now(), 1, CASE WHEN :deleted THEN now() END"
        " FROM generate_series(1, :number)",
        number=number,
        state=state,
        deleted=deleted,
    )


@pytest.mark.parametrize("most", [10_000, 100])
def test_identities_count_by_state_and_many_of_them_are_estimated(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(ledger_metrics, "MOST_IDENTITIES", most)
    people(ledger, 600, "active")
    people(ledger, 300, "inactive")
    people(ledger, 100, None, deleted=True)
    ledger.execute("ANALYZE kratos_sync.kratos_identities")
    assert ledger.read(define.IDENTITIES) == {
        ("active",): pytest.approx(600, rel=0.05),
        ("inactive",): pytest.approx(300, rel=0.05),
        ("deleted",): pytest.approx(100, rel=0.05),
    }


def reconciled(ledger: Ledger, outcome: str | None, ago: float) -> None:
    ledger.execute(
        "INSERT INTO kratos_sync.reconciliations (started_at, ended_at, outcome, held, missing,"
        " stale, gone) VALUES (now() - :ago, CASE WHEN :ended THEN now() - :ago END, :outcome, 9,"
        " 3, 2, 1)",
        outcome=outcome,
        ended=outcome is not None,
        ago=timedelta(seconds=ago),
    )


def test_a_reconciliation_shows_when_it_ended_and_what_it_repaired(ledger: Ledger) -> None:
    reconciled(ledger, "completed", 7_200)
    reconciled(ledger, "completed", 3_600)
    reconciled(ledger, None, 60)
    assert ledger.read(define.REPAIRED) == {("missing",): 3, ("stale",): 2, ("deleted",): 1}
    assert ledger.read(define.REFUSED) == {(): 0}


def test_a_reconciliation_that_refused_shows_and_the_last_complete_one_stays(
    ledger: Ledger,
) -> None:
    reconciled(ledger, "completed", 3_600)
    before = ledger.read(define.RECONCILED)
    reconciled(ledger, "refused: another Kratos", 60)
    assert ledger.read(define.REFUSED) == {(): 1}
    assert ledger.read(define.RECONCILED) == pytest.approx(before)


def test_hooks_show_when_they_called_last_and_no_label_is_an_address(ledger: Ledger) -> None:
    for label in ("after login", "", "robin@example.org", str(uuid4())):
        ledger.execute(
            "INSERT INTO kratos_sync.hooks_heard VALUES (:label, now(), now(), 1)", label=label
        )
    assert set(ledger.read(define.HOOK_SEEN)) == {("after login",), ("unlabelled",), ("other",)}


def test_failures_of_kratos_template_are_counted_since_the_last_reconciliation(
    ledger: Ledger,
) -> None:
    def fail_template(ago: float) -> None:
        ledger.execute(
            "INSERT INTO kratos_sync.events (id, name, subject, occurred_at, recorded_at, payload,"
            " source) VALUES (gen_random_uuid(), 'kratos_webhook.template_failed', :nobody, now(),"
            " now() - :ago, '{}', 'webhook')",
            nobody=NO_IDENTITY,
            ago=timedelta(seconds=ago),
        )

    fail_template(7_200)
    fail_template(60)
    assert ledger.read(define.TEMPLATE_FAILURES) == {(): 2}
    reconciled(ledger, "completed", 3_600)
    assert ledger.read(define.TEMPLATE_FAILURES) == {(): 1}


def test_an_open_transaction_shows_its_age(ledger: Ledger, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("SELECT 1"))
        age = ledger.read(define.OLDEST_TRANSACTION)[()]
    assert age > 0


def test_the_size_of_every_table_is_there(ledger: Ledger) -> None:
    sizes = ledger.read(define.TABLE_SIZE)
    assert {("events",), ("deliveries",), ("attempts",), ("kratos_identities",)} <= sizes.keys()
    assert all(size > 0 for size in sizes.values())


def test_the_servers_clock_and_settings_are_there(ledger: Ledger) -> None:
    assert abs(ledger.read(define.CLOCK_AHEAD)[()]) < 5
    assert set(ledger.read(define.UNSAFE)) == {(risk,) for risk in define.RISKS}


def test_no_statement_reads_a_payload_or_an_error(ledger: Ledger, engine: Engine) -> None:
    """A role with the grants of the documentation could not either; see tests/deploy."""
    ledger.add()
    ledger.execute("ALTER TABLE kratos_sync.events RENAME payload TO hidden")
    ledger.execute("ALTER TABLE kratos_sync.deliveries RENAME last_error TO hidden")
    ledger.execute("ALTER TABLE kratos_sync.attempts RENAME error TO hidden")
    ledger.execute("ALTER TABLE kratos_sync.kratos_identities RENAME traits TO hidden")
    assert ledger.deliveries() == {"due": 1}
    with pytest.raises(ProgrammingError):
        ledger.execute("SELECT payload FROM kratos_sync.events")
