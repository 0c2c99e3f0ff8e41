import os
import socket
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from signal import SIGKILL, SIGSTOP
from urllib.parse import urlsplit

import psycopg
import pytest
import redis
from sqlalchemy import create_engine, text

from kratos_sync.infrastructure.embedded import (
    DirectoryInUse,
    EmbeddedPostgres,
    EmbeddedServerError,
    EmbeddedValkey,
    ServerFailed,
    ServerNotInstalled,
    server,
)
from tests.waiting import lives

SERVERS = [EmbeddedPostgres, EmbeddedValkey]
OWNER = """
import sys
from pathlib import Path
from kratos_sync.infrastructure import embedded
server = getattr(embedded, sys.argv[1])(Path(sys.argv[2])).__enter__()
print(server.pid, flush=True)
sys.stdin.read()
"""


def ask(url: str, question: str) -> object:
    with psycopg.connect(url) as connection:
        answer = connection.execute(question)
        row = answer.fetchone() if answer.description else None
    return row[0] if row else None


def test_postgres_finds_its_data_again(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path / "pg") as postgres:
        ask(postgres.url, "create table lives (name text)")
        ask(postgres.url, "insert into lives values ('Ada')")
    with EmbeddedPostgres(tmp_path / "pg") as postgres:
        assert ask(postgres.url, "select name from lives") == "Ada"


def test_valkey_finds_its_data_again(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path / "vk") as valkey, redis.Redis.from_url(valkey.url) as client:
        client.set("name", "Ada")
    with EmbeddedValkey(tmp_path / "vk") as valkey, redis.Redis.from_url(valkey.url) as client:
        assert client.get("name") == b"Ada"


def test_valkey_keeps_its_port_unless_somebody_else_took_it(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path / "vk") as valkey:
        first = urlsplit(valkey.url)
    with EmbeddedValkey(tmp_path / "vk") as valkey:
        assert urlsplit(valkey.url) == first
    with (
        socket.create_server((str(first.hostname), first.port or 0)),
        EmbeddedValkey(tmp_path / "vk") as valkey,
    ):
        assert urlsplit(valkey.url).port != first.port


@pytest.mark.parametrize("kept", ["", "no number", "-1", "99999999"])
def test_valkey_takes_another_port_than_one_that_cannot_be(tmp_path: Path, kept: str) -> None:
    (tmp_path / "port").write_text(kept)
    with EmbeddedValkey(tmp_path) as valkey:
        assert valkey.url != f"redis://127.0.0.1:{kept}/0"


def test_postgres_takes_sqlalchemy_too(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path / "pg") as postgres:
        engine = create_engine(postgres.url.replace("postgresql:", "postgresql+psycopg:", 1))
        with engine.connect() as connection:
            assert connection.scalar(text("select 1")) == 1
        engine.dispose()


def test_a_commit_in_postgres_is_durable(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path / "pg") as postgres:
        durable = [ask(postgres.url, f"show {name}") for name in ("fsync", "synchronous_commit")]
    assert durable == ["on", "on"]


def test_postgres_takes_settings(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path / "pg", {"max_connections": "42"}) as postgres:
        assert ask(postgres.url, "show max_connections") == "42"


def test_postgres_listens_on_no_network_and_to_nobody_else(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path / "pg") as postgres:
        assert ask(postgres.url, "show listen_addresses") == ""
        assert ask(postgres.url, "show unix_socket_permissions") == "0700"


def test_valkey_listens_on_the_loopback_interface_only(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path / "vk") as valkey, redis.Redis.from_url(valkey.url) as client:
        assert client.config_get("bind") == {"bind": "127.0.0.1"}


@pytest.mark.parametrize(
    "name", ["white space", "a,b", "100%41", """quo'te"d""", "long" * 40, "plus+and&or=not#"]
)
@pytest.mark.parametrize("kind", SERVERS)
def test_any_directory_will_do(tmp_path: Path, kind: type, name: str) -> None:
    with kind(tmp_path / name) as embedded:
        if kind is EmbeddedPostgres:
            assert ask(embedded.url, "select 1") == 1
        assert lives(embedded.pid)


