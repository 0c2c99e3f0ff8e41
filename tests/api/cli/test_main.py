import re
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from kratos_sync.api.cli import COMMANDS, main


def test_the_help_lists_every_command_in_the_order_of_the_table() -> None:
    commands = CliRunner().invoke(main, ["--help"]).output.split("Commands:")[1]
    assert re.findall(r"^  ([a-z]+) ", commands, re.MULTILINE) == list(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_of_the_table_is_there_under_its_name(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert command.name == name
    assert command.help


def test_an_unknown_command_is_wrong_use() -> None:
    result = CliRunner().invoke(main, ["dance"])
    assert result.exit_code == 2
    assert "No such command 'dance'" in result.stderr


def test_the_version_is_the_distributions() -> None:
    result = CliRunner().invoke(main, ["--version"])
    assert re.fullmatch(r"kratos-sync, version \d+\.\d+\.\d+\n", result.output)


def test_no_command_is_loaded_before_it_is_called_for() -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", "import kratos_sync.api.cli, sys; print(*sys.modules)"],
        capture_output=True,
        check=True,
        text=True,
        timeout=20,
    ).stdout.split()
    assert not {
        "sqlalchemy",
        "dramatiq",
        "uvicorn",
        *(f"kratos_sync.api.cli.{n}" for n in COMMANDS),
    } & {*loaded}
