import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGTERM

import httpx
import psutil
import psycopg
import pytest

from kratos_sync.api.cli.dev import kept_key, registration
from kratos_sync.infrastructure.worker.child_processes import GRACE_SECONDS
from tests.api.cli.invoking import kratos_sync
from tests.api.cli.stand_in import LINK
from tests.ports import free_port, free_ports
from tests.waiting import DEADLINE_SECONDS, lives, until

STAND_IN = Path(__file__).with_name("stand_in.py")
DEV_WITH_STAND_INS = """
from kratos_sync.api.cli import dev, main
dev.program = lambda: "./kratos-sync"
main()
"""
WITHOUT_CONSOLE = """
from kratos_sync.api.cli import console
console.is_installed = lambda: False
"""
LONG_GRACE = f"""
from kratos_sync.infrastructure.worker import child_processes
child_processes.GRACE_SECONDS = {2 * DEADLINE_SECONDS}
"""
SETTINGS = {
    "DATABASE_URL",
    "BROKER_URL",
    "KRATOS_WEBHOOK_API_KEYS",
    "KRATOS_ADMIN_URL",
    "KRATOS_ADMIN_TOKEN",
    "DATABASE_URL_FILE",
    "LOG_FORMAT",
    "STAND_IN",
}
RECORDED = Path(__file__).parents[2] / "recordings" / "webhooks.jsonl"


