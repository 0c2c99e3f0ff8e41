"""Connections to PostgreSQL: where they lead, what their sessions are, and why there is none."""

import asyncio
import os
import re
import resource
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from pydantic import SecretStr

from kratos_sync.infrastructure.embedded import EmbeddedPostgres
from kratos_sync.infrastructure.postgres import connections
from kratos_sync.infrastructure.postgres.binary_arrays import uuid_array
from kratos_sync.infrastructure.postgres.connection_failures import ConnectFailed
from kratos_sync.infrastructure.postgres.connections import (
    connection_arguments,
    open_connection,
    open_loop_connection,
    parse_database_url,
)
from tests.waiting import DEADLINE_SECONDS, until

PASSWORD = "sesame-42"


def failing(url: str) -> ConnectFailed:
    """Why no connection can be made, the same from a thread and from an event loop."""
    arguments = connection_arguments(SecretStr(url))
    with pytest.raises(ConnectFailed) as failed:
        open_connection(arguments)
    with pytest.raises(ConnectFailed) as in_a_loop:
        asyncio.run(open_loop_connection(arguments))
    assert str(in_a_loop.value) == str(failed.value)
    return failed.value


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://u:p%40@h1:1,h2:2/db", {"host": "h1,h2", "port": "1,2", "password": "p@"}),
        ("postgres://u@h1,h2/db", {"host": "h1,h2"}),
        ("postgresql://u@[::1]:1,[::2]:2/db", {"host": "::1,::2", "port": "1,2"}),
        ("postgresql://u@/db?host=h1:1&host=h2:2", {"host": "h1,h2", "port": "1,2"}),
        ("postgresql://u@/db?host=h1,h2&port=1,2", {"host": "h1,h2", "port": "1,2"}),
        ("postgresql://u@/db?host=/run/a&port=5433", {"host": "/run/a", "port": "5433"}),
        ("postgresql://u@h/db?target_session_attrs=any", {"target_session_attrs": "any"}),
    ],
)
def test_several_hosts_are_read_in_either_form(url: str, expected: dict[str, str]) -> None:
    address = parse_database_url(url)

    assert {key: address.get(key) for key in expected} == expected
    assert address["user"] == "u" or url.startswith("postgres:")
    assert address["dbname"] == "db"


@pytest.mark.parametrize(
    "url", ["postgresql://u@h:port/db", "postgresql://u:p@ss@h/x", "postgresql://[::1/x"]
)
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        parse_database_url(url)


def test_a_server_that_is_too_old_is_refused_in_one_sentence(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "LEAST_VERSION", 99_00_00)

    failed = failing(database_url)

    assert failed.is_refusal
    assert re.fullmatch(
        r"PostgreSQL cannot be used: its version is \d+\.\d+.*, and 99 is the oldest that will do",
        str(failed),
    )


def test_options_of_the_url_are_kept_and_ours_prevail(database_url: str) -> None:
    url = f"{database_url}&options=-c%20search_path%3Dmine%20-c%20timezone%3DAsia/Tokyo"

    with open_connection(connection_arguments(SecretStr(url))) as connection:
        shown = [
            connection.execute(f"SHOW {each}").fetchone() for each in ("search_path", "timezone")
        ]

    assert shown == [("mine",), ("UTC",)]


