"""Whom we hold and no page showed: however many they are, they stay in the database."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, text

from infrastructure.binary_arrays import uuid_array

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
