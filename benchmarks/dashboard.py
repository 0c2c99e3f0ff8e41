"""Draws deploy/monitoring/dashboard.json from what a Prometheus recorded, as Grafana would.

python -m benchmarks.dashboard .data/faults/prometheus/data docs/observability/dashboard.png
"""

import json
import math
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import httpx
import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.dates import DateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from tests.ports import free_port

DASHBOARD: Final = Path(__file__).parents[1] / "deploy/monitoring/dashboard.json"
RATE_INTERVAL: Final = "15s"
POINTS: Final = 400
MOST_SERIES: Final = 12
WITHOUT_DECIMALS: Final = 10
STARTS_SECONDS: Final = 60.0
COLUMN_INCHES, ROW_INCHES = 0.72, 0.36
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.fontsize": 7,
    "legend.frameon": False,
}
Series = Mapping[str, Any]


class Recorded:
    """A Prometheus that serves what another one recorded."""

    def __init__(self, address: str) -> None:
        self._client = httpx.Client(base_url=address, trust_env=False, timeout=STARTS_SECONDS)

    def wait(self) -> None:
        """Wait until it answers. Raises TimeoutError."""
        deadline = time.monotonic() + STARTS_SECONDS
        while time.monotonic() < deadline:
            try:
                if self._client.get("/-/ready").is_success:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        raise TimeoutError

    def span(self) -> tuple[float, float]:
        """The times of its first and its last sample."""
        now = datetime.now(UTC).timestamp()
        asked = {"query": 'count(up{job="kratos-sync"})', "start": now - 10_800, "end": now}
        values = self.values(asked | {"step": 1})[0]["values"]
        return float(values[0][0]), float(values[-1][0])

    def values(self, asked: Mapping[str, Any]) -> Sequence[Series]:
        """The series that a query over a range of time gives."""
        answer = self._client.get("/api/v1/query_range", params=dict(asked))
        answer.raise_for_status()
        result: Sequence[Series] = answer.json()["data"]["result"]
        return result


@contextmanager
def recorded(folder: Path) -> Iterator[Recorded]:
    """Serve a folder of samples, which is copied first."""
    program = shutil.which("prometheus")
    if program is None:
        sys.exit("Prometheus is not installed.")
    copy = folder.parent / "drawn"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    (copy / "lock").unlink(missing_ok=True)
    configuration = copy / "empty.yml"
    configuration.write_text("global: {}\n")
    port = free_port()
    process = subprocess.Popen(  # noqa: S603  # our own words
        [
            program,
            f"--config.file={configuration}",
            f"--storage.tsdb.path={copy}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stderr=subprocess.DEVNULL,
    )
    try:
        serving = Recorded(f"http://127.0.0.1:{port}")
        serving.wait()
        yield serving
    finally:
        process.kill()
        process.wait(STARTS_SECONDS)


def draw(dashboard: Mapping[str, Any], samples: Recorded, path: Path) -> None:
    """Draw every panel at its place."""
    start, end = samples.span()
    panels = dashboard["panels"]
    bottom = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(24 * COLUMN_INCHES, bottom * ROW_INCHES), dpi=80)
        for panel in panels:
            place = panel["gridPos"]
            if panel["type"] == "row":
                y = 1 - (place["y"] + 0.9) / bottom
                figure.text(0.01, y, panel["title"], fontsize=12, weight="bold")
                continue
            box = (
                place["x"] / 24 + 0.035,
                1 - (place["y"] + place["h"] - 1.1) / bottom,
                place["w"] / 24 - 0.05,
                (place["h"] - 2.4) / bottom,
            )
            axes = figure.add_axes(box)
            axes.set_title(panel["title"])
            found = list(_lines(panel, samples, start, end))
            {"stat": _stat, "table": _table}.get(panel["type"], _timeseries)(axes, panel, found)
        figure.savefig(path)


def _lines(
    panel: Mapping[str, Any], samples: Recorded, start: float, end: float
) -> Iterator[tuple[str, Sequence[tuple[datetime, float]]]]:
    step = max((end - start) / POINTS, 1.0)
    for target in panel["targets"]:
        query = (
            target["expr"].replace("$__rate_interval", RATE_INTERVAL).replace("$namespace", ".*")
        )
        for series in samples.values({"query": query, "start": start, "end": end, "step": step}):
            name = _named(target["legendFormat"], series["metric"])
            values = [(datetime.fromtimestamp(at, UTC), float(v)) for at, v in series["values"]]
            yield name, [(at, value) for at, value in values if not math.isnan(value)]


def _named(template: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match[1], ""), template)


def _timeseries(axes: Axes, panel: Mapping[str, Any], lines: Sequence[Any]) -> None:
    unit = panel["fieldConfig"]["defaults"]["unit"]
    for name, values in sorted(lines, key=_mean, reverse=True)[:MOST_SERIES]:
        axes.plot(*zip(*values, strict=True), label=name or None, linewidth=1.2)
    axes.xaxis.set_major_formatter(DateFormatter("%H:%M"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _shown(value, unit)))
    axes.set_ylim(bottom=0)
    if any(name for name, _ in lines):
        axes.legend(loc="upper left", ncols=2)
    if not lines:
        axes.text(0.5, 0.5, "no data", transform=axes.transAxes, ha="center", color="grey")


def _stat(axes: Axes, panel: Mapping[str, Any], lines: Sequence[Any]) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    axes.set_axis_off()
    if not lines or not lines[0][1]:
        axes.text(0, 0.2, "no data", fontsize=14, color="grey")
        return
    value = lines[0][1][-1][1]
    colour = "green"
    for step in defaults["thresholds"]["steps"]:
        if step["value"] is None or value >= step["value"]:
            colour = step["color"]
    axes.text(0, 0.2, _shown(value, defaults["unit"]), fontsize=20, color=colour)


def _table(axes: Axes, panel: Mapping[str, Any], lines: Sequence[Any]) -> None:
    unit = panel["fieldConfig"]["defaults"]["unit"]
    axes.set_axis_off()
    rows = [[name, _shown(values[-1][1], unit)] for name, values in lines if values]
    if rows:
        axes.table(rows[:MOST_SERIES], loc="upper left", cellLoc="left", edges="horizontal")


def _mean(line: tuple[str, Sequence[tuple[datetime, float]]]) -> float:
    values = [value for _, value in line[1]]
    return sum(values) / len(values) if values else 0.0


def _shown(value: float, unit: str) -> str:
    if unit == "bytes":
        return f"{value / 1e6:,.0f} MB"
    if unit == "s":
        return f"{value * 1000:,.0f} ms" if value < 1 else f"{value:,.1f} s"
    suffix = {"ops": "/s", "reqps": "/s"}.get(unit, "")
    return (
        f"{value:,.0f}{suffix}"
        if value >= WITHOUT_DECIMALS or value.is_integer()
        else f"{value:.2f}{suffix}"
    )


if __name__ == "__main__":
    _, samples_folder, picture = sys.argv
    with recorded(Path(samples_folder)) as prometheus:
        draw(json.loads(DASHBOARD.read_text()), prometheus, Path(picture))
