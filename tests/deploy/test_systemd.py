"""The units of systemd: what they run, what they may, and that systemd reads them."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Final

import click
import pytest

from kratos_sync.api.cli import main
from kratos_sync.infrastructure.observability.health import LONGEST_TURN_SECONDS
from kratos_sync.infrastructure.secret_files import FROM_FILES
from kratos_sync.infrastructure.settings import Settings
from tests.programs import installed_program

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = ROOT / "deploy" / "systemd"
COMMON: Final = "kratos-sync-.service.d/common.conf"
PROGRAM: Final = "/opt/kratos-sync/bin/kratos-sync"
SERVICES: Final = sorted(path.name for path in FOLDER.glob("*.service"))
SOCKETS: Final = sorted(path.name for path in FOLDER.glob("*.socket"))
ALL: Final = "kratos-sync-all.service"
MIGRATE: Final = "kratos-sync-migrate.service"
PROCESSES: Final = [name for name in SERVICES if name != MIGRATE]
"""Those that run until they are stopped."""
MOST_EXPOSED: Final = 20
"""In tenths of systemd's measure, from 0 to 10."""


def lines_of(name: str) -> list[tuple[str, str]]:
    """A unit's lines: those that all units have, its own, and those of its drop-ins."""
    files = [FOLDER / COMMON, FOLDER / name, *sorted((FOLDER / f"{name}.d").glob("*.conf"))]
    text = "".join(file.read_text() for file in files)
    return re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE)


def last(name: str, key: str) -> str:
    return [value for found, value in lines_of(name) if found == key][-1]


