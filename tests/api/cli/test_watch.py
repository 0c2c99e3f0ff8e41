"""`kratos-sync status --watch`: one screen, or a line each time."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from kratos_sync.api.cli.output import full_screen
from kratos_sync.api.cli.watch import HEIGHTS, HEIGHTS_IN_ASCII, KEPT, Look, Past, screen, sparkline
from kratos_sync.application.activity import Rates
from kratos_sync.application.ports.status import BrokerStatus, ConsumerStatus
from tests.api.cli.invoking import kratos_sync
from tests.api.cli.test_harmless_output import STATUS
from tests.environment import subscriptions
from tests.infrastructure.ledger.rows import add_delivery, add_event, log_attempt
from tests.waiting import DEADLINE_SECONDS

WATCH = ("status", "--watch")
NAMES = list(subscriptions().consumers)
GREET = ConsumerStatus("Greet", True, due=1_200, dispatched=3, failed=2, lag=timedelta(seconds=4))
RATES = Rates(12.0, {"Greet": {"succeeded": 9.5, "failed": 0.25, "gave_up": 0.25}})
LOOK = Look(replace(STATUS, consumers=(GREET,)), BrokerStatus({}), RATES)


def lines_of(look: Look, past: Past, *sentences: str) -> list[str]:
    shown = screen(look, past, iter(sentences))
    plain = ["".join([line] if isinstance(line, str) else line) for line in shown]
    return [re.sub(r"\x1b\[[\d;]*m", "", line).rstrip() for line in plain]


def row(lines: list[str], start: str) -> list[str]:
    (line,) = [line for line in lines if line.startswith(start)]
    return re.split(r"\s{2,}", line)


def test_the_screen_has_totals_and_a_row_for_each_consumer() -> None:
    past = Past()
    past.add(replace_rates(Rates(20.0, {"Greet": {"succeeded": 19.0}})))
    past.add(LOOK)
    lines = lines_of(LOOK, past)

    assert "All is well." in lines
    assert row(lines, "Events")[:3] == ["Events", "12/s", "20/s"]
    assert row(lines, "Done")[:3] == ["Done", "9.5/s", "19/s"]
    assert row(lines, "Failed")[:3] == ["Failed", "0.5/s", "0.5/s"]
    assert row(lines, "Pending")[:3] == ["Pending", "1,203", "1,203"]
    greet = row(lines, "Greet")
    assert greet[:8] == ["Greet", "1,203", "3", "0", "2", "4 s", "9.5", "0.5"]
    assert greet[8].endswith(HEIGHTS[-1] + HEIGHTS[4]) or set(greet[8]) <= set(HEIGHTS)


def replace_rates(rates: Rates | None) -> Look:
    return LOOK._replace(rates=rates)


def test_before_there_are_rates_the_screen_says_so() -> None:
    first = replace_rates(None)
    past = Past()
    past.add(first)
    lines = lines_of(first, past)

    assert row(lines, "Events") == ["Events", "-", "-"]
    assert row(lines, "Greet")[6:8] == ["-", "-"]


def test_what_needs_attention_takes_no_more_than_its_share_of_the_screen() -> None:
    lines = lines_of(LOOK, Past(), *(f"Trouble {number}." for number in range(9)))

    assert lines[lines.index("Needs attention:") + 5] == "  - Trouble 4."
    assert "  … 4 more lines: kratos-sync status" in lines
    assert row(lines, "Greet")


@pytest.mark.parametrize(
    ("values", "width", "drawn"),
    [
        ([], 4, "    "),
        ([0.0, 0.0], 4, "    "),
        ([1.0], 4, "   █"),
        ([0.0, 4.0, 8.0], KEPT, " " * (KEPT - 3) + " ▄█"),
        ([0.01, 8.0], KEPT, " " * (KEPT - 2) + "▁█"),
        ([8.0] * KEPT, 3, "███"),
        ([0.0] * 50 + [4.0] * 50 + [8.0] * 50, 3, " ▄█"),
    ],
)
def test_a_sparkline_ends_with_the_newest(values: list[float], width: int, drawn: str) -> None:
    assert sparkline(values, width) == drawn
    in_ascii = sparkline(values, width, HEIGHTS_IN_ASCII)
    assert [HEIGHTS.index(each) for each in drawn] == [HEIGHTS_IN_ASCII.index(e) for e in in_ascii]


def test_only_the_last_minutes_are_kept() -> None:
    past = Past()
    for _ in range(2 * KEPT):
        past.add(LOOK)
    assert len(past.events) == len(past.done["Greet"]) == len(past.pending) == KEPT


@pytest.mark.usefixtures("settings")
def test_without_a_terminal_it_prints_a_line_each_time(
    in_turn: Callable[..., None], engine: Engine
) -> None:
    add_delivery(engine, NAMES[0], failed_ago=timedelta())
    add_delivery(engine, NAMES[0])

    in_turn(lambda: log_attempt(engine, NAMES[0]), lambda: None)
    result = kratos_sync("status", "--watch")

    assert result.exit_code == 0
    heading, *lines = result.stdout.splitlines()
    assert heading.split() == [
        "time",
        "events/s",
        "done/s",
        "failed/s",
        "pending",
        "dead",
        "letters",
    ]
    assert {len(line) for line in lines} == {len(heading)}
    first, _, last = [line.split() for line in lines]
    assert first[3:] == ["-", "-", "-", "1", "1"]
    assert float(last[4]) > 0
    assert last[6:] == ["1", "1"]
    assert "\x1b" not in result.output


@pytest.mark.usefixtures("settings")
def test_a_machine_gets_the_status_and_the_rates_a_line(
    in_turn: Callable[..., None], engine: Engine
) -> None:
    in_turn(lambda: (log_attempt(engine, NAMES[0]), add_event(engine)), lambda: None)
    result = kratos_sync("status", "--watch", "--json")

    first, _, last = map(json.loads, result.stdout.splitlines())
    assert first["rates"] is None
    assert last["rates"]["attempts"][NAMES[0]]["succeeded"] > 0
    assert last["rates"].keys() == {"events", "attempts"}
    assert [consumer["name"] for consumer in last["consumers"]] == NAMES


def test_watching_and_drift_do_not_go_together() -> None:
    assert kratos_sync("status", "--watch", "--drift").exit_code == 2


def test_the_screen_is_cut_to_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "10")
    monkeypatch.setenv("LINES", "4")
    with full_screen() as draw:
        draw(["a" * 50, "b\x1b[2Jb", ["c" * 8, "d" * 8], "e", "f"])

    drawn = capsys.readouterr().out
    shown = drawn.split("\x1b[H")[1].split("\x1b[J")[0].replace("\x1b[K", "").split("\r\n")
    assert shown == ["a" * 10, "b\N{REPLACEMENT CHARACTER}[2Jb", "c" * 8 + "dd", "… 2 more lines"]


def test_a_terminal_gets_a_screen_and_has_its_own_back(
    tmp_path: Path, engine: Engine, database_url: str, broker_url: str
) -> None:
    add_delivery(engine, NAMES[0])
    ours, theirs = pty.openpty()
    urls = {"DATABASE_URL": database_url, "BROKER_URL": broker_url, "TERM": "xterm"}
    process = subprocess.Popen(
        [sys.executable, "-c", "from kratos_sync.api.entry import main; main()", *WATCH],
        cwd=tmp_path,
        env={**os.environ, **urls, "COLUMNS": "100", "LINES": "40"},
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    try:
        shown = read_until(ours, NAMES[-1].encode())
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE_SECONDS) == 0
        shown += read_until(ours, b"\x1b[?1049l")
    finally:
        process.kill()
        process.wait(DEADLINE_SECONDS)
        os.close(ours)
    assert shown.startswith(b"\x1b[?1049h\x1b[?25l\x1b[H")
    assert shown.endswith(b"\x1b[?25h\x1b[?1049l")


def read_until(terminal: int, words: bytes) -> bytes:
    read = b""
    while words not in read:
        ready, _, _ = select.select([terminal], [], [], DEADLINE_SECONDS)
        assert ready, read
        read += os.read(terminal, 65_536)
    return read