class Dev:
    """A `kratos-sync dev` in a terminal of its own: a process group that Ctrl-C goes to."""

    def __init__(
        self, directory: Path, command: list[str], *flags: str, **environment: str
    ) -> None:
        self.directory = directory
        self.port, self.console_port = free_ports(2)
        self.log = directory / "dev.log"
        inherited = {k: v for k, v in os.environ.items() if k not in SETTINGS}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "dev", *self.options, *flags],
                cwd=directory,
                env={**inherited, **environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def options(self) -> list[str]:
        return ["--port", str(self.port), "--console-port", str(self.console_port)]

    @property
    def text(self) -> str:
        return self.log.read_text()

    def shows(self, words: str) -> "Dev":
        until(lambda: words in self.text or self.process.poll() is not None)
        assert words in self.text
        return self

    def printed_line(self, start: str) -> str:
        return next(line for line in self.text.splitlines() if line.startswith(start))

    def family(self) -> list[int]:
        """Itself, its children and the servers, which are nobody's children after a kill."""
        return [self.process.pid, *(p.pid for p in psutil.Process(self.process.pid).children(True))]

    def ctrl_c(self) -> None:
        os.killpg(self.process.pid, SIGINT)

    def exit_code(self) -> int:
        return self.process.wait(DEADLINE_SECONDS)


def run(line: str, directory: Path) -> str:
    done = subprocess.run(
        ["bash", "-c", line],
        cwd=directory,
        env={k: v for k, v in os.environ.items() if k not in SETTINGS},
        capture_output=True,
        check=False,
        text=True,
        timeout=DEADLINE_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def failed_dev(
    directory: Path, port: int, code: str = DEV_WITH_STAND_INS, console_port: int | None = None
) -> str:
    """What a dev that fails at once says."""
    ports = ["--port", str(port), "--console-port", str(console_port or free_port())]
    done = subprocess.run(
        [sys.executable, "-c", code, "dev", *ports],
        cwd=directory,
        env={k: v for k, v in os.environ.items() if k not in SETTINGS},
        capture_output=True,
        check=False,
        text=True,
        timeout=DEADLINE_SECONDS,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    return done.stderr


@pytest.fixture
def started() -> Iterator[list[Dev]]:
    """Every dev of a test: whatever is left of it is ended."""
    devs: list[Dev] = []
    yield devs
    for dev in devs:
        if dev.process.poll() is None:
            family = dev.family()
            dev.process.send_signal(SIGTERM)
            dev.exit_code()
            until(lambda: not any(map(lives, family)))  # noqa: B023


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "my project").mkdir()
    stand_in = tmp_path / "my project" / "kratos-sync"
    stand_in.write_text(f"#!{sys.executable}\n{STAND_IN.read_text()}")
    stand_in.chmod(0o755)
    return stand_in.parent


def stand_in_dev(
    started: list[Dev],
    directory: Path,
    code: str = DEV_WITH_STAND_INS,
    *flags: str,
    **environment: str,
) -> Dev:
    started.append(Dev(directory, [sys.executable, "-c", code], *flags, **environment))
    return started[-1]


def real_dev(started: list[Dev], directory: Path, *flags: str, **environment: str) -> Dev:
    program = Path(sys.executable).with_name("kratos-sync")
    started.append(Dev(directory, [str(program)], *flags, **environment))
    return started[-1]


@pytest.mark.parametrize("flags", [[], ["--no-broker"]], ids=["valkey", "memory"])
def test_dev_from_nothing_to_a_row_and_back_again(
    started: list[Dev], directory: Path, flags: list[str]
) -> None:
    dev = real_dev(started, directory, *flags).shows("See what became of it")
    family = dev.family()

    assert " 200 OK" in run(dev.printed_line("curl "), directory)
    url = run('. .data/env && printf %s "$DATABASE_URL"', directory)
    person = json.loads(re.findall(r"-d '(.*)'$", dev.text, re.MULTILINE)[0])["identity"]
    until(lambda: traits(url, person["id"]) == person["traits"])
    assert person["id"] in run(dev.printed_line("(. .data/env"), directory)
    look_at_the_console(dev)

    dev.ctrl_c()
    assert dev.exit_code() == 0
    assert "Traceback" not in dev.text
    assert not any(map(lives, family))


def look_at_the_console(dev: Dev) -> None:
    """Sign in by the link of the banner, and by another one after it was used."""
    address = f"http://127.0.0.1:{dev.console_port}"
    first = dev.printed_line("Console:").split()[1]
    with httpx.Client(headers={"Sec-Fetch-Site": "same-origin"}, trust_env=False) as browser:
        assert browser.post(first).status_code == HTTPStatus.SEE_OTHER
        assert "SyncKratosIdentity" in browser.get(address).text
        assert browser.post(f"{address}/sign-out").headers["location"] == "/sign-in"
        assert browser.get(address).headers["location"] == "/sign-in"
        assert browser.post(first).status_code == HTTPStatus.FORBIDDEN
        until(lambda: "A new link was printed" in browser.post(f"{address}/sign-in").text)
        (second,) = until(lambda: links_in(dev.text) - {first})
        assert browser.post(second).status_code == HTTPStatus.SEE_OTHER


def links_in(text: str) -> set[str]:
    return set(re.findall(r"http\S+/sign-in/\S+", text))


def test_the_real_dev_starts_again_after_a_kill(started: list[Dev], directory: Path) -> None:
    killed = real_dev(started, directory).shows("See what became of it")
    before = killed.family()
    killed.process.send_signal(SIGKILL)
    killed.exit_code()

    again = real_dev(started, directory).shows("See what became of it")
    until(lambda: not any(map(lives, before)))
    again.process.send_signal(SIGTERM)
    assert again.exit_code() == 0


def traits(url: str, identity_id: str) -> object:
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "select traits from kratos_sync.kratos_identities where id = %s", [identity_id]
        ).fetchone()
    return row[0] if row else None


def test_everything_ends_on_ctrl_c(started: list[Dev], directory: Path) -> None:
    dev = stand_in_dev(started, directory).shows("See what became of it")
    family = dev.family()
    dev.ctrl_c()
    assert dev.exit_code() == 0
    assert not any(map(lives, family))
    assert "Traceback" not in dev.text
    assert not (directory / ".data" / "env").exists()


def test_ctrl_c_stops_it_while_it_starts(started: list[Dev], directory: Path) -> None:
    dev = stand_in_dev(started, directory)
    until((directory / ".data" / "owner.lock").exists)
    dev.ctrl_c()
    assert dev.exit_code() == 0
    assert "Ready" not in dev.text
    assert "Traceback" not in dev.text


def test_a_child_that_ignores_sigterm_keeps_dev_less_than_five_seconds(
    started: list[Dev], directory: Path
) -> None:
    dev = stand_in_dev(started, directory, STAND_IN="unstoppable").shows("See what became of it")
    family = dev.family()
    dev.ctrl_c()
    assert dev.exit_code() == 0
    assert GRACE_SECONDS < 5
    assert not any(map(lives, family))


def test_a_second_ctrl_c_waits_for_no_child(started: list[Dev], directory: Path) -> None:
    code = LONG_GRACE + DEV_WITH_STAND_INS
    dev = stand_in_dev(started, directory, code, STAND_IN="unstoppable")
    dev.shows("See what became of it").ctrl_c()
    dev.shows("Ctrl-C again").ctrl_c()
    assert dev.exit_code() == 0


def test_a_child_that_dies_ends_it_all_and_is_named(started: list[Dev], directory: Path) -> None:
    dev = stand_in_dev(started, directory, STAND_IN="worker dies")
    assert dev.exit_code() == 1
    assert dev.text.endswith(
        "Error: worker ended by itself with exit code 7: see its output above.\n"
    )


def test_a_migration_that_fails_ends_it_all(started: list[Dev], directory: Path) -> None:
    dev = stand_in_dev(started, directory, STAND_IN="migrate dies")
    assert dev.exit_code() == 1
    assert dev.text.endswith("Error: migrate failed with exit code 7.\n")


def test_no_child_outlives_a_killed_dev_and_the_next_one_starts(
    started: list[Dev], directory: Path
) -> None:
    killed = stand_in_dev(started, directory).shows("See what became of it")
    before = killed.family()
    killed.process.send_signal(SIGKILL)
    killed.exit_code()

    again = stand_in_dev(started, directory).shows("See what became of it")
    assert not any(map(lives, before))
    assert again.printed_line("Key:") == killed.printed_line("Key:")


def test_a_port_that_is_taken_is_one_line(directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert failed_dev(directory, port) == (
            f"Error: Cannot listen on 127.0.0.1, port {port} (Address already in use): "
            "choose another with --port.\n"
        )
    assert not (directory / ".data" / "postgresql").exists()


def test_a_port_of_the_console_that_is_taken_is_one_line(directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert failed_dev(directory, free_port(), console_port=port) == (
            f"Error: Cannot listen on 127.0.0.1, port {port} (Address already in use): "
            "choose another with --console-port.\n"
        )


def test_one_port_for_both_is_refused(directory: Path) -> None:
    port = str(free_port())
    done = kratos_sync("dev", "--port", port, "--console-port", port)
    assert done.exit_code == 2
    assert "--port and --console-port are the same" in done.output


def test_the_banner_has_a_link_to_the_console_and_says_how_to_get_another(
    started: list[Dev], directory: Path
) -> None:
    dev = stand_in_dev(started, directory).shows("See what became of it")
    console = f"http://127.0.0.1:{dev.console_port}"
    assert dev.printed_line("Console:") == (
        f"Console:   {console}/sign-in/{LINK} (once, within 15 minutes; for another link open"
        f" {console})"
    )
    lines = [process.cmdline() for process in map(psutil.Process, dev.family())]
    assert any("console" in line for line in lines)
    assert not any(LINK in word for line in lines for word in line)


def test_a_console_that_dies_ends_it_all_and_is_named(started: list[Dev], directory: Path) -> None:
    dev = stand_in_dev(started, directory, STAND_IN="console dies")
    assert dev.exit_code() == 1
    assert "Error: console ended by itself with exit code 7" in dev.text


def test_without_the_extra_everything_else_runs_and_a_line_says_how_to_get_it(
    started: list[Dev], directory: Path
) -> None:
    dev = stand_in_dev(started, directory, WITHOUT_CONSOLE + DEV_WITH_STAND_INS)
    dev.shows("See what became of it")
    assert dev.printed_line("Console:") == (
        'Console:   not installed: install "kratos-identity-sync[console]", with pip or uv'
    )
    assert "console |" not in dev.text


def test_a_second_dev_in_the_same_directory_is_one_line(
    started: list[Dev], directory: Path
) -> None:
    first = stand_in_dev(started, directory).shows("See what became of it")
    assert failed_dev(directory, free_port()) == (
        "Error: .data is in use: another process runs kratos-sync dev there.\n"
    )
    assert first.process.poll() is None


def test_without_the_wheels_one_line_says_what_to_set(directory: Path) -> None:
    no_wheels = "from importlib import metadata; metadata.files = lambda _: []"
    error = failed_dev(directory, free_port(), no_wheels + DEV_WITH_STAND_INS)
    assert re.fullmatch(r"Error: .* set DATABASE_URL and BROKER_URL .*\n", error)


def test_servers_that_are_configured_are_used(started: list[Dev], directory: Path) -> None:
    (directory / ".env").write_text("DATABASE_URL=postgresql://db/app\n")
    dev = stand_in_dev(started, directory, BROKER_URL="redis://broker/0").shows("See what became")
    assert "DATABASE_URL=postgresql://db/app" in dev.text
    assert "BROKER_URL=redis://broker/0" in dev.text
    assert not (directory / ".data" / "postgresql").exists()
    assert not (directory / ".data" / "valkey").exists()


def test_the_key_that_is_configured_is_shown(started: list[Dev], directory: Path) -> None:
    dev = stand_in_dev(started, directory, KRATOS_WEBHOOK_API_KEYS="first, second")
    dev.shows("See what became of it")
    assert dev.printed_line("Key:") == "Key:       X-Api-Key: first"
    assert not (directory / ".data" / "webhook-key").exists()


@pytest.mark.parametrize("name", ["KRATOS_ADMIN_URL", "kratos_admin_url", "CONSOLE_OIDC_ISSUER"])
def test_where_an_env_file_has_secrets_sent_does_not_become_the_environments(
    started: list[Dev], directory: Path, name: str
) -> None:
    (directory / ".env").write_text(f"{name}=https://evil.example\n")
    dev = stand_in_dev(
        started,
        directory,
        DATABASE_URL="postgresql://db/app",
        BROKER_URL="redis://broker/0",
        KRATOS_ADMIN_TOKEN="of-no-worth",
    )
    dev.shows("See what became of it")
    assert "KRATOS_ADMIN_TOKEN=of-no-worth" in dev.text
    assert "evil.example" not in dev.text


def test_each_process_has_a_port_for_metrics_of_its_own(
    started: list[Dev], directory: Path
) -> None:
    urls = {"DATABASE_URL": "postgresql://db/app", "BROKER_URL": "redis://broker/0"}
    dev = stand_in_dev(started, directory, METRICS_PORT="9100", **urls)
    dev.shows("See what became of it")
    ports = {"api": 9100, "relay": 9101, "worker": 9102, "console": 9103}
    listed = ", ".join(f"{port} ({name})" for name, port in ports.items())
    assert f"Metrics:   /metrics on the ports {listed}" in dev.text
    for name, port in ports.items():
        dev.shows(f"{name:>7} | METRICS_PORT={port}")


@pytest.mark.parametrize("flags", [["--no-broker"], []], ids=["option", "url"])
def test_without_a_broker_one_command_is_the_whole_service(
    started: list[Dev], directory: Path, flags: list[str]
) -> None:
    url = "redis://broker/0" if flags else "memory://"
    dev = stand_in_dev(
        started,
        directory,
        DEV_WITH_STAND_INS,
        *flags,
        DATABASE_URL="postgresql://db/app",
        BROKER_URL=url,
        METRICS_PORT="9100",
    )
    dev.shows("See what became of it")
    dev.shows("    all | BROKER_URL=memory://")
    dev.shows("    all | METRICS_PORT=9100")
    assert "/metrics on the ports 9100 (api), 9101 (delivery), 9102 (console)" in dev.text
    assert "relay |" not in dev.text
    assert not (directory / ".data" / "valkey").exists()


def test_without_a_port_there_are_no_metrics(started: list[Dev], directory: Path) -> None:
    urls = {"DATABASE_URL": "postgresql://db/app", "BROKER_URL": "redis://broker/0"}
    dev = stand_in_dev(started, directory, **urls).shows("See what became of it")
    assert "METRICS_PORT" not in dev.text
    assert "Metrics" not in dev.text


def test_urls_in_files_are_used_in_place_of_servers_of_its_own(
    started: list[Dev], directory: Path
) -> None:
    (directory / "secret").write_text("postgresql://db/app\n")
    dev = stand_in_dev(
        started, directory, DATABASE_URL_FILE="secret", BROKER_URL="redis://broker/0"
    )
    dev.shows("See what became of it")
    assert "DATABASE_URL=postgresql://db/app" in dev.text
    assert "DATABASE_URL_FILE=" not in dev.text
    assert not (directory / ".data" / "postgresql").exists()


def test_a_file_that_an_env_file_names_does_not_become_the_environments(
    started: list[Dev], directory: Path
) -> None:
    (directory / ".env").write_text("KRATOS_ADMIN_TOKEN_FILE=/run/secrets/another\n")
    urls = {"DATABASE_URL": "postgresql://db/app", "BROKER_URL": "redis://broker/0"}
    dev = stand_in_dev(started, directory, **urls).shows("See what became of it")
    assert "/run/secrets/another" not in dev.text


def test_the_key_is_kept_and_private(tmp_path: Path) -> None:
    key = kept_key(tmp_path)
    assert kept_key(tmp_path) == key
    assert len(key) >= 32
    assert (tmp_path / "webhook-key").stat().st_mode & 0o777 == 0o600


def test_the_made_up_person_has_the_form_of_a_recorded_registration() -> None:
    recorded = json.loads(RECORDED.read_text().splitlines()[0])["body"]["identity"]
    made_up = registration(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    assert {k: type(v) for k, v in made_up.items()} == {k: type(v) for k, v in recorded.items()}
    assert made_up["created_at"] == "2026-01-02T03:04:05.000000Z"
    for addresses in ("verifiable_addresses", "recovery_addresses"):
        assert isinstance(made_up[addresses], list)
        assert made_up[addresses][0].keys() == recorded[addresses][0].keys()
