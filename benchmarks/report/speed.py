"""How fast everything was."""

from collections.abc import Iterable, Iterator

from benchmarks.goals import ROWS, Results
from benchmarks.report.markdown import table

SIDES = ("measured", "plain")


def goals(results: Results) -> str:
    """Every row with its goal."""
    verdicts = {True: "yes", False: "**no**", None: ""}
    return table(
        ("", "measured", "goal", "met"),
        (
            (
                row.name,
                row.shown.format(row.figure(results)),
                row.goal,
                verdicts[row.is_met(results)],
            )
            for row in ROWS
            if row.is_in(results)
        ),
    )


def rivals(results: Results) -> str:
    """Everyone's rate and our own right before it, and the setting that it is of."""
    return table(
        ("", "events/s", "ours beside it", "we are faster by", "best of the settings tried"),
        (
            (
                each["name"],
                f"{each['rate']:,.0f}",
                f"{each['ours']['rate']:,.0f}",
                f"{each['ratio']:.1f} ×",
                each["setting"],
            )
            for each in _compared(results)
        ),
    )


def _compared(results: Results) -> Iterator[Results]:
    yield from results["rivals"]
    if single := results.get("one_at_a_time"):
        yield {**single, "name": f"{single['name']}, ours with a batch size of 1"}


def accepted(results: Results) -> str:
    """Webhooks a second of everyone, and how many times as many we accept."""
    names = {
        "ours": "this service, api alone",
        "ours_delivering": "… while relay and worker deliver",
        "fastapi": "FastAPI + SQLAlchemy, one process",
        "bare": "Starlette route that reads the body and answers",
    }
    return table(
        ("", "webhooks/s", "p50", "p99", "ours beside it"),
        (
            (
                name,
                f"{of['rate']:,.0f}",
                *(f"{of[cut]:.1f} ms" for cut in ("p50_ms", "p99_ms")),
                f"{of['ratio']:.2f} ×" if "ratio" in of else "",
            )
            for name, of in ((name, results["take_in"][key]) for key, name in names.items())
        ),
    )


def latencies(results: Results) -> str:
    """The percentiles of what was timed one by one."""
    at_half, both = results["at_half"], results["both_at_half"]
    timed = {
        "from its 200 to its row, one at a time": results["to_its_row"],
        f"to its 200, {at_half['rate']:,.0f} a second": at_half,
        f"the same with relay and worker at work, {both['rate']:,.0f} a second": both,
    }
    return table(
        ("a webhook", "p50", "p99", "p99.9", "longest", "calls"),
        (
            (
                name,
                *(f"{of[f'{cut}_ms']:.1f} ms" for cut in ("p50", "p99", "p999", "max")),
                f"{of['calls']:,}",
            )
            for name, of in timed.items()
        ),
    )


def batches(results: Results) -> str:
    """The rate by batch size."""
    measured = results["batches"].items()
    return table(
        ("events in a batch", "events/s"), ((n, f"{of['rate']:,.0f}") for n, of in measured)
    )


def workers(results: Results) -> str:
    """The rate by worker processes."""
    measured = results["workers"].items()
    return table(
        ("worker processes", "events/s"), ((n, f"{of['rate']:,.0f}") for n, of in measured)
    )


def beside(results: Results) -> str:
    """What was measured by turns with plain runs: pair by pair."""
    names = {
        "second": "two consumers",
        "ordered": "an ordered consumer alone; plain: unordered",
        "no_broker": "`kratos-sync all`, without a broker",
        "garbage": "1 % no identity",
        "failure": "a consumer fails on 1 %",
    }
    return table(
        ("", "events/s", "plain, beside it"),
        (
            (name, *(_rates(run["rate"] for run in results[key][of]) for of in SIDES))
            for key, name in names.items()
            if key in results
        ),
    )


def pauses(results: Results) -> str:
    """Each pause under load, and what the other consumer did meanwhile."""
    if "pause" not in results:  # a published run may be older
        return "Not measured yet."
    return table(
        ("its last attempt ended after", "it went on after", "the other one, events/s", "before"),
        (
            (
                *(f"{each[name]:.2f} s" for name in ("stops_in", "resumes_in")),
                *(f"{each[name]:,.0f}" for name in ("others_meanwhile", "others_before")),
            )
            for each in results["pause"]["pauses"]
        ),
    )


def stored(results: Results) -> str:
    """The rate by rows that are there already, window after window."""
    return table(
        (
            *("identities stored", "events waiting", "events/s, a window each"),
            *("plain, before and after", "seeded in"),
        ),
        (
            (
                f"{of['stored']:,}",
                f"{of['waiting']:,}",
                _rates(of["rates"]),
                _rates(run["rate"] for run in of["plain"]),
                f"{of['seeding_seconds']:.0f} s",
            )
            for of in results["stored"]
        ),
    )


def console(results: Results) -> str:
    """Each page of the console, with what is recorded meanwhile."""
    if "console" not in results:  # a published run may be older
        return "Not measured yet."
    of = results["console"]
    pages = table(
        ("page", "p50", "p95", "p95 under load"),
        (
            (
                name,
                *(f"{page[cut]:.1f} ms" for cut in ("p50_ms", "p95_ms")),
                f"{of['pages_under_load'][name]['p95_ms']:.1f} ms",
            )
            for name, page in of["pages"].items()
        ),
    )
    recorded = (
        f"{of['identities']:,} identities, {of['events']:,} events, {of['dead_letters']:,} dead"
        f" letters. Under load: {of['rate_meanwhile']:,.0f} webhooks a second are delivered"
        f" meanwhile; without pages, {of['rate_before']:,.0f}."
    )
    return f"{recorded}\n\n{pages}"


def _rates(rates: Iterable[float]) -> str:
    return ", ".join(f"{rate:,.0f}" for rate in rates)
