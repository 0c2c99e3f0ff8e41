"""The rows of the table: what the project promises, and whether a run keeps it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.rivals.field import FIELD

Results = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """A figure of a run, and its goal: at least this, or less than this; or none."""

    name: str
    figure: Callable[[Results], float]
    shown: str
    """How the figure and its goal are written."""
    at_least: float | None = None
    less_than: float | None = None

    @property
    def goal(self) -> str:
        """The goal in words."""
        if self.at_least is not None:
            return f"at least {self.shown.format(self.at_least)}"
        return "" if self.less_than is None else f"below {self.shown.format(self.less_than)}"

    def is_in(self, results: Results) -> bool:
        """Whether the run has the figure: a published one may be older than the row."""
        try:
            self.figure(results)
        except KeyError:
            return False
        return True

    def is_met(self, results: Results) -> bool | None:
        """Whether the run meets the goal; None where there is none."""
        figure = self.figure(results)
        if self.at_least is not None:
            return figure >= self.at_least
        return None if self.less_than is None else figure < self.less_than


def _rate(name: str) -> Callable[[Results], float]:
    return lambda results: results[name]["rate"]


def _percent_of_plain(name: str) -> Callable[[Results], float]:
    return lambda results: 100 * results[name]["ratio"]


def _against(rival: str) -> Callable[[Results], float]:
    def ratio(results: Results) -> float:
        (of,) = (each["ratio"] for each in results["rivals"] if each["name"] == rival)
        return float(of)

    return ratio


def _accepted_against(other: str) -> Callable[[Results], float]:
    return lambda results: results["take_in"][other]["ratio"]


def _latency(name: str, percentile: str) -> Callable[[Results], float]:
    return lambda results: results[name][percentile]


def _memory(process: str) -> Callable[[Results], float]:
    return lambda results: results["memory"][process]["rss_mb"]


PER_SECOND, TIMES, PERCENT = "{:,.0f}/s", "{:.1f} ×", "{:.0f} %"
FINE_TIMES, MILLISECONDS, MEGABYTES = "{:.2f} ×", "{:.1f} ms", "{:.0f} MB"
SECONDS = "{:.2f} s"

ROWS = (
    Row("Events delivered, a worker for each core", _rate("deliver"), PER_SECOND, at_least=10_000),
    *(Row(f"… against {rival.name}", _against(rival.name), TIMES, at_least=10) for rival in FIELD),
    Row(
        f"One event at a time, against {FIELD[0].name}",
        lambda results: results["one_at_a_time"]["ratio"],
        TIMES,
        at_least=2,
    ),
    Row(
        "Deliveries of all consumers meanwhile",
        lambda results: results["deliver"]["deliveries_per_second"],
        PER_SECOND,
    ),
    Row(
        "Two consumers on every event, of a plain run beside it",
        _percent_of_plain("second"),
        PERCENT,
        60,
    ),
    Row(
        "An ordered consumer, of the same one unordered beside it",
        _percent_of_plain("ordered"),
        PERCENT,
        50,
    ),
    Row(
        "`kratos-sync all`, without a broker, of a plain run beside it",
        _percent_of_plain("no_broker"),
        PERCENT,
        50,
    ),
    Row(
        "… all its processes at their peak, shared memory counted once",
        lambda results: results["memory"]["all"]["pss_mb"],
        MEGABYTES,
        less_than=250,
    ),
    Row(
        "With 1 % that are no identity, of a plain run beside it",
        _percent_of_plain("garbage"),
        PERCENT,
        80,
    ),
    Row(
        "With 1 % that a consumer fails on, of a plain run beside it",
        _percent_of_plain("failure"),
        PERCENT,
        80,
    ),
    Row(
        "A consumer paused under load: until its last attempt has ended",
        lambda results: results["pause"]["stops_in"],
        SECONDS,
        less_than=1,
    ),
    Row(
        "… resumed: until its first attempt begins",
        lambda results: results["pause"]["resumes_in"],
        SECONDS,
    ),
    Row(
        "… another consumer's rate meanwhile, of that before",
        _percent_of_plain("pause"),
        PERCENT,
        90,
    ),
    Row("Webhooks accepted", lambda results: results["take_in"]["ours"]["rate"], PER_SECOND),
    Row("… against FastAPI + SQLAlchemy", _accepted_against("fastapi"), TIMES, at_least=4),
    Row("… against a route that does nothing", _accepted_against("bare"), FINE_TIMES, 0.4),
    Row(
        "A webhook's 200 to its row, idle: p50",
        _latency("to_its_row", "p50_ms"),
        MILLISECONDS,
        less_than=10,
    ),
    Row("… p99", _latency("to_its_row", "p99_ms"), MILLISECONDS, less_than=50),
    Row(
        "A webhook to its 200 at half of the highest rate: p50",
        _latency("at_half", "p50_ms"),
        MILLISECONDS,
    ),
    Row("… p99", _latency("at_half", "p99_ms"), MILLISECONDS, less_than=50),
    Row(
        "… p99 while all is delivered, at half of the rate then",
        _latency("both_at_half", "p99_ms"),
        MILLISECONDS,
    ),
    Row(
        "With many stored and waiting, of a plain run beside it",
        lambda results: 100 * results["stored"][-1]["ratio"],
        PERCENT,
        at_least=90,
    ),
    Row(
        "The slowest page of the console, ten million events recorded: p95",
        lambda results: results["console"]["p95_ms"],
        MILLISECONDS,
        less_than=50,
    ),
    Row(
        "… webhooks delivered meanwhile, of the rate before",
        _percent_of_plain("console"),
        PERCENT,
        97,
    ),
    *(
        Row(f"Memory of the {process} at its peak", _memory(process), MEGABYTES, less_than=150)
        for process in ("api", "relay", "worker")
    ),
    Row(
        "Idle, all three: of a core",
        lambda results: results["idle"]["percent_of_a_core"],
        "{:.2f} %",
        less_than=2,
    ),
    Row(
        "… queries", lambda results: results["idle"]["queries_per_second"], "{:.1f}/s", less_than=5
    ),
)
