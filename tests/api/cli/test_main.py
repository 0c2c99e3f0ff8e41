"""The command line as a whole: its table of commands, its start-up, its completion."""

import os
import re
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from kratos_sync.api.cli import COMMANDS, main
from tests.environment import subscriptions

HEAVY = {
    "alembic",
    "black",
    "datamodel_code_generator",
    "dependency_injector",
    "dramatiq",
    "httpcore",
    "msgspec",
    "opentelemetry",
    "prometheus_client",
    "psycopg",
    "pydantic",
    "redis",
    "rich",
    "sqlalchemy",
    "starlette",
    "structlog",
    "uvicorn",
    "yaml",
}
MODULES_OF_COMMANDS = {f"kratos_sync.api.cli.{name}" for name in COMMANDS}


def modules_after(*arguments: str, **environment: str) -> set[str]:
    """What is imported once the command line has run."""
    program = (
        "import sys, atexit; from kratos_sync.api.cli import main;"
        "atexit.register(lambda: print(*sys.modules, file=sys.stderr)); main()"
    )
    command = [sys.executable, "-c", program, *arguments]
    ran = subprocess.run(
        command,
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
        env=os.environ | environment,
    )
    return set(ran.stderr.split())


def test_the_help_lists_every_command_in_the_order_of_the_table() -> None:
    commands = CliRunner().invoke(main, ["--help"]).output.split("Commands:")[1]
    assert re.findall(r"^  ([a-z]+) ", commands, re.MULTILINE) == list(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there_under_its_name_with_the_help_of_the_table(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert command.name == name
    assert command.get_short_help_str(limit=1_000) == COMMANDS[name]


def test_an_unknown_command_is_wrong_use() -> None:
    result = CliRunner().invoke(main, ["dance"])
    assert result.exit_code == 2
    assert "No such command 'dance'" in result.stderr


def test_the_version_is_the_distributions() -> None:
    result = CliRunner().invoke(main, ["--version"])
    assert re.fullmatch(r"kratos-sync, version \d+\.\d+\.\d+\n", result.output)


def test_the_help_imports_no_command_and_nothing_heavy() -> None:
    assert not (HEAVY | MODULES_OF_COMMANDS) & modules_after("--help")


@pytest.mark.parametrize("name", ["status", "failed", "replay", "reconcile"])
def test_the_help_of_a_command_needs_neither_database_nor_broker(name: str) -> None:
    heavy = {"alembic", "dramatiq", "psycopg", "pydantic", "redis", "sqlalchemy", "uvicorn"}
    assert not heavy & modules_after(name, "--help")


def test_the_generator_of_types_is_imported_by_the_command_that_needs_it_alone() -> None:
    generator = {"black", "datamodel_code_generator"}
    for command in (["events"], ["traits", "--help"]):
        assert not generator & modules_after(*command)


def completions(line: str) -> list[str]:
    *words, incomplete = line.split(" ")
    environment = {
        "_KRATOS_SYNC_COMPLETE": "bash_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words)),
    }
    result = CliRunner().invoke(main, prog_name="kratos-sync", env=environment)
    assert incomplete in line
    return [each.split(",", 1)[1] for each in result.output.splitlines()]


def test_commands_complete_without_being_imported() -> None:
    assert completions("kratos-sync re") == ["relay", "resume", "replay", "reconcile"]
    environment = {
        "_KRATOS_SYNC_COMPLETE": "bash_complete",
        "COMP_WORDS": "kratos-sync re",
        "COMP_CWORD": "1",
    }
    program = (
        "import sys, atexit; from kratos_sync.api.cli import main;"
        "atexit.register(lambda: print(*sys.modules, file=sys.stderr));"
        "main(prog_name='kratos-sync')"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
        env=os.environ | environment,
    )
    assert "replay" in ran.stdout
    assert not (HEAVY | MODULES_OF_COMMANDS) & set(ran.stderr.split())


@pytest.mark.parametrize(
    "command", ["replay", "failed list", "failed show", "failed retry", "failed discard"]
)
def test_names_of_consumers_complete_without_a_database(command: str) -> None:
    names = list(subscriptions().consumers)
    assert "SyncKratosIdentity" in names
    assert completions(f"kratos-sync {command} --consumer ") == names
    assert completions(f"kratos-sync {command} --consumer SyncK") == ["SyncKratosIdentity"]


def test_options_complete() -> None:
    assert completions("kratos-sync status --dr") == ["--drift"]
    assert "--help" in completions("kratos-sync --h")
