"""Which identities of a page differ from our rows: the database compares, and tells only those."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple, cast
from uuid import UUID

import msgspec
import psycopg
from sqlalchemy import Connection, text

from kratos_sync.application.consumers.fetch_kratos_identity import FetchKratosIdentity
from kratos_sync.application.consumers.sync_kratos_identity import SyncKratosIdentity
from kratos_sync.application.json_body import NotJson, decode
from kratos_sync.application.missed_webhooks import ON_ITS_WAY, missing, stale
from kratos_sync.application.ports.kratos import KratosRefused
from kratos_sync.application.ports.reconciliation import Difference, ListingUnordered
from kratos_sync.domain.identity import KEYS, Identity, InvalidIdentity
from kratos_sync.domain.json_values import Json
from kratos_sync.domain.kratos_identity import KratosIdentity
from kratos_sync.infrastructure.identities.recorded_webhooks import AFTER, NOW, by_identity
from kratos_sync.infrastructure.identities.rows import READ, from_row
from kratos_sync.infrastructure.postgres.binary_arrays import uuid_array

FIRST: Final = UUID(int=0)
LAST: Final = UUID(int=2**128 - 1)
KNOWN_KEYS: Final = sorted(KEYS)

# Equal as JSON, as times and as sets of addresses, which we keep in this order: so equal for the
# domain too. The other way round it need not be; what is found here is looked at once more there.
_SAME: Final = """
    held.deleted_at IS NULL
    AND held.schema_id IS NOT DISTINCT FROM e ->> 'schema_id'
    AND held.schema_url IS NOT DISTINCT FROM e ->> 'schema_url'
    AND held.state IS NOT DISTINCT FROM e ->> 'state'
    AND held.external_id IS NOT DISTINCT FROM e ->> 'external_id'
    AND held.region IS NOT DISTINCT FROM e ->> 'region'
    AND held.organization_id::text IS NOT DISTINCT FROM e ->> 'organization_id'
    AND held.updated_at IS NOT DISTINCT FROM (e ->> 'updated_at')::timestamptz
    AND held.created_at IS NOT DISTINCT FROM (e ->> 'created_at')::timestamptz
    AND held.state_changed_at IS NOT DISTINCT FROM (e ->> 'state_changed_at')::timestamptz
    AND held.traits IS NOT DISTINCT FROM e -> 'traits'
    AND held.metadata_public IS NOT DISTINCT FROM e -> 'metadata_public'
    AND held.metadata_admin IS NOT DISTINCT FROM e -> 'metadata_admin'
    AND held.verifiable_addresses = {verifiable}
    AND held.recovery_addresses = {recovery}
    AND held.unknown = e - $2::text[]
"""
_ADDRESSES: Final = """
    CASE WHEN jsonb_array_length(coalesce(e -> '{0}', '[]')) < 2 THEN coalesce(e -> '{0}', '[]')
         ELSE (SELECT jsonb_agg(a ORDER BY a ->> 'via' COLLATE "C", a ->> 'value' COLLATE "C")
               FROM jsonb_array_elements(e -> '{0}') a) END
"""
COMPARE: Final = """
    WITH listed AS MATERIALIZED (
        SELECT (e ->> 'id')::uuid AS id, e FROM jsonb_array_elements($1::text::jsonb) AS page (e)
    )
    SELECT listed.id, held.id IS NOT NULL
    FROM listed LEFT JOIN kratos_sync.kratos_identities AS held ON held.id = listed.id
    WHERE ({same}) IS NOT TRUE
""".format(  # noqa: S608  # all of it is ours
    same=_SAME.format(
        verifiable=_ADDRESSES.format("verifiable_addresses"),
        recovery=_ADDRESSES.format("recovery_addresses"),
    )
).encode()
# For a page with somebody whom the database cannot read: all are looked at in the domain.
COMPARE_NOTHING: Final = b"""
    SELECT listed.id, held.id IS NOT NULL
    FROM unnest($1::uuid[]) AS listed (id)
         LEFT JOIN kratos_sync.kratos_identities AS held ON held.id = listed.id
