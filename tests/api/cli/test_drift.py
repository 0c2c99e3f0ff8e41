"""What `kratos-sync status` reports of comparisons with Kratos."""

import json
from datetime import timedelta

import pytest
from psycopg.types.json import Jsonb
from sqlalchemy import Engine, text

from kratos_sync.api.attention import drift_attention
from kratos_sync.api.cli.drift import drift_rows, print_drift
from kratos_sync.application import missed_webhooks
from kratos_sync.application.drift import Drift
from kratos_sync.application.ports.reconciliation import Findings, PastReconciliation
from tests.api.cli.invoking import kratos_sync
from tests.domain.people import NOON

HOUR = timedelta(hours=1)
ADD = text("""
    INSERT INTO kratos_sync.reconciliations
           (started_at, seen_at, ended_at, outcome, held, identities, missing, stale, gone, fields,
            unheard, unreadable)
    VALUES (now() - :ago, now() - :ago, CASE WHEN :outcome <> '' THEN now() - :ago END,
            nullif(:outcome, ''), 1204, 1206, 2, :stale, 1, :fields, :unheard, 0)
""")
REFUSED = "refused: 4,000 of 10,000 are not listed, and at most 100 may go"


def past(
    hours_ago: float = 2,
    *,
    outcome: str | None = "completed",
    identities: int = 1_204,
    missing: int = 0,
    stale: int = 0,
    gone: int = 0,
    unreadable: int = 0,
    fields: dict[str, int] | None = None,
    missed: dict[str, int] | None = None,
) -> PastReconciliation:
    began = NOON - hours_ago * HOUR
    found = Findings(
        held=1_300,
        identities=identities,
        missing=missing,
        stale=stale,
        deleted=gone,
        fields=fields or {},
        missed_webhooks=missed or {},
        unreadable=unreadable,
    )
    return PastReconciliation(began, began, began if outcome else None, outcome, found)


def needs(*reconciliations: PastReconciliation, running: bool = False, can_ask: bool = True) -> str:
    needed = drift_attention(Drift(reconciliations, running), NOON, can_ask=can_ask)
    return "\n".join(each.with_command for each in needed)


def rows(*reconciliations: PastReconciliation, running: bool = False) -> dict[str, str]:
    return dict(drift_rows(Drift(reconciliations, running), NOON, can_ask=True))


def test_a_comparison_of_today_that_found_little_needs_nothing() -> None:
    assert needs(past(missing=2, stale=3)) == ""


def test_a_missing_reconciliation_needs_attention_where_kratos_is_configured() -> None:
    assert needs().startswith(
        "No reconciliation with Kratos was ever run. Run `kratos-sync reconcile`"
    )
    assert needs(can_ask=False) == ""
    assert needs(running=True) == ""


def test_no_comparison_for_more_than_a_day_needs_attention() -> None:
    assert needs(past(24)) == ""
    assert "was completed for 1 d 1 h. Run `kratos-sync reconcile`" in needs(past(25))
    assert needs(past(25), can_ask=False) == ""


def test_one_that_was_refused_is_no_comparison() -> None:
    assert "No reconciliation with Kratos was ever completed" in needs(past(outcome=REFUSED))
    assert "for 2 d 2 h" in needs(past(1, outcome=REFUSED), past(50))


def test_one_that_was_interrupted_needs_attention_unless_it_runs() -> None:
    before = past(5)
    assert "began 2 h ago was interrupted" in needs(past(outcome=None), before)
    assert needs(past(outcome=None), before, running=True) == ""


def test_a_refusal_gives_its_reason_and_remedy() -> None:
    said = needs(past(outcome=REFUSED), past(5))
    assert "2 h ago deleted no identity: 4,000 of 10,000 are not listed" in said
    assert "--allow-deletes N" in said
    another = needs(past(outcome="refused: another Kratos"), past(5))
    assert "deleted no identity: another Kratos. Is KRATOS_ADMIN_URL right?" in another
    for reason in ("Kratos lists no identity", "Kratos lists no identity that is held here"):
        said = needs(past(outcome=f"refused: {reason}"), past(5))
        assert f"deleted no identity: {reason}. Is KRATOS_ADMIN_URL right?" in said
    assert needs(past(1), past(outcome=REFUSED)) == ""


def test_a_rise_names_the_hooks_that_are_missed() -> None:
    quiet = [past(hour) for hour in range(3, 9)]
    said = needs(past(missed={"verification": 30, "settings": 2, "admin": 500}), *quiet)
    assert "2 h ago repaired 32 missed webhooks (settings 2, verification 30)" in said
    assert "0 were expected in 1 h" in said


def test_identities_that_cannot_be_read_need_attention() -> None:
    assert "1 identity of Kratos' cannot be read" in needs(past(unreadable=1))


def test_the_last_reconciliation_is_summarized_in_a_line() -> None:
    assert rows(past()) == {"Reconciled": "2 h ago: 1,204 compared, all the same"}
    found = past(missing=2, stale=3, gone=1, unreadable=1, outcome=REFUSED)
    line = "2 h ago, refused: 1,204 compared, 2 missing, 3 stale, 1 deleted, 1 unreadable"
    assert rows(found) == {"Reconciled": line}
    assert rows() == {"Reconciled": "never"}


