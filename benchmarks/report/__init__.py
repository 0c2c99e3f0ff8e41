"""A run's results as the tables of the page, by the names of their places in it."""

from collections.abc import Callable, Mapping

from benchmarks.goals import Results
from benchmarks.report import conditions, costs, speed

SECTIONS: Mapping[str, Callable[[Results], str]] = {
    section.__name__: section
    for section in (
        *(conditions.machine, conditions.paces),
        *(speed.goals, speed.rivals, speed.accepted, speed.latencies),
        *(speed.beside, speed.pauses, speed.batches, speed.workers, speed.stored, speed.console),
        *(costs.cpu, costs.memory, costs.limit, costs.statements, costs.profiles),
    )
}