"""


class _Listed(msgspec.Struct, gc=False):
    id: UUID


_read_ids = msgspec.json.Decoder(list[_Listed]).decode
_read_id = msgspec.json.Decoder(_Listed).decode
# One by one: a person whom nobody can read keeps nobody else from being read.
_read_documents = msgspec.json.Decoder(list[msgspec.Raw]).decode


class Differing(NamedTuple):
    """Somebody to be told of, and how we hold them, if we do."""

    identity: Identity
    difference: Difference
    held: KratosIdentity | None


class Compared(NamedTuple):
    """What a page has shown: its ``ids`` belong after that of the last page, up to ``upper``.

    ``known`` of them are held here. Of the ``differing`` consumers have to hear.
    """

    ids: Sequence[UUID]
    upper: UUID
    known: int
    differing: Sequence[Differing]
    unreadable: int


def compare(
    cursor: "psycopg.RawCursor[tuple[object, ...]]",
    identities: bytes,
    after: UUID,
    at: datetime,
    *,
    is_last: bool,
) -> Compared:
    """Compare a page with our rows, in the cursor's transaction.

    Raises ListingUnordered where its ids do not grow, KratosRefused where it has none, and
    psycopg's errors.
    """
    try:
        ids = [each.id for each in _read_ids(identities)]
    except msgspec.ValidationError:
        raise KratosRefused("its listing has somebody without an id") from None
    _check_order(after, ids, is_last=is_last)
    suspected = suspects(cursor, identities, ids)
    missing = sum(not held for held in suspected.values())
    differing, unreadable = _differing(cursor, identities, suspected, at) if suspected else ([], 0)
    upper = LAST if is_last else ids[-1]
    return Compared(ids, upper, len(ids) - missing, differing, unreadable)


def _check_order(after: UUID, ids: Sequence[UUID], *, is_last: bool) -> None:
    if not ids and not is_last:
        raise ListingUnordered("Kratos' listing goes on after a page without anybody")
    for identity_id in ids:
        if identity_id <= after:
            raise ListingUnordered("Kratos' listing is not in the order of ids")
        after = identity_id


def suspects(
    cursor: "psycopg.RawCursor[tuple[object, ...]]", identities: bytes, ids: Sequence[UUID]
) -> dict[UUID, bool]:
    """Give who may differ, and whether we hold them."""
    connection = cursor.connection
    try:
        with connection.transaction():
            rows = cursor.execute(COMPARE, (identities.decode(), KNOWN_KEYS)).fetchall()
    except (psycopg.DataError, psycopg.errors.StatementTooComplex):
        with connection.transaction():
            rows = cursor.execute(COMPARE_NOTHING, (uuid_array(ids),)).fetchall()
    return dict(rows)  # type: ignore[arg-type]


def _differing(
    cursor: "psycopg.RawCursor[tuple[object, ...]]",
    identities: bytes,
    suspected: Mapping[UUID, bool],
    at: datetime,
) -> tuple[list[Differing], int]:
    known = uuid_array(identity_id for identity_id, held in suspected.items() if held)
    held = {row.id: row for row in map(from_row, cursor.execute(READ, [known]).fetchall())}
    ((now,),) = cast("list[tuple[datetime]]", cursor.execute(NOW).fetchall())
    for copy in held.values():
        copy.ignore_answers_after(now)
    later = by_identity(cursor.execute(AFTER, [known, at]).fetchall()) if held else {}
    found: list[Differing] = []
    unreadable = 0
    for raw in _read_documents(identities):
        if _read_id(raw).id not in suspected:
            continue
        try:
            identity = _identity(decode(bytes(raw), exactly=True).value)
        except (NotJson, InvalidIdentity):
            unreadable += 1
            continue
        row = held.get(identity.id)
        since = later.get(identity.id, ())
        fields = None if row is None else row.differences(identity, at=at, later=since)
        if fields is None or fields:
            found.append(Differing(identity, Difference(identity.id, fields), row))
    return found, unreadable


def _identity(document: Json) -> Identity:
    if not isinstance(document, dict):
        raise InvalidIdentity("", "is not an object")
    return Identity.from_admin_api(document)


BYTES_PER_ID: Final = 16

_IN_STRETCH: Final = """
    FROM kratos_sync.kratos_identities
    WHERE id > :after AND id <= :upper AND id <> ALL (CAST(:listed AS uuid[]))
      AND deleted_at IS NULL AND coalesce(created_at, synced_at) < :began
