"""What a rate takes, calculated from measured costs: which part is full first, and at what rate."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any, Final

BUSY: Final = 0.7
"""The part of its time that a process or a server works when it is planned well."""
DAY: Final = 86_400
MICROSECONDS: Final = 1e6
STATEMENTS: Final = {
    "recording": ("take_in", "ours", "SELECT kratos_sync.record_webhook_events("),
    "claiming": ("deliver", "", "WITH expired AS "),
    "settling": ("deliver", "", "WITH settled AS "),
}
"""A commit has one of each: where its calls and rows are published, and how it begins."""


class MissingFigure(Exception):
    """The published results lack what the model needs."""


@dataclass(frozen=True)
class Commits:
    """What PostgreSQL's disk did with commits of one small row."""

    milliseconds: float
    """Of one commit, on one connection: about the time of one fsync."""
    per_second: Mapping[str, int]
    """By the number of connections that commit at the same time."""
    per_fsync: Mapping[str, float]
    """Those that share an fsync (group commit), by the number of connections."""


@dataclass(frozen=True)
class Cost:
    """What a webhook costs, with the facts that follow from it and all deliveries of both.

    Microseconds of a core in the process of each part; commits, rows and bytes in PostgreSQL.
    """

    api: float
    relay: float
    worker: float
    recording: float
    """Of PostgreSQL's cores, until the webhook is answered."""
    delivering: float
    """Of PostgreSQL's cores, for its deliveries."""
    broker: float
    webhooks_per_commit: float
    deliveries_per_claim: float
    deliveries_per_batch: float
    deliveries: float
    wal_bytes: float
    disk_bytes: float
    rows: float
    """Events and attempts, which a purge removes."""

    @property
    def postgres(self) -> float:
        """All of PostgreSQL's cores."""
        return self.recording + self.delivering

    @property
    def cores(self) -> Mapping[str, float]:
        """Microseconds of a core, by part."""
        names = ("api", "relay", "worker", "postgres", "broker")
        return {name: getattr(self, name) for name in names}

    @property
    def commits(self) -> float:
        """In groups and batches of the size that they have at full rate."""
        batches = 1 / self.deliveries_per_claim + 1 / self.deliveries_per_batch
        return 1 / self.webhooks_per_commit + self.deliveries * batches


@dataclass(frozen=True)
class Site:
    """A PostgreSQL, and what it stands on."""

    name: str
    cores: int
    wal_megabytes: float
    """What its disk writes in a second."""
    fsync_milliseconds: float
    purged_rows: float
    """What a purge removes in a second."""


def cost_of(results: Mapping[str, Any], wal_bytes: float, disk_bytes: float, rows: float) -> Cost:
    """The costs in a published run: of recording webhooks, and of delivering a backlog.

    Raises MissingFigure.
    """
    recording = results["take_in"]["ours"]["cpu_microseconds"]
    delivering = results["deliver"]["cpu_microseconds"]
    return Cost(
        api=recording["api"],
        relay=delivering["relay"],
        worker=round(
            sum(spent for name, spent in delivering.items() if name.startswith("worker")), 1
        ),
        recording=recording["postgres"],
        delivering=delivering["postgres"],
        broker=delivering["valkey"],
        webhooks_per_commit=_rows_per_call(results, "recording"),
        deliveries_per_claim=_rows_per_call(results, "claiming"),
        deliveries_per_batch=_rows_per_call(results, "settling"),
        deliveries=round(
            results["deliver"]["deliveries_per_second"] / results["deliver"]["rate"], 2
        ),
        wal_bytes=wal_bytes,
        disk_bytes=disk_bytes,
        rows=rows,
    )


def _rows_per_call(results: Mapping[str, Any], what: str) -> float:
    measure, server, beginning = STATEMENTS[what]
    measured = results[measure][server] if server else results[measure]
    for each in measured["statements"]:
        if each["query"].startswith(beginning):
            rows, calls = int(each["rows"]), int(each["calls"])
            return round(rows / calls, 1)
    raise MissingFigure(f"{measure} has no statement that begins with {beginning!r}")


def needs(cost: Cost, rate: int) -> dict[str, Any]:
    """What so many webhooks a second take."""
    cores = {part: spent * rate / MICROSECONDS for part, spent in cost.cores.items()}
    processes = {part: ceil(cores[part] / BUSY) for part in ("api", "relay", "worker")}
    return {
        "rate": rate,
        "cores": {part: round(number, 1) for part, number in cores.items()},
        "processes": processes,
        "commits_per_second": round(cost.commits * rate),
        "wal_megabytes_per_second": round(cost.wal_bytes * rate / 1e6, 1),
        "disk_gigabytes_per_day": round(cost.disk_bytes * rate * DAY / 1e9),
    }


def full_at(cost: Cost, commits: Commits, site: Site) -> dict[str, int]:
    """The rate at which each part that there is once is as busy as planned; the weakest first.

    As many commits share an fsync as on the most connections that were measured. A purge may run
    all day.
    """
    shared = list(commits.per_fsync.values())[-1]
    most = {
        "purge": site.purged_rows / cost.rows,
        "log": BUSY * site.wal_megabytes * 1e6 / cost.wal_bytes,
        "commits": BUSY * 1_000 / site.fsync_milliseconds * shared / cost.commits,
        "cores": BUSY * site.cores * MICROSECONDS / cost.postgres,
    }
    return {part: round(rate) for part, rate in sorted(most.items(), key=lambda it: it[1])}


def delivered(cost: Cost, cores: int, workers: int) -> float:
    """Events of a backlog a second, on a machine that does nothing else."""
    together = cost.worker + cost.relay + cost.delivering + cost.broker
    return MICROSECONDS * min(cores / together, workers / cost.worker, 1 / cost.relay)


def everything(cost: Cost, cores: int, workers: int) -> float:
    """Webhooks accepted and delivered a second, by one api and one relay, on such a machine."""
    one_each = (1 / cost.api, 1 / cost.relay, workers / cost.worker)
    return MICROSECONDS * min(cores / sum(cost.cores.values()), *one_each)


def checked(cost: Cost, results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rates that follow from the costs, beside rates that other measures of the run had."""
    cores = results["machine"]["cores"]
    pairs = {
        **{
            f"a backlog, {number} worker{'s' * (int(number) > 1)}": (
                delivered(cost, cores, int(number)),
                of["rate"],
            )
            for number, of in results["workers"].items()
        },
        "accepted and delivered at once, 1 worker": (
            everything(cost, cores, 1),
            results["take_in"]["ours_delivering"]["rate"],
        ),
    }
    return [
        {
            "what": what,
            "predicted": round(predicted),
            "measured": round(measured),
            "error_percent": round(100 * (predicted / measured - 1)),
        }
        for what, (predicted, measured) in pairs.items()
    ]


def as_json(cost: Cost, commits: Commits) -> dict[str, Any]:
    """What was measured, to be published."""
    return {"cost": asdict(cost), "commits": asdict(commits)}


def from_json(published: Mapping[str, Any]) -> tuple[Cost, Commits]:
    """What was published."""
    return Cost(**published["cost"]), Commits(**published["commits"])
