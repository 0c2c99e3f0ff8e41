"""What is logged, by whom, and how little of it."""

import json
import subprocess
import sys
import textwrap
from typing import Any

import pytest

from tests.waiting import DEADLINE_SECONDS

SECRET = "ada@home.org"


def lines_of(program: str, level: str = "DEBUG", log_format: str = "json") -> list[str]:
    """Run a program with logging set up, and give what it said on both streams."""
    setup = f"""
        import asyncio, logging, sys, threading, warnings
        import structlog
        from kratos_sync.infrastructure.telemetry import configure_logging
        configure_logging({log_format!r}, {level!r})
        secret = {SECRET!r}
    """
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", textwrap.dedent(setup) + textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert SECRET not in done.stdout
    return done.stdout.splitlines()


def logged(program: str, level: str = "DEBUG") -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines_of(program, level)]


def test_a_crash_is_one_line_of_types_and_places() -> None:
    (line,) = logged("""
        try:
            raise KeyError(secret)
        except KeyError as error:
            raise ValueError(f"no {secret}") from error
    """)
    assert (line["event"], line["level"]) == ("crashed", "critical")
    assert (line["error"], line["causes"]) == ("ValueError", ["KeyError"])
    assert line["places"][0].startswith("<string>:")


@pytest.mark.parametrize(
    ("program", "event"),
    [
        ("t = threading.Thread(target=int, args=(secret,)); t.start(); t.join()", "thread_crashed"),
        ("class T:\n    def __del__(self): int(secret)\nT()", "error_ignored"),
        ("warnings.warn(secret)", "python_warning"),
        ("structlog.get_logger().exception('odd', exc_info=ValueError(secret))", "odd"),
        ("logging.getLogger('lib').error('odd', exc_info=ValueError(secret))", "odd"),
        ("logging.getLogger('lib').warning('odd %s', ValueError(secret))", "odd ValueError"),
        ("logging.getLogger('lib').warning('odd %(e)s', {'e': [secret]})", "odd list"),
        ("logging.getLogger('lib').warning(ValueError(secret))", "ValueError"),
        ("logging.getLogger('asyncio').error(f'odd\\n<Task {secret}>')", "odd"),
    ],
)
def test_nothing_that_goes_wrong_is_quoted(program: str, event: str) -> None:
    assert [line["event"] for line in logged(program)] == [event]


def test_a_line_that_cannot_be_formatted_is_reported_without_its_arguments() -> None:
    assert lines_of("logging.getLogger('lib').error('%d', secret)") == [
        "A line of lib could not be logged (TypeError)."
    ]


def test_libraries_log_from_warnings_on_and_we_at_the_level_that_is_set() -> None:
    said = """
        for name in (
            "lib",
            "kratos_sync.application.consumers.mine",
            "kratos_sync.infrastructure.bus.actor.deliver",
        ):
            for level in ("debug", "info", "warning"):
                getattr(logging.getLogger(name), level)("from %s", name)
        structlog.get_logger("script").info("ours")
    """
    ours, actors = (
        "from kratos_sync.application.consumers.mine",
        "from kratos_sync.infrastructure.bus.actor.deliver",
    )
    assert [line["event"] for line in logged(said)] == ["from lib", *[ours] * 3, actors, "ours"]
    assert [line["event"] for line in logged(said, "WARNING")] == ["from lib", ours, actors]
    assert logged(said, "ERROR") == []


def test_lines_for_people_say_no_more() -> None:
    (line,) = lines_of("raise ValueError(secret)", log_format="console")
    assert "crashed" in line


STEERING = "\x1b[2J\x9b31m\u202e\x07\nAll is well."


def test_nothing_that_is_logged_steers_the_terminal_that_shows_it() -> None:
    lines = lines_of(
        f"""
        said = {STEERING!r}
        log = structlog.get_logger("infrastructure")
        log.warning("received" + said, consumer=said, **{{said: [said]}})
        logging.getLogger("library").warning("said %s", said)
        """,
        log_format="console",
    )
    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)
    assert lines[0].count("All is well.") == 4
