"""A run's plots, as SVG that reads well on light and on dark pages."""

from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogLocator, NullLocator

from benchmarks.goals import Results

GREY, BLUE, ORANGE, GREEN = "#7d8590", "#2f81f7", "#db6d28", "#2da44e"
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "kratos-sync",  # the same results give the same file
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 11,
    "text.color": GREY,
    "axes.labelcolor": GREY,
    "axes.edgecolor": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "legend.frameon": False,
}


def plot(results: Results, folder: Path) -> None:
    """Draw everything into the folder."""
    drawings = {"rates": rates, "batches": batches, "stored": stored, "latency": latency}
    with mpl.rc_context(STYLE):
        for name, draw in drawings.items():
            layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)
            figure = Figure(figsize=(7.2, 3.2), layout=layout)
            draw(figure.add_subplot(), results)
            figure.savefig(folder / f"{name}.svg", transparent=True, metadata={"Date": None})


def rates(axes: Axes, results: Results) -> None:
    """Events a second, ours beside the rivals'."""
    measured = {"this service": results["deliver"]["rate"]}
    measured |= {each["name"]: each["rate"] for each in results["rivals"]}
    names = list(measured)[::-1]
    values = [measured[name] for name in names]
    colours = [BLUE if name == "this service" else GREY for name in names]
    bars = axes.barh(names, values, color=colours, height=0.6)
    axes.bar_label(bars, [f"{value:,.0f}" for value in values], padding=4, color=GREY)
    axes.set_title("Events delivered a second")
    axes.spines[["bottom", "left"]].set_visible(False)
    axes.tick_params(length=0)
    axes.set_xticks([])
    axes.margins(x=0.15)


def batches(axes: Axes, results: Results) -> None:
    """The rate by batch size."""
    measured = {int(size): of["rate"] for size, of in results["batches"].items()}
    names, rates = list(map(str, measured)), list(measured.values())
    _rates_above(axes, names, rates)
    axes.plot(names, rates, color=BLUE, marker="o", linewidth=2)
    axes.set_title("Events delivered a second, by events in a batch")


def stored(axes: Axes, results: Results) -> None:
    """The rate by rows stored."""
    last = results["stored"][-1]
    names = ["empty tables,\nbeside the last"]
    rates = [median(run["rate"] for run in last["plain"])]
    for of in results["stored"]:
        names.append(f"{of['stored']:,} stored\n{of['waiting']:,} waiting")
        rates.append(of["rate"])
    _rates_above(axes, names, rates)
    axes.bar(names, rates, color=BLUE, width=0.4)
    axes.set_title("Events delivered a second, by what is there already")


def latency(axes: Axes, results: Results) -> None:
    """The distributions, as the share of calls that took no longer."""
    shown = {
        "to its row, idle": (results["to_its_row"], BLUE),
        "to its 200, at half of the highest rate": (results["at_half"], ORANGE),
        "the same, everything delivered beside it": (results["both_at_half"], GREEN),
    }
    for name, (of, colour) in shown.items():
        cuts = of["percentiles_ms"]
        axes.plot(cuts, range(1, len(cuts) + 1), color=colour, label=name, linewidth=2)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g} ms")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter("{x:.0f} %")
    axes.set_ylim(0, 100)
    axes.grid(color=GREY, alpha=0.25, linewidth=0.6)
    axes.set_title("Webhooks that took no longer than")
    axes.legend(loc="lower right", fontsize=10)


def _rates_above(axes: Axes, names: list[str], rates: list[float]) -> None:
    """Write each rate above its place, and need no axis beside them."""
    for name, rate in zip(names, rates, strict=True):
        axes.annotate(
            f"{rate:,.0f}", (name, rate), (0, 10), textcoords="offset points", ha="center"
        )
    axes.set_ylim(0, 1.15 * max(rates))
    axes.margins(x=0.1)
    axes.set_yticks([])
    axes.tick_params(length=0)
    axes.spines["left"].set_visible(False)
