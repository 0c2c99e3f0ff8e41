"""Deletions in PostgreSQL: requested by a function of the schema, as any application may."""

from collections.abc import Callable, Sequence
from itertools import starmap
from typing import Final
from uuid import UUID

from sqlalchemy import Connection, Engine, text

from kratos_sync.application.consumers.delete_from_kratos import DeleteFromKratos
from kratos_sync.application.ports.deletions import AwaitedConsumer, DeletionProgress
from kratos_sync.application.ports.kratos import KratosAdmin
from kratos_sync.infrastructure.erasure import request_erasure
from kratos_sync.infrastructure.ledger.snapshot import snapshot
from kratos_sync.infrastructure.postgres.engine import translate_errors
from kratos_sync.infrastructure.postgres.transaction import Transaction

REQUEST: Final = text("""
    SELECT kratos_sync.delete_identity(:identity_id, :by, :erase)
""")
PROGRESS: Final = text("""
    SELECT i.deleted_at, done.event_id IS NOT NULL,
           done.event_id IS NULL AND (d.event_id IS NULL OR d.failed_at IS NOT NULL),
           EXISTS (SELECT FROM kratos_sync.erasures
                   WHERE identity_id = request.subject AND erased_at IS NOT NULL)
    FROM kratos_sync.events request
    LEFT JOIN kratos_sync.kratos_identities i ON i.id = request.subject
    LEFT JOIN kratos_sync.deliveries d ON d.event_id = request.id AND d.consumer = :last
    LEFT JOIN LATERAL (
        SELECT event_id FROM kratos_sync.attempts
        WHERE event_id = request.id AND consumer = :last AND outcome = 'succeeded' LIMIT 1
    ) done ON true
    WHERE request.id = :request
""")
# Through events: deliveries have no index by subject. OFFSET 0: by their index, although the
# planner may believe that there are none.
_AWAITED: Final = """
    SELECT d.consumer, count(*), count(d.failed_at)
    FROM kratos_sync.events e CROSS JOIN LATERAL (
        SELECT consumer, failed_at FROM kratos_sync.deliveries WHERE event_id = e.id OFFSET 0
    ) d
    WHERE e.subject = {} AND d.consumer <> {}
    GROUP BY d.consumer ORDER BY d.consumer
"""
AWAITED: Final = _AWAITED.format("$1::uuid", "$2")
AWAITED_BY_REQUEST: Final = text(
    _AWAITED.format("(SELECT subject FROM kratos_sync.events WHERE id = :request)", ":last")
)


def request_deletion(
    connection: Connection, identity_id: UUID, *, by: str | None = None, erase: bool = False
) -> UUID:
    """Have an identity deleted if the connection's transaction commits, like an outbox.

    Gives the request's event id. Raises sqlalchemy.exc.DBAPIError for the nil UUID.
    """
    parameters = {"identity_id": identity_id, "by": by, "erase": erase}
    request: UUID = connection.execute(REQUEST, parameters).scalar_one()
    return request


class PostgresDeletions:
    """The Deletions port."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def request(self, identity_id: UUID, *, by: str | None = None, erase: bool = False) -> UUID:
        with translate_errors(), self._engine.begin() as connection:
            return request_deletion(connection, identity_id, by=by, erase=erase)

    def progress(self, request: UUID) -> DeletionProgress:
        parameters = {"request": request, "last": DeleteFromKratos.name}
        with snapshot(self._engine) as connection:
            row = connection.execute(PROGRESS, parameters).one()
            awaited = tuple(
                AwaitedConsumer(*row) for row in connection.execute(AWAITED_BY_REQUEST, parameters)
            )
        deleted_at, is_done, has_failed, is_erased = row
        return DeletionProgress(deleted_at, awaited, is_done, has_failed, is_erased)


class PostgresDeletionFinalizer:
    """The DeletionFinalizer port; ``kratos`` gives the Admin API, or raises KratosNotConfigured."""

    def __init__(self, transaction: Transaction, kratos: Callable[[], KratosAdmin]) -> None:
        self._transaction = transaction
        self._kratos = kratos

    def awaited(self, identity_id: UUID, besides: str) -> Sequence[AwaitedConsumer]:
        return list(
            starmap(
                AwaitedConsumer,
                self._transaction.fetch(AWAITED, (identity_id, besides)),
            )
        )

    def delete_from_kratos(self, identity_id: UUID) -> bool:
        return self._kratos().delete(identity_id)

    def request_erasure(self, identity_id: UUID, by: str, reason: str) -> None:
        request_erasure(self._transaction, identity_id, by, reason)
