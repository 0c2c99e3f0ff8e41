"""Compares a page of Kratos' listing with our rows, in the database as far as it can."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple, cast
from uuid import UUID

import msgspec
import psycopg

from kratos_sync.application.consumers.fetch_kratos_identity import FetchKratosIdentity
from kratos_sync.application.consumers.sync_kratos_identity import SyncKratosIdentity
from kratos_sync.application.json_body import NotJson, decode
from kratos_sync.application.missed_webhooks import Differing
from kratos_sync.application.ports.kratos import KratosRefused
from kratos_sync.application.ports.reconciliation import ListingUnordered
from kratos_sync.application.reconcile import documents_of, ids_of
from kratos_sync.domain.fields import text, time, uuid
from kratos_sync.domain.identity import ADDRESSES, KEYS, SCALARS, Identity, InvalidIdentity
from kratos_sync.infrastructure.identities.recorded_webhooks import NOW, later_webhooks
from kratos_sync.infrastructure.identities.rows import READ, from_row
from kratos_sync.infrastructure.postgres.binary_arrays import uuid_array

Cursor = psycopg.RawCursor[tuple[object, ...]]

FIRST: Final = UUID(int=0)
LAST: Final = UUID(int=2**128 - 1)
KNOWN_KEYS: Final = sorted(KEYS)

# Equal as JSON, as times and as sets of addresses, which are stored in this order: so equal for the
# domain too. Not the other way round: what differs here is compared once more in the domain.
_SCALAR: Final[Mapping[object, str]] = {
    text: "held.{0} IS NOT DISTINCT FROM e ->> '{0}'",
    uuid: "held.{0}::text IS NOT DISTINCT FROM e ->> '{0}'",
    time: "held.{0} IS NOT DISTINCT FROM (e ->> '{0}')::timestamptz",
}
_JSON: Final = ("traits", "metadata_public", "metadata_admin")
_SORTED: Final = """
    CASE WHEN jsonb_array_length(coalesce(e -> '{0}', '[]')) < 2 THEN coalesce(e -> '{0}', '[]')
         ELSE (SELECT jsonb_agg(a ORDER BY a ->> 'via' COLLATE "C", a ->> 'value' COLLATE "C")
               FROM jsonb_array_elements(e -> '{0}') a) END
"""
_SAME: Final = " AND ".join(
    [
        "held.deleted_at IS NULL",
        *(_SCALAR[read].format(name) for name, read in SCALARS.items()),
        _SCALAR[time].format("updated_at"),
        *(f"held.{name} IS NOT DISTINCT FROM e -> '{name}'" for name in _JSON),
        *(f"held.{name} = {_SORTED.format(name)}" for name in ADDRESSES),
        "held.unknown = e - $2::text[]",
    ]
)
# OFFSET 0: looked up by id, although the planner may believe that the table is empty.
COMPARE: Final = f"""
    WITH listed AS MATERIALIZED (
        SELECT (e ->> 'id')::uuid AS id, e FROM jsonb_array_elements($1::text::jsonb) AS page (e)
    )
    SELECT listed.id, held.id IS NOT NULL
    FROM listed LEFT JOIN LATERAL (
        SELECT * FROM kratos_sync.kratos_identities WHERE id = listed.id OFFSET 0
    ) AS held ON true
    WHERE ({_SAME}) IS NOT TRUE
""".encode()  # noqa: S608  # all of it is ours
# For a page that the database cannot read: every identity is compared in the domain.
COMPARE_NOTHING: Final = b"""
    SELECT listed.id, held.id IS NOT NULL
    FROM unnest($1::uuid[]) AS listed (id)
         LEFT JOIN LATERAL (
             SELECT id FROM kratos_sync.kratos_identities WHERE id = listed.id OFFSET 0
         ) AS held ON true
"""
PENDING: Final = b"""
    SELECT DISTINCT e.subject FROM kratos_sync.events e
    WHERE e.subject = ANY($1::uuid[])
      AND EXISTS (SELECT FROM kratos_sync.deliveries d
                  WHERE d.event_id = e.id AND d.consumer = ANY($2::text[]) OFFSET 0)
