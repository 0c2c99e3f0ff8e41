"""What must hold in every session, whatever the default of database, role or environment.

`search_path` is not among it: it is the application's, and whatever of ours a statement names is
qualified.
"""

from datetime import timedelta
from typing import Final

# Longer than any statement of ours needs; a transaction may set a tighter one of its own.
STATEMENT_TIMEOUT = timedelta(seconds=30)
# A transaction that waits for a lock this long is better begun anew.
LOCK_TIMEOUT = timedelta(seconds=10)


def milliseconds(duration: timedelta) -> int:
    """Give a duration as PostgreSQL's settings take it."""
    return round(duration / timedelta(milliseconds=1))


SETTINGS: Final = {
    # What was committed, and answered, is on disk: also on that of a synchronous standby.
    "synchronous_commit": "on",
    # Who waited for a lock has to see what it waited for.
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
    "lock_timeout": str(milliseconds(LOCK_TIMEOUT)),
    "idle_in_transaction_session_timeout": str(milliseconds(2 * STATEMENT_TIMEOUT)),
    # How values are written and read.
    "timezone": "UTC",
    "datestyle": "ISO, MDY",
    "intervalstyle": "postgres",
    "array_nulls": "on",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "standard_conforming_strings": "on",
    "transform_null_equals": "off",
    # Without sequential scans: a plan from when a table was empty, or statistics from before a
    # burst, would have every batch read the whole of it. What we ask has an index.
    "enable_seqscan": "off",
}
_SINCE: Final = {"idle_session_timeout": 140_000, "transaction_timeout": 170_000}
"""Limits that none of our sessions has, and the version that brought each."""


def options(statement_timeout: timedelta) -> str:
    """Give the settings as libpq's connection option of that name."""
    return " ".join(
        "-c {}={}".format(name, value.replace(" ", r"\ "))
        for name, value in _with(statement_timeout).items()
    )


def pin_session(statement_timeout: timedelta, server_version: int) -> str:
    """Give a statement that sets all of it for the session, and tells whether it did.

    It does not where the process behind the session is not `$1`, the one that answered when we
    connected: a pooler shares sessions then. What was set would be left to others.
    """
    return f"""
        SELECT CASE WHEN pg_backend_pid() = $1
               THEN {_set_all(statement_timeout, server_version, local=False)} END IS NOT NULL
    """


def pin_transaction(statement_timeout: timedelta, server_version: int) -> str:
    """Give a statement that sets all of it until the transaction ends."""
    return f"SELECT {_set_all(statement_timeout, server_version, local=True)}"


def _with(statement_timeout: timedelta) -> dict[str, str]:
    return {"statement_timeout": str(milliseconds(statement_timeout)), **SETTINGS}


def _set_all(statement_timeout: timedelta, server_version: int, *, local: bool) -> str:
    new = {name: "0" for name, since in _SINCE.items() if server_version >= since}
    settings = {"client_encoding": "UTF8", **_with(statement_timeout), **new}
    return " || ".join(
        f"set_config('{name}', '{value}', {str(local).lower()})" for name, value in settings.items()
    )