def test_a_running_or_interrupted_reconciliation_is_shown_beside_the_last() -> None:
    running, last = past(1, outcome=None, identities=7, stale=1), past()
    assert rows(running, last, running=True)["Reconciling"] == "for 1 h: 7 compared, 1 stale"
    interrupted = rows(running)
    assert interrupted["Reconciling"] == "interrupted, began 1 h ago: 7 compared, 1 stale"
    assert interrupted["Reconciled"] == "never"


def test_every_kind_of_difference_is_described(capsys: pytest.CaptureFixture[str]) -> None:
    kinds = [
        value
        for name, value in vars(missed_webhooks).items()
        if name.isupper() and isinstance(value, str)
    ]
    assert len(kinds) == 11
    missed = {kind: number for number, kind in enumerate(kinds, 101)}
    print_drift(Drift([past(stale=1, gone=7, missed=missed)]), NOON, can_ask=True)
    output = capsys.readouterr().out
    for number in (*missed.values(), 7):
        assert f"\n  {number:>9}  " in output
    assert "no webhook of a verification, recovery or code login was received" in output


def test_the_table_fits_80_columns_and_its_bars_are_as_long_as_what_is_missed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    reconciliations = [
        past(1, outcome=None, identities=999_999_999),
        past(2, stale=1_000, missed={"settings": 1_000}, identities=999_999_999),
        past(3, missed={"settings": 500}),
        past(4, missed={"settings": 1}),
        past(5, outcome=REFUSED),
    ]
    print_drift(Drift(reconciliations), NOON, can_ask=True)
    lines = capsys.readouterr().out.splitlines()
    table = [line.rstrip() for line in lines if line.startswith(("BEGAN", "2026-"))]
    assert all(len(line) <= 80 for line in table)
    assert [line.count("█") for line in table] == [0, 0, 12, 6, 0, 0]
    assert table[4].endswith("▏")
    assert (table[1].endswith("interrupted"), table[5].endswith("refused")) == (True, True)


def test_before_the_first_there_is_no_table(capsys: pytest.CaptureFixture[str]) -> None:
    print_drift(Drift(), NOON, can_ask=False)
    assert capsys.readouterr().out == "Reconciled never: KRATOS_ADMIN_URL is not set\n"


def add(engine: Engine, hours_ago: float, outcome: str = "completed", stale: int = 0) -> None:
    parameters = {"fields": Jsonb({"traits": stale}), "unheard": Jsonb({"settings": stale})}
    with engine.begin() as connection:
        connection.execute(
            ADD, {"ago": hours_ago * HOUR, "outcome": outcome, "stale": stale, **parameters}
        )


def test_the_json_has_the_newest_comparisons(
    engine: Engine, database_url: str, broker_url: str
) -> None:
    for hours_ago in (6, 5, 4, 3, 2):
        add(engine, hours_ago)
    add(engine, 1, stale=40)
    add(engine, 0.5, outcome="")
    result = kratos_sync("status", "--json", DATABASE_URL=database_url, BROKER_URL=broker_url)
    drift = json.loads(result.stdout)["drift"]
    assert (drift["running"], drift["rise"]["missed"], drift["rise"]["usual"]) == (False, 40, 0)
    interrupted, newest, *others = drift["reconciliations"]
    assert (interrupted["ended_at"], interrupted["outcome"], len(others)) == (None, None, 5)
    for name in ("started_at", "seen_at", "ended_at"):
        assert newest.pop(name).endswith("Z")
    assert newest == {
        "outcome": "completed",
        "held": 1_204,
        "pages": 0,
        "identities": 1_206,
        "known": 0,
        "missing": 2,
        "stale": 40,
        "unseen": 0,
        "gone": 1,
        "fields": {"traits": 40},
        "unheard": {"settings": 40},
        "unreadable": 0,
        "missed": 40,
    }


@pytest.mark.parametrize(("url", "said"), [("http://127.0.0.1:1", True), (None, False)])
def test_whether_kratos_can_be_asked_is_known_from_the_settings(
    database_url: str, broker_url: str, url: str | None, said: bool
) -> None:
    for options in ([], ["--drift"]):
        result = kratos_sync(
            "status",
            *options,
            DATABASE_URL=database_url,
            BROKER_URL=broker_url,
            KRATOS_ADMIN_URL=url,
        )
        assert result.exit_code == 0
        assert ("KRATOS_ADMIN_URL is not set" in result.stdout) is not said
    assert "CONSUMER" not in result.stdout


def test_drift_alone_shows_no_consumers(engine: Engine, database_url: str, broker_url: str) -> None:
    add(engine, 2, stale=3)
    result = kratos_sync("status", "--drift", DATABASE_URL=database_url, BROKER_URL=broker_url)
    assert "6 identities repaired 2 h ago:" in result.stdout
    assert "CONSUMER" not in result.stdout
