"""That somebody is to be erased, or was: the row that stays."""

from typing import Final
from uuid import UUID

from sqlalchemy import Connection, text

from application.ports.erasures import Erasure
from infrastructure.transaction import Transaction

# Asked for once more, it is looked at once more, and keeps who asked first and why.
WISH: Final = """
    INSERT INTO kratos_sync.erasures (identity_id, by, reason) VALUES ($1, $2, $3)
    ON CONFLICT (identity_id) DO UPDATE SET look_at = clock_timestamp()
"""
ERASURE: Final = text("""
    SELECT asked_at, erased_at, by, reason FROM kratos_sync.erasures WHERE identity_id = :person
""")


def note_wish(transaction: Transaction, identity_id: UUID, by: str, reason: str) -> None:
    """Have a relay look at what there is of the person, from this transaction's commit on."""
    transaction.run(WISH, (identity_id, _storable(by), _storable(reason)))


def erasure_of(connection: Connection, identity_id: UUID) -> Erasure | None:
    """Give a person's erasure, if there is one."""
    row = connection.execute(ERASURE, {"person": identity_id}).one_or_none()
    return None if row is None else Erasure(*row)


def _storable(said: str) -> str:
    # What a terminal sent need not be UTF-8, and PostgreSQL takes nothing else.
    escaped = said.encode(errors="backslashreplace").decode()
    return escaped.replace("\x00", "\N{REPLACEMENT CHARACTER}")
