"""What it cost, and where that went."""

from collections.abc import Mapping
from typing import Any

from benchmarks.goals import Results
from benchmarks.report.markdown import table

PROCESSES = ("api", "relay", "worker", "postgres", "valkey")


def cpu(results: Results) -> str:
    """What each process spends on an event, and on a webhook."""
    spent = {
        "an event delivered": results["deliver"]["cpu_microseconds"],
        "a webhook accepted": results["take_in"]["ours"]["cpu_microseconds"],
        "a webhook accepted and delivered": results["take_in"]["ours_delivering"][
            "cpu_microseconds"
        ],
    }
    return table(
        ("CPU, µs", *PROCESSES, "together"),
        (
            (
                name,
                *(_microseconds(by, process) for process in PROCESSES),
                f"{sum(by.values()):.0f}",
            )
            for name, by in spent.items()
        ),
    )


def memory(results: Results) -> str:
    """The highest memory of each kind of process in the whole run."""
    return table(
        ("", "resident (RSS)", "its share (PSS)"),
        (
            (process, f"{of['rss_mb']:.0f} MB", f"{of['pss_mb']:.0f} MB")
            for process, of in sorted(results["memory"].items())
        ),
    )


def limit(results: Results) -> str:
    """What PostgreSQL does with the same rows, and which part of that we reach."""
    of, ours = results["limit"], results["deliver"]["rate"]
    ways = {
        "COPY of all": of["copy_rate"],
        f"prepared statements, {of['batch']} a commit": of["statement_rate"],
    }
    return table(
        ("PostgreSQL alone, one connection", "events/s", "we reach"),
        ((way, f"{rate:,.0f}", f"{100 * ours / rate:.0f} %") for way, rate in ways.items()),
    )


def statements(results: Results) -> str:
    """The dearest statements of the first row's run."""
    return table(
        ("statement", "calls", "rows", "ms", "%"),
        (
            (
                f"`{of['query']}`",
                f"{of['calls']:,}",
                f"{of['rows']:,}",
                f"{of['milliseconds']:,.0f}",
                of["percent"],
            )
            for of in results["deliver"]["statements"]
        ),
    )


def profiles(results: Results) -> str:
    """Where the processes' own time goes."""
    return "\n\n".join(_profile(name, of) for name, of in results["profiles"].items())


def _profile(name: str, profile: Mapping[str, Any]) -> str:
    if "error" in profile:
        return f"{name}: not measured ({profile['error']})."
    pairs = zip(profile["packages"], profile["functions"], strict=False)
    rows = (
        (f"`{package}`", percent, f"`{function}`", share)
        for (package, percent), (function, share) in pairs
    )
    return table((f"{name.partition('-')[0]}: package", "%", "function", "%"), rows)


def _microseconds(by: Mapping[str, float], process: str) -> str:
    spent = sum(each for name, each in by.items() if name.partition("-")[0] == process)
    return f"{spent:.0f}" if spent else ""