def test_the_environment_of_a_postgres_user_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"PGPORT": "1", "PGDATA": "/nowhere", "PGHOST": "nohost"}.items():
        monkeypatch.setenv(name, value)
    with EmbeddedPostgres(tmp_path / "pg") as postgres:
        assert ask(postgres.url, "select 1") == 1


@pytest.mark.parametrize("kind", SERVERS)
def test_nothing_runs_after_leaving(tmp_path: Path, kind: type) -> None:
    with kind(tmp_path / "here") as embedded:
        pid = embedded.pid
        assert lives(pid)
    assert not lives(pid)


def test_leaving_does_not_wait_for_clients(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path / "pg") as postgres:
        pid = postgres.pid
        client = psycopg.connect(postgres.url)
    client.close()
    assert pid is not None
    assert not lives(pid)


@pytest.mark.parametrize("kind", SERVERS)
def test_a_server_that_is_deaf_is_ended_by_force(
    tmp_path: Path, kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "STOP_SECONDS", 0.5)
    with kind(tmp_path / "here") as embedded:
        pid = embedded.pid
        os.kill(pid, SIGSTOP)
    assert not lives(pid)


@pytest.mark.parametrize("kind", SERVERS)
def test_what_a_killed_owner_left_running_is_ended_and_its_data_found(
    tmp_path: Path, kind: type
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, kind.__name__, tmp_path / "here"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as owner:
        assert owner.stdout is not None
        orphan = int(owner.stdout.readline())
        owner.send_signal(SIGKILL)
    assert lives(orphan)

    with kind(tmp_path / "here") as embedded:
        assert not lives(orphan)
        assert lives(embedded.pid)
        pid = embedded.pid
    assert not lives(pid)


def test_a_killed_owner_leaves_no_folder_of_sockets_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("long" * 40)
    deep.mkdir()
    # Not below tmp_path: a socket's name there may be too long by itself.
    with tempfile.TemporaryDirectory() as short:
        Path(short).chmod(0o755)
        monkeypatch.setattr("tempfile.tempdir", short)
        left = Path(short) / "left"
        left.mkdir()
        (deep / "sockets").symlink_to(left)
        with EmbeddedPostgres(deep) as postgres:
            assert ask(postgres.url, "select 1") == 1
        assert list(Path(short).iterdir()) == []


def test_a_stale_pid_file_harms_no_stranger(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as stranger:
        (tmp_path / "valkey.pid").write_text(str(stranger.pid))
        with EmbeddedValkey(tmp_path):
            pass
        assert lives(stranger.pid)
        stranger.kill()


@pytest.mark.parametrize("kind", SERVERS)
def test_a_directory_has_one_owner_at_a_time(tmp_path: Path, kind: type) -> None:
    with kind(tmp_path / "here") as first:
        with pytest.raises(DirectoryInUse, match="here is in use: another process runs"):
            kind(tmp_path / "here").__enter__()
        assert lives(first.pid)


def test_an_initdb_that_was_killed_is_done_again(tmp_path: Path) -> None:
    half = tmp_path / "pg" / "data.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    with EmbeddedPostgres(tmp_path / "pg") as postgres:
        assert ask(postgres.url, "select 1") == 1


def test_a_server_that_does_not_start_says_why_and_leaves_the_directory_free(
    tmp_path: Path,
) -> None:
    with pytest.raises(ServerFailed, match=r'unrecognized.*"nonsense".*log\)$'):
        EmbeddedPostgres(tmp_path / "pg", {"nonsense": "1"}).__enter__()
    with EmbeddedPostgres(tmp_path / "pg") as postgres:
        assert ask(postgres.url, "select 1") == 1


def test_a_directory_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EmbeddedServerError, match="Not a directory"):
        EmbeddedValkey(tmp_path / "file" / "here").__enter__()


@pytest.mark.parametrize("kind", SERVERS)
def test_without_its_wheel_one_line_says_what_to_set(
    tmp_path: Path, kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_installed(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "files", not_installed)
    with pytest.raises(ServerNotInstalled) as caught:
        kind(tmp_path / "here").__enter__()
    assert "set DATABASE_URL and BROKER_URL" in str(caught.value)
    assert "\n" not in str(caught.value)
