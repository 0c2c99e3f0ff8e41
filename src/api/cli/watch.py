"""`kratos-sync status --watch`: the status on one screen, again and again, with rates."""

import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from math import ceil
from typing import Final, NamedTuple

from kratos_sync.api.amounts import duration, moment
from kratos_sync.api.attention import attention
from kratos_sync.api.cli.output import Line, Styled, echo, echo_json, fold, full_screen, rows
from kratos_sync.api.cli.process import command_container
from kratos_sync.api.cli.status import to_json
from kratos_sync.api.cli.watching import look_again, until_ctrl_c
from kratos_sync.application.activity import Meter, Rates
from kratos_sync.application.ports.activity import FAILURES
from kratos_sync.application.ports.status import BrokerStatus, StatusReport

LOOK_SECONDS: Final = 2.0
KEPT: Final = 150
"""So many looks are kept for the sparklines: five minutes."""
WIDE, NARROW = 50, 25
"""How wide the sparklines of everything and of a consumer are."""
MOST_SENTENCES: Final = 5
"""So many lines of what needs attention are shown at most."""
HEIGHTS: Final = " ▁▂▃▄▅▆▇█"
HEIGHTS_IN_ASCII: Final = " .:-=+*#@"
STILL: Final = "It is tried again; Ctrl-C ends."
WIDTHS: Final = (-23, 10, 10, 10, 12, 14)
HEADINGS: Final = ("time", "events/s", "done/s", "failed/s", "pending", "dead letters")
"""Of the lines that are printed without a terminal, in columns of these widths."""


class Look(NamedTuple):
    """What was found at one look; there are no rates at the first ones."""

    report: StatusReport
    broker: BrokerStatus
    rates: Rates | None


@dataclass
class Past:
    """The rates of the last minutes, the oldest first: of everything, and of each consumer."""

    events: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))
    done: dict[str | None, deque[float]] = field(default_factory=dict)
    failed: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))
    pending: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))

    def add(self, look: Look) -> None:
        """Remember a look."""
        self.pending.append(float(sum(each.backlog for each in look.report.consumers)))
        if (rates := look.rates) is None:
            return
        self.events.append(rates.events)
        self.failed.append(rates.of(None, *FAILURES))
        for name in (None, *(each.name for each in look.report.consumers)):
            kept = self.done.setdefault(name, deque(maxlen=KEPT))
            kept.append(rates.of(name, "succeeded"))


def watch_status(as_json: bool) -> None:
    """Look until Ctrl-C: on a screen, or a line each time where there is no terminal."""
    with until_ctrl_c(), command_container(migrated=False) as container:
        from kratos_sync.infrastructure.bus.broker import broker_status

        settings, status = container.settings(), container.status()
        known = list(container.subscriptions().consumers)
        meter, past = Meter(container.activity()), Past()

        def look() -> Look:
            report = status.report(known)
            names = [consumer.name for consumer in report.consumers]
            return Look(report, broker_status(broker, names), meter.look())

        def show_json(found: Look) -> None:
            report = to_json(found.report, found.broker, settings.retention)
            echo_json({**report, "rates": found.rates})

        def lines(found: Look) -> Iterator[Line]:
            past.add(found)
            can_ask = settings.kratos_admin_url is not None
            troubles = attention(found.report, found.broker, can_ask=can_ask)
            return screen(found, past, (each.with_command for each in troubles))

        with closing(container.broker_to_ask()) as broker:
            if as_json:
                look_again(look, show_json, _complain, LOOK_SECONDS)
            elif sys.stdout.isatty():
                with full_screen() as draw:
                    look_again(
                        look,
                        lambda found: draw(lines(found)),
                        lambda why: draw([Styled(why, "bold red"), STILL]),
                        LOOK_SECONDS,
                    )
            else:
                echo(_columns(*HEADINGS))
                look_again(look, _print_line, _complain, LOOK_SECONDS)


