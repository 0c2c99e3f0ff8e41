"""Whether delivering is as fast when a great many people are stored and events wait."""

from itertools import pairwise
from time import perf_counter, sleep
from typing import Any

from benchmarks.measures.deliver import LONGEST_SECONDS
from benchmarks.seeding import Seed, remember_templates, seed
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
        FROM generate_series(%s::int, %s::int) AS copy, benchmark.people p
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


def with_stored(stage: Stage, wanted: Seed, windows: int) -> dict[str, Any]:
    """Deliver waves, each measured as a window of its own. Raises WrongResult."""
    remember_templates(stage)
    with stage.deployed() as service:
        began = perf_counter()
        wave = seed(service.database_url, wanted)
        seeded = perf_counter() - began
        service.start_workers()
        service.start_relay()
        rates, memory = _deliver(service, wave, min(windows, wanted.waves))
        checked = _check(service, wanted, wave)
    return {
        "stored": wanted.stored,
        "waiting": wave * wanted.waves,
        "window_events": wave,
        "seeding_seconds": round(seeded, 1),
        "rates": rates,
        "rate": rates[0],
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


def _check(service: Deployment, wanted: Seed, wave: int) -> int:
    """Give how many people were looked at. Raises WrongResult for anyone who is not right."""
    failed = service.ask(
        "SELECT outcome, count(*) AS n FROM kratos_sync.attempts"
        " WHERE outcome <> 'succeeded' GROUP BY 1"
    )
    require(not failed, f"not every attempt succeeded: {failed}")
    first = wanted.stored // 200 + 1
    (found,) = service.ask(WRONG, first, first + wave // 866 - 1)
    require(found["people"] > 0, "nobody was looked at")
    require(not found["wrong"], f"{found['wrong']} of {found['people']} people are wrong")
    people: int = found["people"]
    return people
