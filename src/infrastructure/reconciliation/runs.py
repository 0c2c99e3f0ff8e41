"""The table of reconciliations: what each found, and where one that was interrupted goes on."""

from collections.abc import Collection
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

from psycopg.types.json import Jsonb
from sqlalchemy import Connection, text

from kratos_sync.application.ports.reconciliation import SHORTEST_PAUSE, Findings
from kratos_sync.domain.events import NO_IDENTITY, KratosTemplateFailed

KEPT: Final = 1_000
GOES_ON_WITHIN: Final = timedelta(days=1)
"""One that was interrupted longer ago begins anew: too much has changed since."""

UNENDED: Final = text("""
    SELECT id, started_at, page_token, last_id, listed, held, pages, identities, known, missing,
           stale, unseen, gone, fields, unheard, unreadable
    FROM kratos_sync.reconciliations
    WHERE id = (SELECT max(id) FROM kratos_sync.reconciliations)
      AND ended_at IS NULL
      AND seen_at BETWEEN clock_timestamp() - :within AND clock_timestamp()
""")
BEGIN: Final = text("""
    INSERT INTO kratos_sync.reconciliations (held) VALUES (:held) RETURNING id, started_at
""")
BEFORE: Final = text("""
    SELECT max(started_at) FROM kratos_sync.reconciliations
    WHERE id < coalesce(:id, id + 1) AND ended_at IS NOT NULL AND identities > 0
      AND started_at <= clock_timestamp()
""")
HELD: Final = text("""
    SELECT schema_url, count(*) FROM kratos_sync.kratos_identities
    WHERE deleted_at IS NULL GROUP BY schema_url
""")
NOW: Final = text("SELECT clock_timestamp()")
NOTE: Final = text("""
    UPDATE kratos_sync.reconciliations
    SET seen_at = clock_timestamp(), page_token = :page_token, last_id = :last_id, listed = :listed,
        pages = :pages, identities = :identities, known = :known, missing = :missing,
        stale = :stale, unseen = :unseen, gone = :gone, fields = :fields, unheard = :unheard,
        unreadable = :unreadable
    WHERE id = :id
""")
END: Final = text("""
    UPDATE kratos_sync.reconciliations
    SET ended_at = clock_timestamp(), outcome = :outcome, page_token = NULL WHERE id = :id
""")
FORGET: Final = text("DELETE FROM kratos_sync.reconciliations WHERE id <= :id - :kept")
FORGET_UNSEEN: Final = text("DELETE FROM kratos_sync.unseen_identities WHERE reconciliation <= :id")


# A time to come is by a clock that was ahead, and is not believed.
# A call with an empty body makes it due soon: not before the last one ended for as long as it took.
IS_DUE: Final = text("""
    SELECT coalesce(bool_and(
        started_at <= clock_timestamp() - :every
        OR ended_at + greatest(ended_at - started_at, :pause) <= clock_timestamp() AND EXISTS (
            SELECT FROM kratos_sync.events
            WHERE subject = :nobody AND name = :template_failed
                  AND recorded_at > started_at AND recorded_at <= clock_timestamp())
    ), true)
    FROM (SELECT started_at, ended_at FROM kratos_sync.reconciliations
          WHERE ended_at IS NOT NULL AND started_at <= clock_timestamp()
          ORDER BY id DESC LIMIT 1) AS last
""").bindparams(nobody=NO_IDENTITY, template_failed=KratosTemplateFailed.name, pause=SHORTEST_PAUSE)


class Place(NamedTuple):
    """How far a listing was read: the page to ask for, the last id, and whether that was all."""

    token: str | None
    last_id: UUID | None
    listed: bool


class Run(NamedTuple):
    """A line of the table; ``before`` is when the last began that is over, None if none is."""

    id: int
    started_at: datetime
    place: Place
    findings: Findings
    before: datetime | None = None


class Held(NamedTuple):
    """How many are alive here, and the URLs of their schemas."""

    number: int
    schema_urls: Collection[str]


def unended(connection: Connection) -> Run | None:
    """Give the newest, if it did not end and is not too old."""
    row = connection.execute(UNENDED, {"within": GOES_ON_WITHIN}).mappings().one_or_none()
    if row is None:
        return None
    found = Findings(**{name: row[name] for name in asdict(Findings())})
    return Run(
        row["id"],
        row["started_at"],
        Place(row["page_token"], row["last_id"], row["listed"]),
        found,
        _before(connection, row["id"]),
    )


def is_due(connection: Connection, every: timedelta) -> bool:
    """Whether none that came to its end began for so long, or one is wanted sooner."""
    due: bool = connection.execute(IS_DUE, {"every": every}).scalar_one()
    return due


def held(connection: Connection) -> Held:
    """Count the identities that are alive, and collect where their schemas are."""
    number, schema_urls = 0, set()
    for schema_url, count in connection.execute(HELD):
        number += count
        if schema_url is not None:
            schema_urls.add(schema_url)
    return Held(number, schema_urls)


def begin(connection: Connection, held: int) -> Run:
    """Add a line, and forget what was left of those before."""
    run_id, started_at = connection.execute(BEGIN, {"held": held}).one()
    connection.execute(FORGET, {"id": run_id, "kept": KEPT})
    connection.execute(FORGET_UNSEEN, {"id": run_id - 1})
    nowhere = Place(None, None, listed=False)
    return Run(run_id, started_at, nowhere, Findings(held=held), _before(connection, run_id))


def pretend(connection: Connection, held: int) -> Run:
    """Give what `begin` would, without a line."""
    now: datetime = connection.execute(NOW).scalar_one()
    nowhere = Place(None, None, listed=False)
    return Run(0, now, nowhere, Findings(held=held), _before(connection, None))


def note(connection: Connection, run_id: int, place: Place, findings: Findings) -> None:
    """Write down how far it is, and what it has found."""
    parameters = {**asdict(findings), "id": run_id}
    parameters |= {"fields": Jsonb(findings.fields), "unheard": Jsonb(findings.unheard)}
    parameters |= {"page_token": place.token, "last_id": place.last_id, "listed": place.listed}
    connection.execute(NOTE, parameters)


def end(connection: Connection, run_id: int, outcome: str) -> None:
    """Write down how it ended."""
    connection.execute(END, {"id": run_id, "outcome": outcome})
    connection.execute(FORGET_UNSEEN, {"id": run_id})


def _before(connection: Connection, run_id: int | None) -> datetime | None:
    before: datetime | None = connection.execute(BEFORE, {"id": run_id}).scalar_one()
    return before