@pytest.fixture(scope="module")
def analyze() -> str:
    return installed_program("systemd-analyze", "systemd")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The units as on a machine where the service is installed, with a program that exists."""
    folder = tmp_path_factory.mktemp("units")
    shutil.copytree(FOLDER, folder, dirs_exist_ok=True)
    for unit in folder.glob("*.service"):
        unit.write_text(unit.read_text().replace(PROGRAM, "/bin/true"))
    shutil.copy(folder / "kratos-sync-worker@.service", folder / "kratos-sync-worker@1.service")
    return folder


def run(analyze: str, folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [analyze, *arguments],
        cwd=folder,
        env={"SYSTEMD_UNIT_PATH": f"{folder}:", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", [*SERVICES, *SOCKETS, "kratos-sync.target"])
def test_systemd_finds_nothing_wrong(analyze: str, installed: Path, name: str) -> None:
    verified = run(analyze, installed, "verify", "--man=no", f"./{name.replace('@.', '@1.')}")

    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_may_do_little(analyze: str, installed: Path, name: str) -> None:
    unit = f"./{name.replace('@.', '@1.')}"
    exposed = run(
        analyze, installed, "security", "--offline=yes", f"--threshold={MOST_EXPOSED}", unit
    )

    assert exposed.returncode == 0, exposed.stdout[-200:]


@pytest.mark.parametrize("name", SERVICES)
def test_a_unit_runs_a_command_of_ours_with_options_that_exist(name: str) -> None:
    program, called, *words = shlex.split(last(name, "ExecStart"))

    assert program == PROGRAM
    command = main.get_command(click.Context(main), called)
    assert command is not None
    assert name.startswith(f"kratos-sync-{called}")
    _, left, _ = command.make_parser(click.Context(command)).parse_args(words)
    assert left == []


@pytest.mark.parametrize("name", PROCESSES)
def test_a_unit_is_watched_for_longer_than_a_turn_may_take(name: str) -> None:
    assert last(name, "Type") == "notify"
    assert int(last(name, "WatchdogSec")) >= LONGEST_TURN_SECONDS
    assert last(name, "Restart") == "always"
    # The first start waits for the database, however long that takes.
    assert last(name, "TimeoutStartSec") == "infinity"


def test_a_migration_runs_once_and_starting_it_waits_until_it_has_ended() -> None:
    assert last(MIGRATE, "Type") == "oneshot"
    assert last(MIGRATE, "Restart") == "no"
    assert last(MIGRATE, "WatchdogSec") == "0"
    assert last(MIGRATE, "TimeoutStartSec") == "infinity"
    (own,) = (FOLDER / f"{MIGRATE}.d").iterdir()
    assert own.name > Path(COMMON).name


@pytest.mark.parametrize("name", ["kratos-sync-worker@.service", ALL])
def test_the_process_that_consumes_may_notify_and_its_supervisor_is_stopped_and_replaces_it(
    name: str,
) -> None:
    assert last(name, "NotifyAccess") == "all"
    assert last(name, "KillMode") == "mixed"
    # By default systemd stops all of a service when the kernel kills one of its processes.
    assert last(name, "OOMPolicy") == "continue"


@pytest.mark.parametrize("name", SERVICES)
def test_the_settings_of_a_unit_exist_and_its_secrets_are_credentials(name: str) -> None:
    lines = lines_of(name)
    given = dict(value.split("=", 1) for key, value in lines if key == "Environment")
    credentials = {value.split(":")[0] for key, value in lines if key == "LoadCredential"}

    for variable, value in given.items():
        setting = variable.removesuffix("_FILE").lower()
        assert setting in Settings.model_fields
        if setting in FROM_FILES:
            assert value == f"%d/{setting.removeprefix('kratos_')}"
            assert value.removeprefix("%d/") in credentials
    needed = {name for name, field in Settings.model_fields.items() if field.is_required()}
    if {"relay", "worker", "console"} & set(re.split(r"\W", name)):
        needed.add("broker_url")
    assert needed <= {variable.removesuffix("_FILE").lower() for variable in given}


def test_the_console_has_a_database_role_of_its_own() -> None:
    given = [
        value for key, value in lines_of("kratos-sync-console.service") if key == "LoadCredential"
    ]
    # An empty value resets the list.
    assert given[given.index("") + 1 :] == [
        "database_url:/etc/kratos-sync/console_database_url",
        "broker_url:/etc/kratos-sync/broker_url",
    ]
    # systemd reads drop-ins by their names, whichever folder they are in, and the last one counts.
    (own,) = (FOLDER / "kratos-sync-console.service.d").iterdir()
    assert own.name > Path(COMMON).name


@pytest.mark.parametrize("name", SOCKETS)
def test_a_socket_listens_where_its_service_would(name: str) -> None:
    _, _, *words = shlex.split(last(name.replace("socket", "service"), "ExecStart"))
    given = dict(zip(words[::2], words[1::2], strict=True))

    assert last(name, "ListenStream") == f"{given['--host']}:{given['--port']}"
    # It stays when the services are stopped and started again.
    assert "PartOf" not in (FOLDER / name).read_text()


def test_processes_on_a_machine_have_ports_of_their_own() -> None:
    ports = {
        value.replace("%i", number)
        for name in PROCESSES
        for number in ("1", "2", "9")
        for key, value in lines_of(name)
        if key == "Environment" and value.startswith("METRICS_PORT=")
    }

    assert len(ports) == len(PROCESSES) - 1 + 3


def test_the_target_starts_every_service_but_the_one_that_is_all_of_them() -> None:
    wanted = " ".join(
        re.findall(r"^Wants=(.*)$", (FOLDER / "kratos-sync.target").read_text(), re.MULTILINE)
    )

    # The console says who may sign in first, and the other one is all of them: those who want it
    # enable its unit.
    those_who_want = {"kratos-sync-console.service", ALL, ALL.replace("service", "socket")}
    always = {*PROCESSES, *SOCKETS} - those_who_want
    assert {re.sub(r"@\d", "@", each) for each in wanted.split()} == always
    assert all(last(name, "WantedBy") == "kratos-sync.target" for name in {*PROCESSES} - {ALL})
    assert last(ALL, "WantedBy") == "multi-user.target"
    assert all(last(name, "PartOf") == "kratos-sync.target" for name in SERVICES)