def screen(look: Look, past: Past, sentences: Iterator[str]) -> Iterator[Line]:
    """Yield the lines of the screen."""
    report = look.report
    yield Styled(f"kratos-sync, {moment(report.at)}", "bold")
    yield Styled(f"Every {LOOK_SECONDS:.0f} s or less often; Ctrl-C ends.", "dim")
    yield ""
    troubles = [line for sentence in sentences for line in fold(sentence, "  - ")]
    if troubles:
        yield Styled("Needs attention:", "bold red")
        yield from troubles[:MOST_SENTENCES]
        if (more := len(troubles) - MOST_SENTENCES) > 0:
            yield Styled(f"  … {more} more lines: kratos-sync status", "dim")
    else:
        yield Styled("All is well.", "bold green")
    yield ""
    numbers = ("NOW", "MOST")
    yield from rows(("", *numbers, "LATELY"), _totals(past), right=numbers)
    yield ""
    columns = ("PENDING", "LEASED", "WAITING", "DEAD", "LAG", "DONE/S", "FAILED/S")
    headings = ("CONSUMER", *columns, "DONE LATELY")
    yield from rows(headings, _consumers(look, past), right=columns)


def sparkline(values: Sequence[float], width: int, heights: str = HEIGHTS) -> str:
    """Draw values, the newest at the right end; several share a column if they are many."""
    share = max(ceil(KEPT / width), 1)
    newest_first = list(values)[::-1]
    parts = [newest_first[at : at + share] for at in range(0, len(newest_first), share)]
    columns = [sum(part) / len(part) for part in parts[:width]][::-1]
    most = max(columns, default=0.0)
    if most <= 0:
        return heights[0] * width
    # Whatever is above nothing can be seen.
    drawn = [heights[ceil(each / most * (len(heights) - 1))] for each in columns]
    return "".join(drawn).rjust(width, heights[0])


def _totals(past: Past) -> Iterator[tuple[str, str, str, str]]:
    for name, values, unit in (
        ("Events", past.events, "/s"),
        ("Done", past.done.get(None, ()), "/s"),
        ("Failed", past.failed, "/s"),
        ("Pending", past.pending, ""),
    ):
        now = _number(values[-1], unit) if values else "-"
        most = _number(max(values), unit) if values else "-"
        yield name, now, most, sparkline(list(values), WIDE, _heights())


def _consumers(look: Look, past: Past) -> Iterator[tuple[str, ...]]:
    for each in look.report.consumers:
        lag = "-" if each.lag is None else duration(each.lag, units=1)
        done, failed = "-", "-"
        if look.rates is not None:
            done = _number(look.rates.of(each.name, "succeeded"))
            failed = _number(look.rates.of(each.name, *FAILURES))
        counts = (each.backlog, each.dispatched, each.waiting, each.failed)
        kept = list(past.done.get(each.name, ()))
        spark = sparkline(kept, NARROW, _heights())
        yield (each.name, *(f"{count:,}" for count in counts), lag, done, failed, spark)


def _complain(why: str) -> None:
    echo(why, err=True)


def _number(value: float, unit: str = "") -> str:
    digits = 1 if 0 < value < 10 and value != int(value) else 0  # noqa: PLR2004
    return f"{value:,.{digits}f}{unit}"


def _heights() -> str:
    try:
        HEIGHTS.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return HEIGHTS_IN_ASCII
    return HEIGHTS


def _print_line(look: Look) -> None:
    report, rates = look.report, look.rates
    pending = sum(each.backlog for each in report.consumers)
    dead = sum(each.failed for each in report.consumers)
    shown = ("-", "-", "-")
    if rates is not None:
        of_all = (rates.events, rates.of(None, "succeeded"), rates.of(None, *FAILURES))
        shown = (_number(of_all[0]), _number(of_all[1]), _number(of_all[2]))
    echo(_columns(moment(report.at), *shown, f"{pending:,}", f"{dead:,}"))


def _columns(*cells: str) -> str:
    return "".join(
        cell.ljust(-width) if width < 0 else cell.rjust(width)
        for cell, width in zip(cells, WIDTHS, strict=True)
    )
