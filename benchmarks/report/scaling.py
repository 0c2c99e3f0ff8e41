"""The tables of docs/scaling.md, from what benchmarks.scaling and benchmarks.large published."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.commands import ROOT
from benchmarks.model import Commits, Cost, Site, from_json, full_at
from benchmarks.page import filled
from benchmarks.report.markdown import table

FOLDER: Final = ROOT / "docs" / "performance"
PAGE: Final = ROOT / "docs" / "scaling.md"
RATES: Final = (1_000, 10_000, 30_000, 100_000)
WANTED: Final = 100_000
PARTS: Final = {
    "purge": "a purge, by the day's average",
    "log": "writing the log",
    "commits": "commits",
    "cores": "PostgreSQL's cores",
}
Figures = Mapping[str, Any]


def read(name: str) -> dict[str, Any]:
    """What was published under that name."""
    published: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return published


def sites(large: Figures) -> list[Site]:
    """What the model is asked about; a purge was measured on two cores."""
    rows = _purged_rows(large["large"]["purge"])
    return [
        Site("8 cores, network volume", 8, 125, 1.0, rows),
        Site("32 cores, local NVMe", 32, 1_000, 0.1, rows),
    ]


def sections(scaling: Figures, large: Figures, reconciling: Figures) -> dict[str, str]:
    """The texts by the names of their places."""
    cost, commits = from_json(scaling)
    return {
        "cost": _cost(scaling, cost),
        "commits": _commits(commits),
        "needs": _needs(scaling),
        "checked": _checked(scaling),
        "first": _first(cost, commits, sites(large)),
        "large": _large(large, reconciling),
    }


def publish(figures: Figures, file: Path) -> None:
    """Write figures; where they are published ones, fill the page anew too."""
    file.write_text(json.dumps(figures, indent=1) + "\n")
    if file.resolve().parent == FOLDER:
        texts = sections(read("scaling"), read("large"), read("reconciling"))
        PAGE.write_text(filled(PAGE.read_text(), texts))


def _cost(scaling: Figures, cost: Cost) -> str:
    on = scaling["machine"]
    rows = {
        "api": f"{cost.api:.0f} µs",
        "relay": f"{cost.relay:.0f} µs",
        "worker": f"{cost.worker:.0f} µs",
        "PostgreSQL, until it is answered": f"{cost.recording:.0f} µs",
        "PostgreSQL, for its deliveries": f"{cost.delivering:.0f} µs",
        "broker": f"{cost.broker:.0f} µs",
        "commits": f"{cost.commits:.3f}",
        "write-ahead log": f"{cost.wal_bytes / 1e3:.1f} kB",
        "on disk, with indexes, while events and attempts are kept": (
            f"{cost.disk_bytes / 1e3:.1f} kB, {cost.rows:.1f} rows"
        ),
    }
    return (
        f"{on['cores']} cores of {on['processor']}, PostgreSQL {on['postgresql']}; µs and commits"
        f" of the run of {scaling['results_at'][:10]}, bytes and rows of {scaling['at'][:10]} at"
        f" {scaling['rate']:,} webhooks a second.\n\n"
        + table(("", "a webhook costs"), rows.items())
        + f"\n\nA commit records {cost.webhooks_per_commit:.0f} webhooks; one claims"
        f" {cost.deliveries_per_claim:.0f} deliveries, and one settles a batch of"
        f" {cost.deliveries_per_batch:.0f}. A webhook has {cost.deliveries:.2f} deliveries."
    )


def _commits(commits: Commits) -> str:
    return (f"A commit on one connection takes {commits.milliseconds:.2f} ms.\n\n") + table(
        ("connections that commit at once", "commits/s", "share an fsync"),
        (
            (number, f"{rate:,}", f"{commits.per_fsync[number]:.1f}")
            for number, rate in commits.per_second.items()
        ),
    )


def _needs(scaling: Figures) -> str:
    return table(
        (
            *("webhooks/s", "api", "relay", "worker", "PostgreSQL", "broker"),
            *("commits/s", "log", "disk, while it is kept"),
        ),
        (
            (
                f"{of['rate']:,}",
                *(of["processes"][part] for part in ("api", "relay", "worker")),
                *(f"{of['cores'][part]:.1f} cores" for part in ("postgres", "broker")),
                f"{of['commits_per_second']:,}",
                f"{of['wal_megabytes_per_second']:,.0f} MB/s",
                f"{of['disk_gigabytes_per_day']:,} GB a day",
            )
            for of in scaling["needs"]
        ),
    )


def _checked(scaling: Figures) -> str:
    return table(
        ("", "predicted", "measured", "error"),
        (
            (
                of["what"],
                f"{of['predicted']:,}/s",
                f"{of['measured']:,}/s",
                f"{of['error_percent']:+} %",
            )
            for of in scaling["checked"]
        ),
    )


def _first(cost: Cost, commits: Commits, of: list[Site]) -> str:
    rates = {site.name: full_at(cost, commits, site) for site in of}
    head = (
        f"{site.name}: {site.wal_megabytes:,.0f} MB/s, an fsync {site.fsync_milliseconds:g} ms"
        for site in of
    )
    return table(
        (f"full at, webhooks/s (so many for {WANTED:,})", *head),
        ((name, *(_full(part, full) for full in rates.values())) for part, name in PARTS.items()),
    )


def _full(part: str, full: Mapping[str, int]) -> str:
    text = f"{full[part]:,} ({-(-WANTED // full[part])})"
    return f"**{text}**" if part == next(iter(full)) else text


def _purged_rows(purge: Figures) -> float:
    """Events and attempts that it removed in a second."""
    removed: int = purge["events"]["removed"] + purge["attempts"]["removed"]
    return removed / float(purge["seconds"])


def _large(large: Figures, reconciling: Figures) -> str:
    small, big = large["small"], large["large"]
    purge, changed = big["purge"], reconciling["changed"]
    differ = sum(changed[name] for name in ("missing", "stale", "unseen"))
    names = {
        "delivering": "deliveries attempted a second, of a backlog",
        "recording": "webhooks accepted a second",
    }
    return table(
        (
            "",
            *(f"{of['identities']:,} identities, {of['events']:,} events" for of in (small, big)),
            "",
        ),
        [
            *(
                (
                    name,
                    *(f"{of[key]['rate']:,.0f}" for of in (small, big)),
                    f"{100 * big[key]['rate'] / small[key]['rate']:.0f} %",
                )
                for key, name in names.items()
            ),
            *(
                (
                    name,
                    *(
                        f"{of['delivering']['megabytes_per_second'][key]:,.0f} MB/s"
                        for of in (small, big)
                    ),
                    "",
                )
                for key, name in (
                    ("wal", "log written while delivering"),
                    ("full_pages", "… of it whole pages"),
                )
            ),
            (
                f"a purge of {purge['events']['removed']:,} events and as many attempts, beside"
                f" {purge['attempts_per_second']['meanwhile']:,.0f} webhooks a second",
                "",
                f"{purge['seconds']:.0f} s",
                f"{_purged_rows(purge):,.0f} rows a second",
            ),
            (
                f"`reconcile`, of which {differ:,} differ",
                "",
                f"{changed['seconds']:.0f} s, {changed['megabytes']} MB of memory",
                f"{changed['identities'] / changed['seconds']:,.0f} identities a second",
            ),
        ],
    )
