"""When Kratos was asked about whom: `kratos_sync.kratos_answers`."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from infrastructure.binary_arrays import (
    TIMESTAMPTZ_OID,
    UUID_OID,
    BinaryParameter,
    array,
    time_field,
    uuid_field,
)

# In the order of ids: two transactions that tell of the same people cannot deadlock.
NOTE: Final = """
    INSERT INTO kratos_sync.kratos_answers AS answer (identity_id, asked_at)
    SELECT * FROM unnest($1::uuid[], $2::timestamptz[])
    ON CONFLICT (identity_id) DO UPDATE
    SET asked_at = greatest(answer.asked_at, excluded.asked_at)
"""

# An answer from the future was asked for before a clock was set back: who knows what is later.
# Of whom we were told to forget we do not want to hear.
ANSWERED: Final = """
    SELECT d.event_id
    FROM kratos_sync.kratos_answers answer
    JOIN kratos_sync.deliveries d ON d.subject = answer.identity_id
    WHERE answer.identity_id = ANY($1::uuid[]) AND answer.asked_at <= clock_timestamp()
      AND d.consumer = $2 AND d.event_id = ANY($3::uuid[]) AND d.owed_at < answer.asked_at
    UNION
    SELECT d.event_id
    FROM kratos_sync.kratos_identities identity
    JOIN kratos_sync.deliveries d ON d.subject = identity.id
    WHERE identity.id = ANY($1::uuid[]) AND identity.forgotten_at IS NOT NULL
      AND d.consumer = $2 AND d.event_id = ANY($3::uuid[])
"""

# Only of whom we hold nothing: of the others it means nothing, and may be long to look for.
FIRST_HEARD: Final = """
    SELECT who.id, (SELECT min(occurred_at) FROM kratos_sync.events
                    WHERE subject = who.id AND name = 'kratos_identity.hinted')
    FROM unnest($1::uuid[]) AS who (id)
    WHERE NOT EXISTS (SELECT FROM kratos_sync.kratos_identities identity WHERE identity.id = who.id)
"""

NOW: Final = "SELECT clock_timestamp()"


def note_parameters(asked_at: Mapping[UUID, datetime]) -> Sequence[BinaryParameter]:
    """The parameters of NOTE; there must be somebody."""
    rows = sorted(asked_at.items())
    return [
        array(UUID_OID, [uuid_field(identity_id) for identity_id, _ in rows]),
        array(TIMESTAMPTZ_OID, [time_field(at) for _, at in rows]),
    ]
