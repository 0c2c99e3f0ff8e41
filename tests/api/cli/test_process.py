"""What every long-running process does first: a container, once its database is there."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import make_url
from structlog.testing import capture_logs
from structlog.typing import EventDict

from kratos_sync.api.cli import process
from kratos_sync.api.cli.process import opened_container, wait_for_database
from kratos_sync.infrastructure.container import Container
from kratos_sync.infrastructure.embedded import EmbeddedPostgres
from kratos_sync.infrastructure.migrations import SchemaTooOld, migrate
from kratos_sync.infrastructure.postgres.engine import connect
from tests.waiting import DEADLINE_SECONDS, until

PASSWORD = "sesame-42"


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Settings come from the environment alone, and a database is looked for often."""
    monkeypatch.setattr(process, "POLL_SECONDS", 0.05)
    # The tests listen to the log as it is.
    monkeypatch.setattr(process, "configure_logging", lambda *_: None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BROKER_URL", "redis://127.0.0.1:9/0")
    monkeypatch.setenv("LOG_LEVEL", "INFO")


def use(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("DATABASE_URL", url)


class Opening:
    """A thread that opens a container, and what came of it."""

    def __init__(self) -> None:
        self.stopped = threading.Event()
        self.opened = threading.Event()
        self.refused: click.ClickException | None = None
        self._thread = threading.Thread(target=self._open, daemon=True)
        self._thread.start()

    def _open(self) -> None:
        try:
            with opened_container(stopped=self.stopped):
                self.opened.set()
        except click.ClickException as error:
            self.refused = error

    def is_over(self) -> bool:
        return not self._thread.is_alive()


@contextmanager
def opening() -> Iterator[Opening]:
    opening = Opening()
    try:
        yield opening
    finally:
        opening.stopped.set()
        until(opening.is_over)


def logged_reasons(logged: list[EventDict]) -> list[str]:
    return [line["reason"] for line in logged if line["event"] == "ledger_unavailable"]


def test_a_container_is_opened_on_a_migrated_database(
    monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    use(monkeypatch, database_url)

    with opened_container() as container:
        assert isinstance(container, type(Container()))
        with container.engine().connect() as connection:
            assert connection.exec_driver_sql("SELECT 1").scalar_one() == 1


def test_an_unavailable_postgresql_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server = EmbeddedPostgres(tmp_path / "postgres")
    with server:
        use(monkeypatch, server.url)
        with opened_container(migrated=False) as container:
            migrate(container.engine())

    with capture_logs() as logged, opening() as waiting:
        until(lambda: logged_reasons(logged))
        assert not waiting.opened.is_set()
        with server:
            assert waiting.opened.wait(DEADLINE_SECONDS)
            until(waiting.is_over)

    assert waiting.refused is None


def test_why_it_waits_is_logged_again_only_when_the_reason_changes() -> None:
    reasons = iter(["of 0001", "of 0001", "of 0002", "of 0001"])

    def query() -> str:
        for reason in reasons:
            raise SchemaTooOld(reason)
        return "there"

    with capture_logs() as logged:
        assert wait_for_database(query, threading.Event()) == "there"

    assert [line["reason"] for line in logged] == ["of 0001", "of 0002", "of 0001"]


def test_an_unavailable_postgresql_is_an_error_without_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use(monkeypatch, f"postgresql://ada:{PASSWORD}@127.0.0.1:9/nowhere")

    with pytest.raises(click.ClickException) as refused, opened_container():
        pass

    assert refused.value.message == (
        "PostgreSQL cannot be used: nothing listens there: is DATABASE_URL right?"
    )


def test_waiting_for_postgresql_can_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, f"postgresql://ada:{PASSWORD}@127.0.0.1:9/nowhere")

    with capture_logs() as logged, opening() as waiting:
        until(lambda: bool(logged_reasons(logged)))
        waiting.stopped.set()
        until(waiting.is_over)

    assert waiting.refused is None
    assert set(logged_reasons(logged)) == {"PostgreSQL cannot be used: nothing listens there"}
    assert PASSWORD not in str(logged)


def test_a_database_that_does_not_exist_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, postgres_url: str
) -> None:
    url = make_url(postgres_url).set(database="atlantis")
    use(monkeypatch, url.render_as_string(hide_password=False))

    with capture_logs() as logged, opening() as refusing:
        until(refusing.is_over)

    assert refusing.refused is not None
    assert "there is no such database (SQLSTATE 3D000)" in refusing.refused.message
    assert "atlantis" not in refusing.refused.message
    assert logged == []


def test_a_database_in_another_encoding_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, postgres_url: str
) -> None:
    import psycopg

    with psycopg.connect(postgres_url, autocommit=True) as administrator:
        administrator.execute(
            "CREATE DATABASE euc TEMPLATE template0 ENCODING 'EUC_JP'"
            " LOCALE_PROVIDER libc LOCALE 'C'"
        )
        use(monkeypatch, postgres_url.replace("/postgres?", "/euc?"))
        try:
            with opening() as refusing:
                until(refusing.is_over)
        finally:
            administrator.execute("DROP DATABASE euc WITH (FORCE)")

    assert refusing.refused is not None
    assert "encoding is EUC_JP, and has to be UTF8" in refusing.refused.message
    assert len(refusing.refused.message.splitlines()) == 1


