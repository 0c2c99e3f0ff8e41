"""For an application's own code: "I have just changed this identity in Kratos"."""

from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg.rows import scalar_row
from sqlalchemy import Connection, text
from sqlalchemy.orm import Session

HINT: Final = "SELECT kratos_sync.identity_changed(CAST({} AS uuid))"
_BY_NAME: Final = text(HINT.format(":identity_id"))


def identity_changed(
    connection: Connection | Session | psycopg.Connection[Any], identity_id: UUID
) -> UUID:
    """Have Kratos asked what the identity is now, if the connection's transaction commits.

    Call it after the change in Kratos, in the transaction that holds what the application itself
    writes of it. A deletion is a change too. Gives the id of the event. Raises the driver's error
    for an id of all zeros, and for a role that may not execute `kratos_sync.identity_changed`.
    """
    if isinstance(connection, psycopg.Connection):
        with connection.cursor(row_factory=scalar_row) as cursor:
            row = cursor.execute(HINT.format("%s"), [str(identity_id)]).fetchone()
    else:
        row = connection.execute(_BY_NAME, {"identity_id": str(identity_id)}).scalar_one()
    return UUID(str(row))
