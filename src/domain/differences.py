"""Which fields our copy and what Kratos says have different."""

from collections.abc import Iterable
from copy import copy
from datetime import datetime
from typing import Final
from uuid import UUID

from domain.identity import Identity
from domain.kratos_identity import KratosIdentity
from domain.recorded_webhooks import ReceivedWebhook

_NOBODY: Final = UUID(int=0)
_OURS: Final = frozenset(
    {"synced_at", "version", "part_recency", "exact_at", "exact_numbers", "seen_alive_at"}
)
"""Fields that tell of what was heard, and not of the identity."""


def differences(
    held: KratosIdentity, identity: Identity, at: datetime, later: Iterable[ReceivedWebhook] = ()
) -> tuple[str, ...]:
    """Name the fields of the identity that change when our copy hears this; `held` stays as it is.

    `at` and `later` are as in `KratosIdentity.update`. Only `deleted_at`, where we hold it as
    deleted and hearing this would bring it back.
    """
    hearing = copy(held)
    hearing.update(identity, at=at, cause=_NOBODY, later=later)
    if hearing.deleted_at != held.deleted_at:
        return ("deleted_at",)
    return tuple(sorted(hearing.changed - held.changed - _OURS))
