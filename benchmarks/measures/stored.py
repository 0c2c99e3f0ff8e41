"""Whether delivering is as fast when a great many people are stored and events wait."""

from itertools import pairwise
from statistics import median
from time import perf_counter, sleep
from typing import Any

from benchmarks.measures.beside import Measure, brief
from benchmarks.measures.deliver import A_WORKER_FOR_EACH_CORE, LONGEST_SECONDS
from benchmarks.pace import pace
from benchmarks.seeding import Seed, Seeded, remember_templates, seed
from benchmarks.stage import Deployment, Stage
from benchmarks.verdict import require
from benchmarks.watch import Watch

LOOK_SECONDS = 0.5
LONG_SECONDS = 60
"""Then what is done is enough, if it is one window."""
DONE = """
    SELECT /* benchmark */ count(*) AS n FROM kratos_sync.attempts
    WHERE consumer = 'SyncKratosIdentity'
"""
# When the last event of each window was done: the relay takes what is longest due.
WINDOWS = """
    WITH done AS (
        SELECT started_at + duration AS at,
               row_number() OVER (ORDER BY started_at + duration) AS number
        FROM kratos_sync.attempts
        WHERE consumer = 'SyncKratosIdentity' AND outcome = 'succeeded'
    )
    SELECT extract(epoch FROM at)::float AS at FROM done WHERE number %% %s = 0 ORDER BY number
"""
# A person of whom every event was consumed must look as the template does.
WRONG = """
    WITH first_wave AS (
        SELECT DISTINCT p.id AS template, md5(p.id::text || copy)::uuid AS id
        FROM unnest(%s::int[]) AS copy, benchmark.people p
    ), consumed AS (
        SELECT w.* FROM first_wave w
        WHERE NOT EXISTS (
            SELECT FROM kratos_sync.deliveries d
            WHERE d.subject = w.id AND d.consumer = 'SyncKratosIdentity')
    )
    SELECT count(*) FILTER (WHERE NOT EXISTS (
               SELECT FROM kratos_sync.kratos_identities i
               JOIN benchmark.people p ON p.id = c.template
               WHERE i.id = c.id
                 AND (i.traits, i.state, i.updated_at, i.verifiable_addresses,
                      i.recovery_addresses, i.metadata_public)
                 IS NOT DISTINCT FROM
                     (p.traits, p.state, p.updated_at, p.verifiable_addresses,
                      p.recovery_addresses, p.metadata_public))) AS wrong,
           count(*) AS people
    FROM consumed c
"""


def with_stored(stage: Stage, wanted: Seed, windows: int, plain: Measure) -> dict[str, Any]:
    """Deliver waves, each measured as a window of its own. Raises WrongResult.

    The plain run is measured right before the seeding and right after the last window, and
    ``ratio`` is of the medians of both.
    """
    remember_templates(stage)
    before = brief(plain())
    with stage.deployed() as service:
        began = perf_counter()
        seeded = seed(service.database_url, wanted)
        seconds = perf_counter() - began
        service.start_workers(A_WORKER_FOR_EACH_CORE)
        index = pace()
        service.start_relay()
        rates, memory = _deliver(service, seeded.wave_events, min(windows, wanted.waves))
        checked = _check(service, seeded)
    after = brief(plain())
    rate = median(rates)
    return {
        "stored": wanted.stored,
        "waiting": seeded.wave_events * wanted.waves,
        "window_events": seeded.wave_events,
        "seeding_seconds": round(seconds, 1),
        "pace": index,
        "rates": rates,
        "rate": rate,
        "plain": [before, after],
        "ratio": round(rate / median([before["rate"], after["rate"]]), 3),
        "people_checked": checked,
        "memory": memory,
    }


def _deliver(
    service: Deployment, wave: int, windows: int
) -> tuple[list[float], dict[str, dict[str, float]]]:
    """Deliver so many windows, or those that fit into a minute; give the rate in each."""
    began = perf_counter()
    relay_started = service.ask("SELECT extract(epoch FROM clock_timestamp())::float AS at")
    with Watch(service.pids()) as watch:
        while (done := service.ask(DONE)[0]["n"]) < windows * wave:
            seconds = perf_counter() - began
            require(seconds < LONGEST_SECONDS, "not even one window is done in time")
            if done > wave and seconds > LONG_SECONDS:
                break
            sleep(LOOK_SECONDS)
    service.stop(*service.pids())
    ends = [row["at"] for row in [*relay_started, *service.ask(WINDOWS, wave)[:windows]]]
    rates = [round(wave / (end - start), 1) for start, end in pairwise(ends)]
    return rates, watch.memory()


def _check(service: Deployment, seeded: Seeded) -> int:
    """Give how many people were looked at. Raises WrongResult for anyone who is not right."""
    failed = service.ask(
        "SELECT outcome, count(*) AS n FROM kratos_sync.attempts"
        " WHERE outcome <> 'succeeded' GROUP BY 1"
    )
    require(not failed, f"not every attempt succeeded: {failed}")
    (found,) = service.ask(WRONG, seeded.first_wave)
    require(found["people"] > 0, "nobody was looked at")
    require(not found["wrong"], f"{found['wrong']} of {found['people']} people are wrong")
    people: int = found["people"]
    return people
