"""How fast everything was."""

from benchmarks.goals import ROWS, Results
from benchmarks.report.markdown import table


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
        ),
    )


def machine(results: Results) -> str:
    """What the run was made on, in a sentence or two."""
    on = results["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in on["packages"].items())
    return (
        f"Size `{results['size']}`, {results['at'][:10]}, {results['seconds']} s in all:"
        f" {on['cores']} cores of {on['processor']}, {on['memory_gb']} GB, {on['system']},"
        f" Python {on['python']}, PostgreSQL {on['postgresql']}, Valkey {on['valkey']}; {packages}."
    )


def rivals(results: Results) -> str:
    """Everyone's rate, and the setting that it is of."""
    ours = results["deliver"]["rate"]
    return table(
        ("", "events/s", "we are faster by", "best of the settings tried"),
        [
            ("this service", f"{ours:,.0f}", "", "defaults, one worker"),
            *(
                (
                    each["name"],
                    f"{each['rate']:,.0f}",
                    f"{ours / each['rate']:.1f} ×",
                    each["setting"],
                )
                for each in results["rivals"]
            ),
        ],
    )


def taken_in(results: Results) -> str:
    """Webhooks a second of everyone."""
    names = {
        "ours": "this service, api alone",
        "ours_delivering": "… while relay and worker deliver",
        "fastapi": "FastAPI + SQLAlchemy, one process",
        "bare": "Starlette route that reads the body and answers",
    }
    return table(
        ("", "webhooks/s", "p50", "p99"),
        (
            (name, f"{of['rate']:,.0f}", f"{of['p50_ms']:.1f} ms", f"{of['p99_ms']:.1f} ms")
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


def stored(results: Results) -> str:
    """The rate by rows that are there already, window after window."""
    return table(
        ("identities stored", "events waiting", "events/s, a window each", "seeded in"),
        (
            (
                f"{of['stored']:,}",
                f"{of['waiting']:,}",
                ", ".join(f"{rate:,.0f}" for rate in of["rates"]),
                f"{of['seeding_seconds']:.0f} s",
            )
            for of in results["stored"]
        ),
    )
