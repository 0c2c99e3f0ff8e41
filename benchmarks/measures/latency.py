"""How long a webhook takes: to its row when all is idle, to its answer under load."""

import json
import subprocess
import sys
from collections.abc import Sequence
from http import HTTPStatus
from statistics import quantiles
from time import perf_counter, sleep
from typing import Any

from benchmarks.commands import ROOT
from benchmarks.population import population
from benchmarks.stage import Stage
from benchmarks.verdict import require
from benchmarks.watch import Watch
from benchmarks.wrk import PATH, write_bodies
from tests.end_to_end.service import KEY, Service

PEOPLE = 2_000
LOOK_SECONDS = 0.0005
PAUSE_SECONDS = 0.03
"""Between one webhook, everything of it settled, and the next: then nothing is under way."""
POINTS = 100
"""How finely a distribution is kept for its plot."""


def to_its_row(stage: Stage, people: int) -> dict[str, Any]:
    """From a webhook's 200 until its person's row is there: one at a time, everything idle."""
    with stage.deployed() as service:
        service.start_all()
        with Watch(service.pids()) as watch:
            milliseconds = first_sights(service, people)
    return {**distribution(milliseconds), "memory": watch.memory()}


def first_sights(service: Service, people: int) -> list[float]:
    """Call about so many people, and time each from the 200 to the row. Raises WrongResult."""
    first = {call.person: call for call in population(-(-people // 200) * 200).calls}
    milliseconds = []
    for person, call in list(first.items())[:people]:
        service.settle()
        sleep(PAUSE_SECONDS)
        require(service.post_one(call) == HTTPStatus.OK, "a webhook was refused")
        answered = perf_counter()
        while not service.has(person):
            sleep(LOOK_SECONDS)
        milliseconds.append(1_000 * (perf_counter() - answered))
    return milliseconds


def at_rate(stage: Stage, rate: float, seconds: int, *, delivering: bool) -> dict[str, Any]:
    """From when a webhook is due until its 200, at a constant rate. Raises WrongResult."""
    bodies = write_bodies(stage.folder, population(PEOPLE).calls)
    with stage.deployed() as service:
        if delivering:
            service.start_all()
        else:
            service.start_api()
        port = service.address.rpartition(":")[2]
        written = stage.folder / "steady.json"
        command = [sys.executable, "-m", "benchmarks.steady", port, PATH, KEY, str(bodies)]
        with Watch(service.pids()) as watch:
            subprocess.run(  # noqa: S603
                [*command, str(rate), str(seconds), str(written)], cwd=ROOT, check=True
            )
        figures = json.loads(written.read_text())
        milliseconds = figures.pop("milliseconds")
        sent = figures["sent"]
        require(
            figures["statuses"] == {"200": sent}, f"of {sent} webhooks not all got 200: {figures}"
        )
        recorded = service.ask(
            "SELECT count(*) AS n FROM kratos_sync.events WHERE dedupe_key IS NOT NULL"
        )
        require(recorded == [{"n": sent}], f"{sent} were answered 200, {recorded} were recorded")
    return {"rate": round(rate, 1), **distribution(milliseconds), "memory": watch.memory()}


def distribution(milliseconds: Sequence[float]) -> dict[str, Any]:
    """Its percentiles, the largest, and how many values there were."""
    cut = quantiles(milliseconds, n=1_000, method="inclusive")
    return {
        "calls": len(milliseconds),
        "p50_ms": round(cut[499], 2),
        "p99_ms": round(cut[989], 2),
        "p999_ms": round(cut[998], 2),
        "max_ms": round(max(milliseconds), 2),
        "percentiles_ms": [
            round(value, 2) for value in quantiles(milliseconds, n=POINTS, method="inclusive")
        ],
    }