@pytest.fixture
def locked_postgres(tmp_path: Path) -> Iterator[str]:
    """A server that lets in nobody without a password; the URL of one who has it."""
    rules = tmp_path / "pg_hba.conf"
    rules.write_text("local all postgres trust\nlocal all all scram-sha-256\n")
    if os.geteuid() == 0:
        tmp_path.chmod(0o755)
    with EmbeddedPostgres(tmp_path / "postgres", {"hba_file": str(rules)}) as server:
        import psycopg

        with psycopg.connect(server.url, autocommit=True) as administrator:
            administrator.execute(f"CREATE ROLE ada LOGIN PASSWORD '{PASSWORD}'".encode())
        url = make_url(server.url).set(username="ada", password=PASSWORD)
        yield url.render_as_string(hide_password=False)


@pytest.mark.parametrize(
    ("password", "reason"),
    [
        pytest.param("wrong-one", "it refused the user or the password", id="wrong"),
        pytest.param(None, "it wants a password", id="none"),
    ],
)
def test_a_refused_password_is_not_waited_for_and_not_quoted(
    monkeypatch: pytest.MonkeyPatch,
    locked_postgres: str,
    password: str | None,
    reason: str,
) -> None:
    monkeypatch.delenv("PGPASSWORD", raising=False)
    url = make_url(locked_postgres)._replace(password=password)
    use(monkeypatch, url.render_as_string(hide_password=False))

    with capture_logs() as logged, opening() as refusing:
        until(refusing.is_over)

    assert refusing.refused is not None
    assert reason in refusing.refused.message
    assert "wrong-one" not in refusing.refused.message
    assert logged == []


def test_a_database_without_the_schema_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, empty_database_url: str
) -> None:
    use(monkeypatch, empty_database_url)

    with capture_logs() as logged, opening() as waiting:
        until(lambda: logged)
        engine = connect(SecretStr(empty_database_url), pool_size=2)
        migrate(engine)
        engine.dispose()
        until(waiting.is_over)

    assert waiting.refused is None
    assert {line["event"] for line in logged} == {"schema_too_old"}
    assert "run `kratos-sync migrate` first" in logged[0]["reason"]


def test_a_schema_that_lacks_what_this_release_uses_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "UPDATE kratos_sync.alembic_version SET version_num = '9999', oldest_release = '9998'"
        )
    use(monkeypatch, database_url)

    with capture_logs() as logged, opening() as refusing:
        until(refusing.is_over)

    assert refusing.refused is not None
    assert "needs a release of 9998 or newer" in refusing.refused.message
    assert logged == []


def test_settings_that_are_wrong_are_named_and_not_quoted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use(monkeypatch, f"mysql://ada:{PASSWORD}@127.0.0.1/nowhere")

    with pytest.raises(click.UsageError) as refused, opened_container():
        pass

    assert "DATABASE_URL" in refused.value.message
    assert PASSWORD not in refused.value.message
