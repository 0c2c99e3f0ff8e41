"""Who may remove events while whom: a lock in the database, for one transaction.

Held no longer than that: behind a pooler the next transaction may be on another connection, and a
session's lock would be left on the one before.
"""

from typing import Final

from sqlalchemy import Connection, text

# Any number does, as long as nothing else in the database takes advisory locks on it.
PURGE_LOCK: Final = 5_720_684_118

LOCK: Final = text("SELECT pg_advisory_xact_lock(:key)")
LOCK_SHARED: Final = text("SELECT pg_advisory_xact_lock_shared(:key)")


def lock_purges(connection: Connection) -> None:
    """Let nobody else purge until this transaction ends, nor owe anything that was recorded before.

    What the next statement sees is then all that is owed. Waits for those who hold it, for the
    length of a step; raises sqlalchemy.exc.OperationalError when they take too long.
    """
    connection.execute(LOCK, {"key": PURGE_LOCK})


def hold_off_purges(connection: Connection) -> None:
    """Let nobody purge until this transaction ends; call it first, before owing old events again.

    Else one may be removed between being read and being owed. Waits and raises as above.
    """
    connection.execute(LOCK_SHARED, {"key": PURGE_LOCK})
