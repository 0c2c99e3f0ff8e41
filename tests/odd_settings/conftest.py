"""A database and a role full of odd settings, straight or behind a pooler."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final, NamedTuple
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr
from sqlalchemy import Engine, make_url

from kratos_sync.infrastructure.migrations import migrate
from kratos_sync.infrastructure.postgres.connections import connection_arguments, open_connection
from kratos_sync.infrastructure.postgres.engine import connect
from tests.databases import empty_tables
from tests.odd_settings.pooler import DroppingPooler
from tests.suites.ledgers import PostgresLedger

OF_VALUES: Final = {
    "timezone": "America/St_Johns",
    "search_path": "odd, pg_catalog",
    "datestyle": "German, DMY",
    "intervalstyle": "iso_8601",
    "array_nulls": "off",
    "client_encoding": "LATIN1",
    "bytea_output": "escape",
    "extra_float_digits": "0",
    "standard_conforming_strings": "off",
    "escape_string_warning": "off",
    "transform_null_equals": "on",
    "exit_on_error": "on",
    "lc_messages": "C",
    "quote_all_identifiers": "on",
    "plpgsql.extra_errors": "all",
    "synchronous_commit": "off",
}
OF_SESSIONS: Final = {
    "default_transaction_isolation": "serializable",
    "default_transaction_read_only": "on",
    "default_transaction_deferrable": "on",
    "statement_timeout": "20ms",
    "lock_timeout": "1ms",
    "idle_in_transaction_session_timeout": "100ms",
    "idle_session_timeout": "1ms",
    # It ends a session before a statement can set another time, if the machine is that slow.
    "transaction_timeout": "10s",
}
# What a pooler drops and a transaction of ours cannot set any more fails, and loses nothing.
IN_TRANSACTIONS: Final = ("default_transaction_isolation", "default_transaction_deferrable")
SETTINGS: Final = {
    "straight": {**OF_VALUES, **OF_SESSIONS},
    "pooler": {**OF_VALUES, **{name: OF_SESSIONS[name] for name in IN_TRANSACTIONS}},
}


class OddDatabase(NamedTuple):
    """Its URL for the service, past the pooler if there is one, and for a superuser."""

    url: str
    direct_url: str
    admin_url: str


@pytest.fixture(scope="module", params=list(SETTINGS))
def odd_database(request: pytest.FixtureRequest, postgres_url: str) -> Iterator[OddDatabase]:
    """A migrated database."""
    name = f"odd_{uuid4().hex[:8]}"
    administrators = make_url(postgres_url).set(database=name)
    with psycopg.connect(postgres_url, autocommit=True) as administrator, ExitStack() as undo:
        administrator.execute(f"CREATE ROLE {name} LOGIN".encode())
        administrator.execute(f"CREATE DATABASE {name} OWNER {name}".encode())
        undo.callback(administrator.execute, f"DROP ROLE {name}".encode())
        undo.callback(administrator.execute, f"DROP DATABASE {name} WITH (FORCE)".encode())
        url = administrators.set(username=name)
        if request.param == "pooler":
            socket = f"{url.query['host']}/.s.PGSQL.{url.query['port']}"
            pooler = undo.enter_context(DroppingPooler(socket))
            query = {"sslmode": "disable", "gssencmode": "disable"}
            url = url.set(host="127.0.0.1", port=pooler.port, query=query)
        admin_url = administrators.render_as_string(hide_password=False)
        with psycopg.connect(admin_url, autocommit=True) as within:
            within.execute(f"CREATE SCHEMA odd AUTHORIZATION {name}".encode())
            for table in ("events", "deliveries", "attempts", "kratos_identities"):
                within.execute(f"CREATE TABLE odd.{table} (odd int)".encode())
            within.execute(f"CREATE SCHEMA kratos_sync AUTHORIZATION {name}".encode())
            within.execute("CREATE TABLE kratos_sync.somebody_elses (odd int)")
        known = {name for (name,) in administrator.execute("SELECT name FROM pg_settings")}
        for setting, value in SETTINGS[request.param].items():
            if setting not in known and "." not in setting:  # of a newer PostgreSQL
                continue
            values = sql.SQL(value) if setting == "search_path" else sql.Literal(value)
            for kind in ("DATABASE", "ROLE"):
                statement = sql.SQL("ALTER {} {} SET {} = {}").format(
                    sql.SQL(kind), sql.Identifier(name), sql.SQL(setting), values
                )
                administrator.execute(statement)
        direct_url = administrators.set(username=name).render_as_string(hide_password=False)
        engine = connect(SecretStr(direct_url), pool_size=2)
        migrate(engine)
        engine.dispose()
        yield OddDatabase(url.render_as_string(hide_password=False), direct_url, admin_url)


@pytest.fixture
def database_url(odd_database: OddDatabase) -> str:
    """The odd database, with empty tables."""
    url, _, admin_url = odd_database
    arguments = connection_arguments(SecretStr(admin_url))
    with open_connection(arguments, autocommit=True) as within:
        empty_tables(within)
    return url


@pytest.fixture
def ledger(engine: Engine) -> PostgresLedger:
    """The real one."""
    return PostgresLedger(engine)
