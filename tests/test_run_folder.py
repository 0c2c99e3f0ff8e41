"""Runs of the tests side by side, and after one that was killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psycopg

from tests.run_folder import LOCK, run_folder
from tests.waiting import DEADLINE_SECONDS, lives

KILLED = """
import os, sys
from pathlib import Path
from kratos_sync.infrastructure.embedded import EmbeddedPostgres, EmbeddedValkey
from tests.run_folder import run_folder
run = run_folder(Path(sys.argv[1]))
folder = run.__enter__()
servers = [EmbeddedPostgres(folder / "a" / "pg"), EmbeddedValkey(folder / "vk")]
print(folder, *(server.__enter__().pid for server in servers), flush=True)
sys.stdin.read()
"""


def test_a_run_has_a_folder_of_its_own_that_is_gone_afterwards(tmp_path: Path) -> None:
    with run_folder(tmp_path) as one, run_folder(tmp_path) as another:
        (one / "kept").touch()
        assert one != another
        with run_folder(tmp_path):
            assert (one / "kept").exists()

    assert list(tmp_path.iterdir()) == []


def test_the_next_run_removes_what_a_killed_one_left_and_ends_its_servers(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as killed:
        assert killed.stdout is not None
        left, *pids = killed.stdout.readline().decode().split()
        killed.kill()
    assert all(lives(int(pid)) for pid in pids)

    with run_folder(tmp_path) as folder:
        assert list(tmp_path.iterdir()) == [folder]

    assert not Path(left).exists()
    assert not any(lives(int(pid)) for pid in pids)


def test_the_next_run_ends_what_a_killed_one_left_at_work_in_the_folder_of_a_rabbitmq(
    tmp_path: Path,
) -> None:
    left, elsewhere = tmp_path / f"ks-{os.geteuid()}-left" / "node", tmp_path / "elsewhere"
    left.mkdir(parents=True)
    elsewhere.mkdir()
    (left.parent / LOCK).touch()
    (left / "rabbitmq.conf").touch()
    sleeping = [sys.executable, "-c", "import time; time.sleep(600)"]
    with (
        subprocess.Popen(sleeping, cwd=left) as node,
        subprocess.Popen(sleeping, cwd=elsewhere) as other,
    ):
        with run_folder(tmp_path):
            assert node.wait(DEADLINE_SECONDS) == -signal.SIGKILL
        assert other.poll() is None
        other.kill()

    assert not left.exists()


def test_a_run_that_begins_takes_no_folder_away_from_another(postgres_url: str) -> None:
    """PostgreSQL runs as another user where we are root, and has to get to its data."""
    passing = f"{__file__}::{test_a_run_has_a_folder_of_its_own_that_is_gone_afterwards.__name__}"
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", passing]
    done = subprocess.run(pytest, check=False, capture_output=True, timeout=DEADLINE_SECONDS)
    assert done.returncode == 0, done.stdout

    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE still_there ()")
        connection.execute("DROP TABLE still_there")
        connection.execute("CHECKPOINT")
