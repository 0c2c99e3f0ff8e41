"""The tables of metrics, written from their definitions."""

from typing import Final

from kratos_sync.infrastructure.observability.definitions import (
    KRATOS,
    LOOPS,
    METRICS,
    PROCESSES,
    Metric,
)

TITLES: Final = {
    PROCESSES: "Every process",
    LOOPS: "api, relay, worker and console",
    ("relay", "worker"): "relay and worker",
    KRATOS: "worker, reconcile and console",
}


def metrics_tables() -> str:
    """A Markdown table of metrics for each group of processes."""
    groups = dict.fromkeys(metric.processes for metric in METRICS)
    return "\n\n".join(_table(processes) for processes in groups)


def _table(processes: tuple[str, ...]) -> str:
    rows = [
        f"| `{metric.name}` | {metric.kind} | {_labels(metric)} | {metric.help} |"
        for metric in METRICS
        if metric.processes == processes
    ]
    title = TITLES.get(processes, " and ".join(processes))
    return "\n".join(
        [f"### {title}", "", "| metric | type | labels | |", "|---|---|---|---|", *rows]
    )


def _labels(metric: Metric) -> str:
    return "; ".join(
        f"`{name}`: {', '.join(values)}" if values else f"`{name}`"
        for name, values in metric.labels.items()
    )
