"""How commands print: words for amounts, rows, JSON, a bar."""

import io
import json
import sys
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from uuid import UUID

import pytest

from kratos_sync.api.amounts import amount, duration, iso, moment, roughly
from kratos_sync.api.cli.output import Styled, echo, echo_json, harmless, indented, progress, rows


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-3, "0 ms"),
        (0.0123, "12 ms"),
        (1, "1 s"),
        (4.24, "4.2 s"),
        (9.99, "10 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (185, "3 min 5 s"),
        (3_605, "1 h"),
        (42_785, "11 h 53 min"),
        (2 * 86_400 + 59, "2 d"),
        (2 * 86_400 + 3_600, "2 d 1 h"),
    ],
)
def test_a_duration_has_its_two_largest_units(seconds: float, words: str) -> None:
    assert duration(timedelta(seconds=seconds)) == words


def test_a_duration_may_have_one_unit() -> None:
    assert duration(timedelta(hours=11, minutes=53), units=1) == "11 h"


def test_a_moment_is_in_utc() -> None:
    at = datetime(2026, 7, 1, 14, 0, 0, 5, tzinfo=timezone(timedelta(hours=2)))
    assert moment(at) == "2026-07-01 12:00:00 UTC"
    assert iso(at) == "2026-07-01T12:00:00.000005Z"


def test_one_is_singular() -> None:
    assert amount(1, "delivery") == "1 delivery"
    assert amount(1_200, "delivery") == "1,200 deliveries"
    assert amount(0, "event") == "0 events"


@pytest.mark.parametrize(("number", "words"), [(0, "0"), (7, "7"), (1_996_060, "2,000,000")])
def test_an_estimate_has_three_digits(number: int, words: str) -> None:
    assert roughly(number) == f"about {words}"


def test_control_characters_are_replaced() -> None:
    assert harmless("a\x1b[31mb\x07c\u202ed") == "a\N{REPLACEMENT CHARACTER}[31mb" + (
        "\N{REPLACEMENT CHARACTER}c\N{REPLACEMENT CHARACTER}d"
    )


def test_every_line_gets_the_margin() -> None:
    assert indented("one\n\ttwo\r\n三", 2) == ["  one", "          two", "  三"]
    assert indented("one\n", 2) == ["  one"]


@pytest.mark.parametrize("end", ["\r", "\v", "\f", "\x1c", "\x85", "\u2028", "\u2029"])
def test_what_else_may_end_a_line_ends_none(end: str) -> None:
    name = json.dumps({"name": f'x{end}"state": "active"'}, indent=2, ensure_ascii=False)
    assert len(indented(name, 2)) == len(indented(f"a{end}b\nc\nd", 2)) == 3


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_progress_bar_shows_the_number_done_and_the_rate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with progress("Reconcile\x1b[2J", 10_000) as show:
        for done in (1_000, 3_000, 5_000):
            show(done)
    output = terminal.getvalue()
    assert "5000/10000" in output
    assert "/s" in output
    assert "\x1b[2J" not in output


def test_without_a_terminal_there_is_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("Reconcile", 10) as show:
        show(5)
    assert capsys.readouterr() == ("", "")


def test_rows_are_aligned_under_their_headings(capsys: pytest.CaptureFixture[str]) -> None:
    echo(*rows(("NAME", "LAG", "STATE"), [("Greet", "1 h", Styled("ok", "green"))], right=["LAG"]))
    echo(*rows(("A", "B"), [("long\tname", "")]))
    assert capsys.readouterr().out == (
        "NAME   LAG  STATE\nGreet  1 h  ok\nA             B\nlong    name\n"
    )


def test_no_color_turns_colours_off(monkeypatch: pytest.MonkeyPatch) -> None:
    for wanted, output in (("", "\x1b[31m\x1b[1mdown\x1b[0m\n"), ("1", "down\n")):
        monkeypatch.setattr(sys, "stdout", terminal := Terminal())
        monkeypatch.setenv("NO_COLOR", wanted)
        echo(Styled("down", "bold red"))
        assert terminal.getvalue() == output


def test_json_has_times_in_utc_durations_in_seconds_and_objects(
    capsys: pytest.CaptureFixture[str],
) -> None:
    @dataclass
    class Look:
        at: datetime
        took: timedelta
        id: UUID

    at = datetime(2026, 7, 1, 14, tzinfo=timezone(timedelta(hours=2)))
    echo_json({"look": Look(at, timedelta(minutes=1), UUID(int=7)), "name": "é\x7f"})
    output = capsys.readouterr().out
    assert json.loads(output) == {
        "look": {
            "at": "2026-07-01T12:00:00Z",
            "took": 60.0,
            "id": "00000000-0000-0000-0000-000000000007",
        },
        "name": "é\x7f",
    }
    assert output.isascii()
    assert "\x7f" not in output
    with pytest.raises(TypeError, match="object is not JSON"):
        echo_json(object())