"""
COPYING_CONSUMERS: Final = [SyncKratosIdentity.name, FetchKratosIdentity.name]


class Compared(NamedTuple):
    """What a page has shown: its ``ids`` cover those after the last page, up to ``upper``.

    ``known`` of them are held here; ``differing`` are to be recorded.
    """

    ids: Sequence[UUID]
    upper: UUID
    known: int
    differing: Sequence[Differing]
    unreadable: int


def compare(
    cursor: Cursor, identities: bytes, after: UUID, at: datetime, *, is_last: bool
) -> Compared:
    """Compare a page with our rows, in the cursor's transaction.

    Raises ListingUnordered where its ids do not grow, KratosRefused where one has no id, and
    psycopg's errors.
    """
    try:
        ids = ids_of(identities)
    except msgspec.ValidationError:
        raise KratosRefused("its listing has an identity without an id") from None
    _check_order(after, ids)
    candidates = candidates_of(cursor, identities, ids)
    missing = sum(not is_held for is_held in candidates.values())
    differing: list[Differing] = []
    unreadable = 0
    if candidates:
        listed = zip(ids, documents_of(identities), strict=True)
        documents = [bytes(raw) for identity_id, raw in listed if identity_id in candidates]
        differing, unreadable = _differing(cursor, documents, candidates, at)
    upper = LAST if is_last else (ids or [after])[-1]
    return Compared(ids, upper, len(ids) - missing, differing, unreadable)


def pending_of(cursor: Cursor, ids: Sequence[UUID]) -> frozenset[UUID]:
    """Give those with events that the consumers of copies have not consumed yet."""
    if not ids:
        return frozenset()
    rows = cursor.execute(PENDING, (uuid_array(ids), COPYING_CONSUMERS)).fetchall()
    return frozenset(cast("UUID", row[0]) for row in rows)


def candidates_of(cursor: Cursor, identities: bytes, ids: Sequence[UUID]) -> dict[UUID, bool]:
    """Give the identities that may differ, and whether they are held."""
    connection = cursor.connection
    try:
        with connection.transaction():
            rows = cursor.execute(COMPARE, (identities.decode(), KNOWN_KEYS)).fetchall()
    except (psycopg.DataError, psycopg.errors.StatementTooComplex):
        with connection.transaction():
            rows = cursor.execute(COMPARE_NOTHING, (uuid_array(ids),)).fetchall()
    return dict(rows)  # type: ignore[arg-type]


def _check_order(after: UUID, ids: Sequence[UUID]) -> None:
    for identity_id in ids:
        if identity_id <= after:
            raise ListingUnordered("Kratos' listing is not in the order of ids")
        after = identity_id


def _differing(
    cursor: Cursor, documents: Sequence[bytes], candidates: Mapping[UUID, bool], at: datetime
) -> tuple[list[Differing], int]:
    held_ids = [identity_id for identity_id, is_held in candidates.items() if is_held]
    rows = cursor.execute(READ, [uuid_array(held_ids)]).fetchall()
    held = {row.id: row for row in map(from_row, rows)}
    ((now,),) = cast("list[tuple[datetime]]", cursor.execute(NOW).fetchall())
    for copy in held.values():
        copy.ignore_answers_after(now)
    later = later_webhooks(lambda query, given: cursor.execute(query, given).fetchall(), held, at)
    found: list[Differing] = []
    unreadable = 0
    for document in documents:
        try:
            identity = _identity(document)
        except (NotJson, InvalidIdentity):
            unreadable += 1
            continue
        row = held.get(identity.id)
        webhooks = later.of(identity.id)
        fields = None if row is None else row.differences(identity, at=at, later=webhooks)
        if fields != ():
            found.append(Differing(identity, row, fields))
    return found, unreadable


def _identity(raw: bytes) -> Identity:
    document = decode(raw, exactly=True).value
    if not isinstance(document, dict):
        raise InvalidIdentity("", "is not an object")
    return Identity.from_admin_api(document)
