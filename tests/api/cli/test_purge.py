import json
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import click
import pytest
from sqlalchemy import Engine

from kratos_sync.api.cli.options import FOREVER
from kratos_sync.api.cli.options import age as read_age
from kratos_sync.infrastructure.ledger.purge import begin
from tests.api.cli.invoking import kratos_sync
from tests.infrastructure.ledger.rows import add_delivery, add_event, log_attempt
from tests.infrastructure.ledger.test_purge import ids

pytestmark = pytest.mark.usefixtures("settings")

DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def _signals_kept() -> Iterator[None]:
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def test_it_removes_by_the_settings_and_reports_the_numbers(engine: Engine) -> None:
    for age in (100 * DAY, 80 * DAY, 20 * DAY):
        log_attempt(engine, "Greet", add_event(engine, age=age), age=age)

    result = kratos_sync("purge")

    assert result.exit_code == 0
    assert result.stdout.startswith(
        "Removed: 1 event older than 90 d; 2 attempts older than 30 d. It took "
    )
    assert (len(ids(engine, "events")), len(ids(engine, "attempts"))) == (2, 1)


def test_options_win_over_the_settings(engine: Engine) -> None:
    log_attempt(engine, "Greet", add_event(engine, age=3 * DAY), age=40 * DAY)

    options = ("--events-older-than", "2d", "--attempts-older-than", "forever")
    result = kratos_sync("purge", *options)

    assert "Removed: 1 event older than 2 d; no attempts, kept for ever." in result.stdout
    assert len(ids(engine, "attempts")) == 1


def test_the_settings_may_say_forever(engine: Engine) -> None:
    add_event(engine, age=5_000 * DAY)
    result = kratos_sync("purge", "--json", EVENTS_RETENTION_DAYS="forever")
    assert json.loads(result.stdout)["events"] == {"removed": 0, "older_than_seconds": None}
    assert len(ids(engine, "events")) == 1


def test_a_dry_run_counts_what_would_be_removed(engine: Engine) -> None:
    add_event(engine, age=100 * DAY)
    add_delivery(engine, "Greet", age=100 * DAY, failed_ago=DAY)

    result = kratos_sync("purge", "--dry-run")

    assert result.stdout.startswith("Would remove: 1 event older than 90 d; 0 attempts")
    assert len(ids(engine, "events")) == 2


def test_the_json_has_the_documented_keys(engine: Engine) -> None:
    add_event(engine, age=100 * DAY)
    result = kratos_sync("purge", "--json")
    document = json.loads(result.stdout)
    assert 0 <= document.pop("seconds") < 60
    assert document == {
        "dry_run": False,
        "completed": True,
        "events": {"removed": 1, "older_than_seconds": 7_776_000.0},
        "attempts": {"removed": 0, "older_than_seconds": 2_592_000.0},
    }


def test_it_fails_while_another_purge_is_running(engine: Engine) -> None:
    with engine.begin() as connection:
        begin(connection)
    result = kratos_sync("purge")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: Not done: another purge is at work.\n"
    assert kratos_sync("purge", "--dry-run").exit_code == 0


@pytest.mark.parametrize(
    ("given", "age"),
    [
        ("24h", DAY),
        ("1d", DAY),
        (" 90 d", 90 * DAY),
        ("12w", 84 * DAY),
        ("forever", FOREVER),
    ],
)
def test_an_age_is_read(given: str, age: timedelta) -> None:
    assert read_age(given) == age


@pytest.mark.parametrize("given", ["23h", "0d", "90", "-1d", "1.5d", "ever", "", "1m", "999999d"])
def test_no_age_is_wrong_use(given: str) -> None:
    with pytest.raises(click.UsageError):
        read_age(given)
    assert kratos_sync("purge", f"--events-older-than={given}").exit_code == 2


@pytest.mark.parametrize("options", [(), ("--dry-run",)], ids=["purge", "dry run"])
def test_it_fails_without_removing_anything_if_the_clocks_differ(
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
) -> None:
    old = add_event(engine, age=100 * DAY)
    monkeypatch.setattr(
        "kratos_sync.infrastructure.postgres.engine.time_of_day",
        lambda: datetime.now(UTC) - 366 * DAY,
    )

    result = kratos_sync("purge", *options)

    assert result.exit_code == 1
    assert "Not done: the database's clock is" in result.stderr
    assert "ahead of this machine's" in result.stderr
    assert ids(engine, "events") == {old}
