"""The log of Kratos' hooks: counting calls from an event loop, and reading the counts."""

import asyncio
import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import psycopg
from pydantic import SecretStr
from sqlalchemy import Connection, text

from kratos_sync.application.ports.event_bus import LedgerUnavailable
from kratos_sync.application.ports.hook_log import MOST_LABELS, Calls, HookActivity
from kratos_sync.domain.events import NO_IDENTITY, KratosTemplateFailed
from kratos_sync.infrastructure.postgres.connections import connection_arguments
from kratos_sync.infrastructure.postgres.engine import readable
from kratos_sync.infrastructure.postgres.loop_connection import LastingConnection

STATEMENT_TIMEOUT: Final = timedelta(seconds=2)
NOTE_SECONDS: Final = 5.0

# In the order of labels, so that two processes cannot deadlock.
NOTE: Final = f"""
    INSERT INTO kratos_sync.hooks_heard AS hook (label, first_at, last_at, calls)
    SELECT label, at, at, calls FROM (
        SELECT label, clock_timestamp() - make_interval(secs => call.ago) AS at, call.calls,
               known.label IS NOT NULL AS is_known,
               row_number() OVER (PARTITION BY known.label IS NULL ORDER BY label) AS place
        FROM json_to_recordset($1) AS call (label text, calls bigint, ago float8)
             LEFT JOIN kratos_sync.hooks_heard AS known USING (label)
    ) AS call
    WHERE is_known OR place <= {MOST_LABELS} - (SELECT count(*) FROM kratos_sync.hooks_heard)
    ORDER BY label
    ON CONFLICT (label) DO UPDATE
    SET last_at = greatest(least(hook.last_at, clock_timestamp()), excluded.last_at),
        calls = hook.calls + excluded.calls
""".encode()  # noqa: S608  # the number is ours

ACTIVITY: Final = text(f"""
    SELECT label, {readable("first_at")}, {readable("last_at")}, calls
    FROM kratos_sync.hooks_heard ORDER BY label
""")  # noqa: S608  # all of it is ours


class PostgresHookLog:
    """The HookLog port."""

    def __init__(self, database_url: SecretStr) -> None:
        arguments = connection_arguments(database_url, STATEMENT_TIMEOUT)
        self._connection = LastingConnection(arguments)

    async def note(self, calls: Sequence[Calls]) -> None:
        rows = [
            {"label": each.label, "calls": each.number, "ago": each.ago.total_seconds()}
            for each in calls
        ]
        parameters = [json.dumps(rows).encode()]
        try:
            async with asyncio.timeout(NOTE_SECONDS):
                await self._connection.ask(lambda libpq: libpq.send_query_params(NOTE, parameters))
        except (psycopg.Error, TimeoutError) as error:
            raise LedgerUnavailable("PostgreSQL did not add up the calls of hooks") from error

    async def stop(self) -> None:
        """Disconnect."""
        await self._connection.close()


def hook_activity(connection: Connection) -> tuple[HookActivity, ...]:
    """When each hook called, in the order of labels."""
    return tuple(HookActivity(*row) for row in connection.execute(ACTIVITY))


# Found by the index on subject, however many other events there are. A time in the future was
# written by a clock that was ahead, and does not count.
TEMPLATE_FAILURES: Final = text("""
    SELECT coalesce(payload ->> 'hook', ''), min(recorded_at), max(recorded_at), count(*)
    FROM kratos_sync.events
    WHERE subject = :nobody AND name = :name AND recorded_at > coalesce(
        (SELECT max(started_at) FROM kratos_sync.reconciliations
         WHERE outcome = 'completed' AND started_at <= clock_timestamp()),
        '-infinity')
    GROUP BY 1 ORDER BY 1 LIMIT :most
""").bindparams(nobody=NO_IDENTITY, name=KratosTemplateFailed.name, most=MOST_LABELS)


def template_failures(connection: Connection) -> tuple[HookActivity, ...]:
    """Template failures by hook, in the order of labels."""
    return tuple(HookActivity(*row) for row in connection.execute(TEMPLATE_FAILURES))