def test_the_environment_of_libpq_changes_no_session(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGDATESTYLE", "German, DMY")
    monkeypatch.setenv("PGTZ", "Asia/Tokyo")
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    monkeypatch.setenv("PGOPTIONS", "-c array_nulls=off")

    with open_connection(connection_arguments(SecretStr(database_url))) as connection:
        names = ("datestyle", "timezone", "client_encoding", "array_nulls")
        shown = [connection.execute(f"SHOW {name}").fetchone() for name in names]

    assert shown == [("ISO, MDY",), ("UTC",), ("UTF8",), ("on",)]


def test_a_statement_ends_soon_after_its_process_was_killed(database_url: str) -> None:
    arguments = connection_arguments(SecretStr(database_url), timedelta(hours=1))
    connection = open_connection(arguments, autocommit=True)
    server_process = connection.info.backend_pid
    connection.pgconn.send_query(b"SELECT pg_sleep(3600)")
    with psycopg.connect(database_url, autocommit=True) as other:

        def is_sleeping() -> bool:
            asked = "SELECT FROM pg_stat_activity WHERE pid = %s AND wait_event = 'PgSleep'"
            return other.execute(asked, [server_process]).rowcount == 1

        until(is_sleeping)
        # As the kernel does for a process that was killed: nothing is sent, the socket ends.
        with socket.socket(fileno=os.dup(connection.fileno())) as its_socket:
            its_socket.shutdown(socket.SHUT_RDWR)
        until(lambda: not is_sleeping())
    connection.close()


def test_arrays_are_taken_whatever_was_imported(database_url: str) -> None:
    """In a process that imports nothing but what it connects with, and then the arrays."""
    script = f"""
from pydantic import SecretStr
from kratos_sync.infrastructure.postgres.connections import connection_arguments, open_connection
connection = open_connection(connection_arguments(SecretStr({database_url!r})))
from uuid import UUID
from kratos_sync.infrastructure.postgres.binary_arrays import uuid_array
import psycopg
(found,) = connection.execute("SELECT %s::uuid[]", [uuid_array([UUID(int=7)])]).fetchone()
assert found == [UUID(int=7)]
assert "BinaryParameter" not in repr(psycopg.adapters._dumpers)
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, check=False, timeout=DEADLINE_SECONDS)

    assert (done.returncode, done.stderr) == (0, b"")


def test_only_our_connections_take_arrays(database_url: str) -> None:
    with psycopg.connect(database_url) as other:
        (found,) = (
            other.execute("SELECT pg_typeof(%s)::text", [uuid_array([uuid4()])]).fetchone() or ()
        )

    assert found == "bytea"


@pytest.fixture(scope="module")
def strict_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that lets in its superuser, and `ada` with a password; its URL."""
    folder = tmp_path_factory.mktemp("strict")
    rules = folder / "pg_hba.conf"
    rules.write_text(
        "local all postgres trust\nlocal all ada scram-sha-256\nlocal all away,full trust\n"
    )
    if os.geteuid() == 0:
        folder.chmod(0o755)
    with EmbeddedPostgres(folder / "postgres", {"hba_file": str(rules)}) as server:
        with psycopg.connect(server.url, autocommit=True) as administrator:
            administrator.execute(f"CREATE ROLE ada LOGIN PASSWORD '{PASSWORD}'".encode())
            administrator.execute("CREATE DATABASE closed")
            administrator.execute("REVOKE CONNECT ON DATABASE closed FROM PUBLIC")
            administrator.execute("CREATE ROLE away")
            administrator.execute('CREATE ROLE "full" LOGIN CONNECTION LIMIT 0')
        yield server.url


@pytest.mark.parametrize(
    ("user", "database", "sqlstate", "reason"),
    [
        ("ada:wrong", "postgres", "28P01", "refused the user or the password"),
        ("ada", "postgres", None, "wants a password"),
        ("eve", "postgres", "28000", "does not let this user in"),
        ("away", "postgres", "28000", "does not let this user in"),
        ("postgres", "atlantis", "3D000", "no such database"),
        (f"ada:{PASSWORD}", "closed", "42501", "may not connect to the database"),
    ],
)
def test_a_refusal_says_why_and_quotes_nothing(  # noqa: PLR0917
    strict_postgres: str,
    user: str,
    database: str,
    sqlstate: str | None,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("PGPASSWORD", raising=False)
    url = strict_postgres.replace("postgres@/postgres", f"{user}@/{database}")

    failed = failing(url)

    assert (failed.sqlstate, failed.is_refusal) == (sqlstate, True)
    assert reason in str(failed)
    for secret in ("ada", "wrong", "eve", "atlantis", "closed", PASSWORD):
        assert secret not in str(failed)


def test_a_server_that_is_full_may_have_room_later(strict_postgres: str) -> None:
    failed = failing(strict_postgres.replace("postgres@", "full@"))

    assert (failed.sqlstate, failed.is_refusal) == ("53300", False)


@contextmanager
def answering(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """Something on loopback that answers each start-up packet; its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    client, _ = listening.accept()
                except OSError:
                    return
                with client:
                    client.recv(65_536)
                    answer(client)

        threading.Thread(target=serve, daemon=True).start()
        port = listening.getsockname()[1]
        yield f"postgresql://ada:{PASSWORD}@127.0.0.1:{port}/db?sslmode=disable&gssencmode=disable"
        listening.shutdown(socket.SHUT_RDWR)


def refusing(sqlstate: str, severity: str, text: str) -> Callable[[socket.socket], None]:
    def answer(client: socket.socket) -> None:
        fields = [f"S{severity}", "VFATAL", f"C{sqlstate}", f"M{text}", ""]
        body = b"".join(field.encode() + b"\0" for field in fields)
        client.sendall(b"E" + struct.pack("!i", len(body) + 4) + body)

    return answer


@pytest.mark.parametrize(
    ("sqlstate", "text", "is_refusal"),
    [
        ("28P01", "Passwort-Authentifizierung für Benutzer »ada« fehlgeschlagen", True),
        ("28000", "kein pg_hba.conf-Eintrag für Host »10.0.0.7«, Benutzer »ada«", True),
        ("3D000", 'Datenbank "db" existiert nicht C "00000"', True),
        ("57P03", "das Datenbanksystem startet", False),
        ("XX000", "データベースシステムの内部エラー", False),
    ],
)
def test_a_server_in_another_language_is_understood(
    sqlstate: str, text: str, is_refusal: bool
) -> None:
    with answering(refusing(sqlstate, "FATAL" if is_refusal else "SCHWERWIEGEND", text)) as url:
        failed = failing(url)

    assert (failed.sqlstate, failed.is_refusal) == (sqlstate, is_refusal)
    assert text not in str(failed)


def test_what_is_no_postgresql_is_no_refusal() -> None:
    with answering(lambda client: client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as url:
        failed = failing(url)

    assert (failed.sqlstate, failed.is_refusal) == (None, False)
    assert "begins no session" in str(failed)


def test_of_several_hosts_the_one_that_answered_gives_the_reason() -> None:
    with answering(refusing("28P01", "FATAL", "nein")) as url:
        failed = failing(url.replace("@127", "@127.0.0.1:9,127").replace("/db", ",127.0.0.1:9/db"))

    assert failed.sqlstate == "28P01"


def test_a_server_that_is_no_primary_is_said_to_be_none(strict_postgres: str) -> None:
    failed = failing(f"{strict_postgres}&target_session_attrs=standby")

    assert "target_session_attrs" in str(failed)


def test_a_host_without_an_address_is_said_to_have_none() -> None:
    assert "no such host" in str(failing("postgresql://ada@nowhere.invalid/db"))


@pytest.mark.parametrize("encoding", ["EUC_JP", "SQL_ASCII", "LATIN1"])
def test_a_database_in_another_encoding_is_refused(postgres_url: str, encoding: str) -> None:
    name = f"test_{uuid4().hex}"
    with psycopg.connect(postgres_url, autocommit=True) as administrator:
        administrator.execute(
            f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}'"
            " LOCALE_PROVIDER libc LOCALE 'C'".encode()
        )
        try:
            failed = failing(postgres_url.replace("/postgres?", f"/{name}?"))
        finally:
            administrator.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())

    assert failed.is_refusal
    assert str(failed) == (
        f"PostgreSQL cannot be used: the database's encoding is {encoding}, and has to be UTF8"
    )


def test_a_process_with_many_open_files_gets_the_reason_too(strict_postgres: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4_096, hard), hard))
    try:
        with ExitStack() as undo:
            for _ in range(1_100):
                undo.enter_context(Path(os.devnull).open())
            arguments = connection_arguments(
                SecretStr(strict_postgres.replace("/postgres?", "/many?"))
            )
            with pytest.raises(ConnectFailed) as failed:
                open_connection(arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert failed.value.sqlstate == "3D000"


def test_the_trace_of_a_refused_password_is_left_nowhere(strict_postgres: str) -> None:
    before = set(Path("/proc/self/fd").iterdir())
    failing(strict_postgres.replace("postgres@", "ada:once-more@"))

    assert len(set(Path("/proc/self/fd").iterdir())) <= len(before)