"""
KEEP: Final = text("INSERT INTO kratos_sync.unseen_identities SELECT :run, id" + _IN_STRETCH)
LIST: Final = text(
    "SELECT coalesce(string_agg(uuid_send(id), ''::bytea ORDER BY id), ''::bytea)" + _IN_STRETCH
)
SOME: Final = text("""
    SELECT identity_id FROM kratos_sync.unseen_identities
    WHERE reconciliation = :run ORDER BY identity_id LIMIT :most
""")
SETTLE: Final = text("""
    DELETE FROM kratos_sync.unseen_identities
    WHERE reconciliation = :run AND identity_id = ANY(CAST(:ids AS uuid[]))
""")


class Stretch(NamedTuple):
    """The ids after one and up to another, of which these were listed by a scan that began then."""

    after: UUID
    upper: UUID
    listed: Sequence[UUID]
    began: datetime


def keep(connection: Connection, run_id: int, stretch: Stretch) -> int:
    """Keep who was alive before the scan began and is not listed; give how many they are."""
    return connection.execute(KEEP, {"run": run_id, **_parameters(stretch)}).rowcount


def ids(connection: Connection, stretch: Stretch) -> bytes:
    """Give the same as ids of 16 bytes each: a million take no more room than that."""
    found: bytes = connection.execute(LIST, _parameters(stretch)).scalar_one()
    return found


def some(connection: Connection, run_id: int, most: int) -> list[UUID]:
    """Give some of those that were kept, in the order of their ids."""
    return list(connection.execute(SOME, {"run": run_id, "most": most}).scalars())


def settle(connection: Connection, run_id: int, ids: Sequence[UUID]) -> None:
    """Keep these no longer."""
    connection.execute(SETTLE, {"run": run_id, "ids": uuid_array(ids)})


def _parameters(stretch: Stretch) -> dict[str, object]:
    return {**stretch._asdict(), "listed": uuid_array(stretch.listed)}


KEEPERS: Final = [SyncKratosIdentity.name, FetchKratosIdentity.name]
ON_THEIR_WAY: Final = b"""
    SELECT DISTINCT e.subject FROM kratos_sync.events e
    JOIN kratos_sync.deliveries d ON d.event_id = e.id AND d.consumer = ANY($2::text[])
    WHERE e.subject = ANY($1::uuid[])
"""


class MissedWebhookCount:
    """Counts, as `application.missed_webhooks` tells, what is missed of those that may differ."""

    def __init__(
        self,
        cursor: "psycopg.RawCursor[tuple[object, ...]]",
        ids: Collection[UUID],
        before: datetime | None,
    ) -> None:
        """Look up for whom something was heard that is not consumed yet."""
        self.counts: Counter[str] = Counter()
        self._before = before
        self._on_their_way: frozenset[object] = frozenset()
        if ids:
            rows = cursor.execute(ON_THEIR_WAY, (uuid_array(ids), KEEPERS)).fetchall()
            self._on_their_way = frozenset(row[0] for row in rows)

    def add(
        self, identity: Identity, held: KratosIdentity | None, fields: Collection[str] | None
    ) -> None:
        """Count one that is missing (no fields), or differs in these."""
        if identity.id in self._on_their_way:
            self.counts[ON_ITS_WAY] += 1
        elif held is None or fields is None:
            self.counts.update(missing(identity, self._before))
        else:
            self.counts.update(stale(held, identity, fields))
