"""The tables of reconciliation runs: what each found, where an interrupted one continues, and the
identities that it has not found listed."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

from psycopg.types.json import Jsonb
from sqlalchemy import Connection, text

from kratos_sync.application.ports.reconciliation import (
    SHORTEST_PAUSE,
    Findings,
    PastReconciliation,
)
from kratos_sync.domain.events import NO_IDENTITY, KratosTemplateFailed
from kratos_sync.infrastructure.postgres.binary_arrays import uuid_array

KEPT: Final = 1_000
GOES_ON_WITHIN: Final = timedelta(days=1)
"""A run that was interrupted longer ago begins anew: too much has changed since."""

_COLUMNS: Final = """held, pages, identities, known, missing, stale, unseen, gone, fields, unheard,
           unreadable"""
UNENDED: Final = text(f"""
    SELECT id, started_at, page_token, last_id, listed, {_COLUMNS}
    FROM kratos_sync.reconciliations
    WHERE id = (SELECT max(id) FROM kratos_sync.reconciliations)
      AND ended_at IS NULL
      AND seen_at BETWEEN clock_timestamp() - :within AND clock_timestamp()
""")  # noqa: S608  # all of it is ours
PAST: Final = text(f"""
    SELECT started_at, seen_at, ended_at, outcome, {_COLUMNS}
    FROM kratos_sync.reconciliations ORDER BY id DESC LIMIT :most
""")  # noqa: S608  # all of it is ours
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
DELETE_OLD: Final = text("DELETE FROM kratos_sync.reconciliations WHERE id <= :id - :kept")
DELETE_UNLISTED: Final = text(
    "DELETE FROM kratos_sync.unseen_identities WHERE reconciliation <= :id"
)


# A run in the future was recorded before a clock was set back, and does not count. A template that
# failed makes a run due after a pause as long as the last one took.
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
_UNLISTED: Final = """
    FROM kratos_sync.kratos_identities
    WHERE id > :after AND id <= :upper AND id <> ALL (CAST(:listed AS uuid[]))
      AND deleted_at IS NULL AND coalesce(created_at, synced_at) < :began
"""
KEEP_UNLISTED: Final = text("INSERT INTO kratos_sync.unseen_identities SELECT :run, id" + _UNLISTED)
FIND_UNLISTED: Final = text(
    "SELECT coalesce(string_agg(uuid_send(id), ''::bytea ORDER BY id), ''::bytea)" + _UNLISTED
)
NEXT_UNLISTED: Final = text("""
    SELECT identity_id FROM kratos_sync.unseen_identities
    WHERE reconciliation = :run ORDER BY identity_id LIMIT :most
""")
SETTLE: Final = text("""
    DELETE FROM kratos_sync.unseen_identities
    WHERE reconciliation = :run AND identity_id = ANY(CAST(:ids AS uuid[]))
""")


class Place(NamedTuple):
    """How far a listing was read: the page to ask for, the last id, and whether that was all."""

    token: str | None
    last_id: UUID | None
    listed: bool


BEGINNING: Final = Place(None, None, listed=False)


class Run(NamedTuple):
    """A row of the table; ``before`` is when the last run that is over began, if there is one."""

    id: int
    started_at: datetime
    place: Place
    findings: Findings
    before: datetime | None = None


class Held(NamedTuple):
    """How many identities are alive here, and the URLs of their schemas."""

    number: int
    schema_urls: Collection[str]


class Stretch(NamedTuple):
    """The ids after one and up to another, and those ``listed`` by a run that began then."""

    after: UUID
    upper: UUID
    listed: Sequence[UUID]
    began: datetime

    @property
    def parameters(self) -> dict[str, object]:
        """Give it as the statements take it."""
        return {**self._asdict(), "listed": uuid_array(self.listed)}


def unended(connection: Connection) -> Run | None:
    """Give the newest run, if it did not end and is not too old."""
    row = connection.execute(UNENDED, {"within": GOES_ON_WITHIN}).mappings().one_or_none()
    if row is None:
        return None
    place = Place(row["page_token"], row["last_id"], row["listed"])
    findings = Findings.from_record({**row})
    return Run(row["id"], row["started_at"], place, findings, _before(connection, row["id"]))


def is_due(connection: Connection, every: timedelta) -> bool:
    """Whether no run that ended began for so long, or one is due sooner."""
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
    """Add a run, and delete what was left of those before."""
    run_id, started_at = connection.execute(BEGIN, {"held": held}).one()
    connection.execute(DELETE_OLD, {"id": run_id, "kept": KEPT})
    connection.execute(DELETE_UNLISTED, {"id": run_id - 1})
    findings = Findings(held=held)
    return Run(run_id, started_at, BEGINNING, findings, _before(connection, run_id))


def begin_dry(connection: Connection, held: int) -> Run:
    """Give what `begin` would, without a row."""
    now: datetime = connection.execute(NOW).scalar_one()
    return Run(0, now, BEGINNING, Findings(held=held), _before(connection, None))


def note(connection: Connection, run_id: int, place: Place, findings: Findings) -> None:
    """Record how far the run is, and what it has found."""
    parameters = findings.to_record()
    parameters |= {name: Jsonb(parameters[name]) for name in ("fields", "unheard")}
    parameters |= {"page_token": place.token, "last_id": place.last_id, "listed": place.listed}
    connection.execute(NOTE, {**parameters, "id": run_id})


def end(connection: Connection, run_id: int, outcome: str) -> None:
    """Record how the run ended."""
    connection.execute(END, {"id": run_id, "outcome": outcome})
    connection.execute(DELETE_UNLISTED, {"id": run_id})


def past(connection: Connection, most: int) -> list[PastReconciliation]:
    """Give the newest runs, newest first."""
    return [
        PastReconciliation(
            row["started_at"],
            row["seen_at"],
            row["ended_at"],
            row["outcome"],
            Findings.from_record({**row}),
        )
        for row in connection.execute(PAST, {"most": most}).mappings()
    ]


def keep_unlisted(connection: Connection, run_id: int, stretch: Stretch) -> int:
    """Keep those that were alive before the run began and are not listed; give their number."""
    return connection.execute(KEEP_UNLISTED, {"run": run_id, **stretch.parameters}).rowcount


def find_unlisted(connection: Connection, stretch: Stretch) -> bytes:
    """Give the same ids as 16 bytes each: a million take no more room than that."""
    found: bytes = connection.execute(FIND_UNLISTED, stretch.parameters).scalar_one()
    return found


def next_unlisted(connection: Connection, run_id: int, most: int) -> list[UUID]:
    """Give some of those kept, in the order of their ids."""
    return list(connection.execute(NEXT_UNLISTED, {"run": run_id, "most": most}).scalars())


def settle(connection: Connection, run_id: int, ids: Sequence[UUID]) -> None:
    """Keep these no longer."""
    connection.execute(SETTLE, {"run": run_id, "ids": uuid_array(ids)})


def _before(connection: Connection, run_id: int | None) -> datetime | None:
    before: datetime | None = connection.execute(BEFORE, {"id": run_id}).scalar_one()
    return before
