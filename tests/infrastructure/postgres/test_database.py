"""The connection to PostgreSQL, and its errors in the application's words."""

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from kratos_sync.application.ports.event_bus import LedgerUnavailable
from kratos_sync.application.ports.unit_of_work import ConcurrencyConflict
from kratos_sync.infrastructure.postgres.engine import connect, translate_errors


def ask(engine: Engine, statement: str, **parameters: object) -> object:
    with translate_errors(), engine.begin() as connection:
        return connection.execute(text(statement), parameters).scalar()


def raising(sqlstate: str) -> str:
    return f"DO $$ BEGIN RAISE EXCEPTION 'as asked' USING ERRCODE = '{sqlstate}'; END $$"


@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
def test_both_names_of_the_scheme_connect(database_url: str, scheme: str) -> None:
    engine = connect(SecretStr(database_url.replace("postgresql", scheme, 1)), pool_size=1)

    assert ask(engine, "SELECT 1") == 1
    engine.dispose()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("statement_timeout", "30s"),
        ("lock_timeout", "10s"),
        ("idle_in_transaction_session_timeout", "1min"),
        ("timezone", "UTC"),
        ("application_name", "kratos-sync"),
    ],
)
def test_every_wait_on_a_connection_is_bounded(engine: Engine, setting: str, value: str) -> None:
    assert ask(engine, f"SHOW {setting}") == value


def test_a_statement_sees_what_was_committed_while_it_waited_whatever_the_databases_default(
    engine: Engine,
) -> None:
    name = ask(engine, "SELECT current_database()")
    default = f"ALTER DATABASE {name} SET default_transaction_isolation = 'repeatable read'"
    with engine.begin() as connection:
        connection.execute(text(default))
    engine.dispose()

    assert ask(engine, "SHOW transaction_isolation") == "read committed"


def test_a_connection_that_died_is_noticed_before_it_is_used(engine: Engine) -> None:
    pid = ask(engine, "SELECT pg_backend_pid()")
    killer = connect(SecretStr(engine.url.render_as_string(hide_password=False)), pool_size=1)
    ask(killer, "SELECT pg_terminate_backend(:pid, 5000)", pid=pid)
    killer.dispose()

    assert ask(engine, "SELECT pg_backend_pid()") != pid


@pytest.mark.parametrize("sqlstate", ["08006", "57P01", "57P03", "53300", "53100"])
def test_a_server_that_cannot_serve_is_an_unavailable_ledger(engine: Engine, sqlstate: str) -> None:
    with pytest.raises(LedgerUnavailable):
        ask(engine, raising(sqlstate))


@pytest.mark.parametrize("sqlstate", ["40001", "40P01", "55P03"])
def test_a_race_that_was_lost_is_a_conflict(engine: Engine, sqlstate: str) -> None:
    with pytest.raises(ConcurrencyConflict, match=f"SQLSTATE {sqlstate}"):
        ask(engine, raising(sqlstate))


@pytest.mark.parametrize(
    "sqlstate", ["22P02", "23502", "42P01", "53400", "57014", "P0001", "XX000"]
)
def test_every_other_error_comes_as_it_is(engine: Engine, sqlstate: str) -> None:
    with pytest.raises(DBAPIError, match="as asked"):
        ask(engine, raising(sqlstate))


@pytest.mark.parametrize("value", ["a NUL \x00 in it", object()], ids=["NUL", "object"])
def test_a_value_that_cannot_be_sent_is_not_an_unavailable_ledger(
    engine: Engine, value: object
) -> None:
    with pytest.raises(DBAPIError):
        ask(engine, "SELECT CAST(:value AS text)", value=value)


def test_a_server_that_is_not_there_is_an_unavailable_ledger() -> None:
    nowhere = connect(SecretStr("postgresql://ada@/nowhere?host=/nonexistent"), pool_size=1)

    with pytest.raises(LedgerUnavailable, match="PostgreSQL cannot be used: nothing listens there"):
        ask(nowhere, "SELECT 1")


def test_a_database_that_is_not_there_is_an_unavailable_ledger(database_url: str) -> None:
    nowhere = connect(SecretStr(database_url.replace("test_", "lost_")), pool_size=1)

    with pytest.raises(LedgerUnavailable):
        ask(nowhere, "SELECT 1")


def test_an_exhausted_pool_is_an_unavailable_ledger(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kratos_sync.infrastructure.postgres.engine.POOL_TIMEOUT_SECONDS", 0.01)
    engine = connect(SecretStr(database_url), pool_size=1)

    with engine.connect(), pytest.raises(LedgerUnavailable, match="no connection"):
        ask(engine, "SELECT 1")
    engine.dispose()


def test_an_error_does_not_quote_the_parameters(engine: Engine) -> None:
    with pytest.raises(DBAPIError) as error:
        ask(engine, "SELECT 1 / :zero + length(:secret)", zero=0, secret="ada@example.org")

    assert "ada@example.org" not in str(error.value)


def test_what_is_no_error_of_the_database_passes_through() -> None:
    with pytest.raises(KeyError), translate_errors():
        raise KeyError("shoes")
