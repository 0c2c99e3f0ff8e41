"""What `kratos-sync new` writes passes its own tests and lint, and runs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.api.cli.invoking import kratos_sync
from tests.waiting import DEADLINE_SECONDS

NAME = "shop_events"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("new") / "shop-events"
    result = kratos_sync("new", NAME, "--into", str(folder))
    assert result.exit_code == 0, result.output
    return folder


def run(project: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    program = [str(Path(sys.executable).with_name(command[0]))]
    return subprocess.run(
        [*program, *command[1:]],
        cwd=project,
        check=False,
        capture_output=True,
        text=True,
        timeout=5 * DEADLINE_SECONDS,
        env={**os.environ, "PYTHONPATH": str(project), **environment},
    )


@pytest.mark.parametrize(
    "command",
    [
        ("pytest", "-q", "-p", "no:cacheprovider"),
        ("pytest", "-q", "-p", "no:cacheprovider", "--kratos-sync-postgres"),
        ("ruff", "check"),
        ("ruff", "format", "--check"),
    ],
    ids=["tests", "tests on PostgreSQL", "lint", "format"],
)
def test_it_passes(project: Path, command: tuple[str, ...]) -> None:
    ran = run(project, *command)

    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_its_tests_notice_a_consumer_that_writes_no_new_address(
    project: Path, tmp_path: Path
) -> None:
    broken = shutil.copytree(project, tmp_path / "broken")
    source = broken / NAME / "subscribers.py"
    writes = "self._subscribers.put(event.identity_id, change.new)"
    assert source.read_text().count(writes) == 1
    source.write_text(source.read_text().replace(writes, "pass"))

    ran = run(broken, "pytest", "-q", "-p", "no:cacheprovider")

    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "FAILED tests/test_shop_events.py::test_a_new_address_is_followed" in ran.stdout


def test_no_trace_of_the_template_is_left(project: Path) -> None:
    files = [
        each
        for each in project.rglob("*")
        if each.is_file() and not any("cache" in part for part in each.parts)
    ]
    text = "\n".join(f"{each.relative_to(project)}\n{each.read_text()}" for each in files)

    assert "acme" not in text.lower()
    assert ".txt" not in text


def test_its_tables_and_subscriptions_are_migrated(
    project: Path, database_url: str, broker_url: str
) -> None:
    ran = run(
        project,
        "kratos-sync",
        "migrate",
        DATABASE_URL=database_url,
        BROKER_URL=broker_url,
        KRATOS_SYNC_APP=f"{NAME}:app",
    )

    assert ran.returncode == 0, ran.stderr
    assert f"The schema {NAME} went from nothing to 0001." in ran.stdout
    assert "KeepSubscribers is now subscribed to identity.deleted." in ran.stdout


@pytest.mark.parametrize("name", ["Acme", "kratos_sync", "1st", "a-b", "tests"])
def test_what_is_no_package_is_refused(name: str) -> None:
    result = kratos_sync("new", name)

    assert result.exit_code == 2
    assert f"{name!r} is no name for your package" in result.stderr


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")

    result = kratos_sync("new", NAME, "--into", str(tmp_path))

    assert result.exit_code == 1
    assert "is not empty" in result.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["README.md"]
