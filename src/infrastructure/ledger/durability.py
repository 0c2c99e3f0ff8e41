"""What of the server's configuration lets it lose what it has committed."""

from typing import Final

from sqlalchemy import Connection, text

# An ordinary role sees that somebody replicates, and not in which state: a backup counts then too.
UNSAFE: Final = text("""
    SELECT risk.name
    FROM (VALUES ('fsync', current_setting('fsync') = 'off'),
                 ('full_page_writes', current_setting('full_page_writes') = 'off'),
                 ('asynchronous_standby',
                  current_setting('synchronous_standby_names') = ''
                  AND EXISTS (SELECT FROM pg_stat_replication
                              WHERE state IS DISTINCT FROM 'backup'))) AS risk (name, applies)
    WHERE risk.applies
""")


def unsafe_settings(connection: Connection) -> tuple[str, ...]:
    """Name what is unsafe, as `StatusReport` does."""
    return tuple(connection.execute(UNSAFE).scalars())
