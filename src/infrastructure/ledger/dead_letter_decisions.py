"""Retrying and discarding dead letters, a few thousand in a transaction."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from sqlalchemy import Engine, text

from application.ports.dead_letters import DeadLetterFilter
from infrastructure.database import errors_in_our_words
from infrastructure.ledger.dead_letter_filter import filled
from infrastructure.ledger.steps import BY_THE_INDEX

# From one name to the next by the index, however many rows each has.
CONSUMERS: Final = text("""
    WITH RECURSIVE named AS (
        (SELECT consumer FROM kratos_sync.deliveries WHERE failed_at IS NOT NULL
         ORDER BY consumer LIMIT 1)
        UNION ALL
        SELECT (SELECT d.consumer FROM kratos_sync.deliveries d
                WHERE d.failed_at IS NOT NULL AND d.consumer > named.consumer
                ORDER BY d.consumer LIMIT 1)
        FROM named WHERE named.consumer IS NOT NULL
    )
    SELECT consumer FROM named WHERE consumer IS NOT NULL
""")

# In the order of the index, and each step after the one before: so none reads again what was done,
# nor what somebody holds. Found by ctid, as a claim's rows are.
_PICKED: Final = """
    WITH picked AS MATERIALIZED (
        SELECT d.ctid, d.attempts, d.failed_at, d.event_id FROM kratos_sync.deliveries d
        WHERE {conditions} AND (d.failed_at, d.event_id) > (:after, :after_id)
        ORDER BY d.failed_at, d.event_id
        LIMIT :step
        FOR UPDATE OF d SKIP LOCKED
    ), done AS (
"""
_LOGGED: Final = """
    ), logged AS (
        INSERT INTO kratos_sync.attempts
               (event_id, consumer, number, outcome, started_at, duration, error)
        SELECT event_id, :consumer, attempts, :outcome, now(), '0', :said FROM done
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM logged), failed_at, event_id
    FROM picked ORDER BY failed_at DESC, event_id DESC LIMIT 1
"""
RETRY: Final = f"""
    {_PICKED}
        UPDATE kratos_sync.deliveries d
        SET failed_at = NULL, attempts = 0, owed_at = clock_timestamp(),
            due_at = clock_timestamp(), leased = false
        FROM picked WHERE d.ctid = picked.ctid
        RETURNING d.event_id, picked.attempts
    {_LOGGED}
"""  # noqa: S608  # every part is ours
DISCARD: Final = f"""
    {_PICKED}
        DELETE FROM kratos_sync.deliveries
        WHERE ctid = ANY(ARRAY(SELECT ctid FROM picked))
        RETURNING event_id, attempts
    {_LOGGED}
"""  # noqa: S608  # every part is ours
BEFORE_ALL: Final = (datetime.min.replace(tzinfo=UTC), UUID(int=0))


class PostgresDeadLetterDecisions:
    """The port of that name."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def retry(self, wanted: DeadLetterFilter, by: str, step: int) -> Iterator[int]:
        """Retry them; each is owed since now, so that its time as a dead letter is no lag."""
        return self._decide(RETRY, "retried", f"Retried by {by}", wanted, step)

    def discard(self, wanted: DeadLetterFilter, by: str, reason: str, step: int) -> Iterator[int]:
        """Discard them, in the statements that log who and why."""
        return self._decide(DISCARD, "discarded", f"Discarded by {by}: {reason}", wanted, step)

    def _decide(
        self, statement: str, outcome: str, said: str, wanted: DeadLetterFilter, step: int
    ) -> Iterator[int]:
        # What a terminal sent need not be UTF-8, and PostgreSQL takes nothing else.
        said = said.encode(errors="backslashreplace").decode()
        for consumer in [wanted.consumer] if wanted.consumer else self._consumers():
            of_one, parameters = filled(statement, replace(wanted, consumer=consumer))
            fixed = {**parameters, "outcome": outcome, "said": said, "step": step}
            position = BEFORE_ALL
            while True:
                after = {"after": position[0], "after_id": position[1]}
                with errors_in_our_words(), self._engine.begin() as connection:
                    if wanted.event_id is None:
                        connection.execute(BY_THE_INDEX)
                    row = connection.execute(of_one, {**fixed, **after}).one_or_none()
                if row is None:
                    break
                done, *place = row
                position = (place[0], place[1])
                yield done

    def _consumers(self) -> list[str]:
        with errors_in_our_words(), self._engine.connect() as connection:
            return list(connection.execute(CONSUMERS).scalars())
