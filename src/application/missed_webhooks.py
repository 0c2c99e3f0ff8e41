"""Which webhook a difference found by a reconciliation should have come with, and silent hooks.

Kratos calls webhooks in five flows only, and never for an administrator. Verification, recovery and
login with a code mark an address; settings change traits, and so may an administrator.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

from kratos_sync.application.ports.hook_log import HookActivity
from kratos_sync.domain.addresses import VerifiableAddress
from kratos_sync.domain.identity import Identity
from kratos_sync.domain.json_values import ABSENT, Absent, same_as_doubles
from kratos_sync.domain.kratos_identity import KratosIdentity
from kratos_sync.domain.merging import OLDEST

REGISTRATION: Final = "registration"
"""Created since the run before, and not here: a registration, or an administrator."""
SETTINGS: Final = "settings"
"""Other traits or addresses: a settings flow, or an administrator."""
VERIFICATION: Final = "verification"
"""An address verified only in Kratos: a verification, a recovery or a login with a code."""
LOGIN: Final = "login"
"""Nothing but `updated_at`: a login that renewed something, or a change of credentials."""
ON_ITS_WAY: Final = "on_its_way"
"""A webhook was received, and its delivery is pending."""
OLD: Final = "old"
"""Created before the run before, or before the first: no webhook ever came."""
ADMIN: Final = "admin"
"""Fields that administrators change, and seldom anyone else."""
NOT_IN_WEBHOOKS: Final = "untold"
"""What no webhook carries: `metadata_admin`, large integers, that a mail was sent, that there are
no addresses."""
NEWER: Final = "newer"
"""Changed later here than in Kratos, or verified here alone: a clock is wrong, Kratos was restored
from a backup, or a call was forged."""
REVIVED: Final = "revived"
"""Deleted here, and existing in Kratos."""
OTHER: Final = "other"

HOOKS: Final = (REGISTRATION, SETTINGS, VERIFICATION, LOGIN)
"""The kinds of difference for which a webhook was missed."""

_ADMIN_FIELDS: Final = frozenset(
    {"state", "state_changed_at", "external_id", "organization_id", "schema_id"}
)


class Differing(NamedTuple):
    """A listed identity that differs in ``fields`` from what is held; both None if none is."""

    identity: Identity
    held: KratosIdentity | None
    fields: tuple[str, ...] | None


def classify(
    differing: Iterable[Differing], pending: Collection[UUID], before: datetime | None
) -> Counter[str]:
    """Count the differences by the webhook that was missed.

    ``pending`` are identities with events that are not consumed yet; ``before`` is when the last
    completed run began, None if there was none.
    """
    counts = Counter[str]()
    for identity, held, fields in differing:
        if identity.id in pending:
            counts[ON_ITS_WAY] += 1
        elif held is None or fields is None:
            counts[if_missing(identity, before)] += 1
        else:
            counts.update(if_stale(held, identity, fields))
    return counts


def if_missing(identity: Identity, before: datetime | None) -> str:
    """Give the webhook that was missed of an identity that is not held at all."""
    created = identity.created_at
    is_new = isinstance(created, datetime) and before is not None and created > before
    return REGISTRATION if is_new else OLD


def if_stale(held: KratosIdentity, identity: Identity, fields: Collection[str]) -> tuple[str, ...]:
    """Give the webhooks that were missed of one that differs in these fields, each once."""
    if "deleted_at" in fields:
        return (REVIVED,)
    if "updated_at" in fields and _is_newer(held, identity):
        return (NEWER,)
    kinds = tuple(dict.fromkeys(_kinds(held, identity, fields)))
    return kinds or ((LOGIN,) if "updated_at" in fields else (OTHER,))


def _kinds(held: KratosIdentity, identity: Identity, fields: Collection[str]) -> Iterator[str]:
    for name in fields:
        if name == "traits":
            yield NOT_IN_WEBHOOKS if same_as_doubles(held.traits, identity.traits) else SETTINGS
        elif name == "recovery_addresses":
            yield SETTINGS if _is_some(identity.recovery_addresses) else NOT_IN_WEBHOOKS
        elif name == "verifiable_addresses":
            yield _address(held.verifiable_addresses, identity.verifiable_addresses)
        elif name == "metadata_admin":
            yield NOT_IN_WEBHOOKS
        elif name == "metadata_public":
            rounded = same_as_doubles(held.metadata_public, identity.metadata_public)
            yield NOT_IN_WEBHOOKS if rounded else ADMIN
        elif name in _ADMIN_FIELDS:
            yield ADMIN
        elif name != "updated_at":
            yield OTHER


def _is_newer(held: KratosIdentity, identity: Identity) -> bool:
    listed = identity.updated_at
    return held.updated_at is not None and isinstance(listed, datetime) and held.updated_at > listed


def _address(
    held: tuple[VerifiableAddress, ...] | Absent, listed: tuple[VerifiableAddress, ...] | Absent
) -> str:
    if not _is_some(listed):
        return NOT_IN_WEBHOOKS
    here, there = _proofs(held), _proofs(listed)
    if here.keys() != there.keys():
        return SETTINGS
    differing = [key for key in here if here[key] != there[key]]
    if any(there[key] > here[key] for key in differing):
        return VERIFICATION
    return NEWER if differing else NOT_IN_WEBHOOKS


def _is_some(addresses: tuple[object, ...] | Absent) -> bool:
    """Whether there is an address: where there is none, a webhook leaves the list out."""
    return addresses is not ABSENT and bool(addresses)


def _proofs(
    addresses: tuple[VerifiableAddress, ...] | Absent,
) -> dict[tuple[str, str], tuple[bool, datetime]]:
    """By address, whether it is verified, and since when."""
    known = () if addresses is ABSENT else addresses
    return {(each.via, each.value): (each.verified, each.verified_at or OLDEST) for each in known}


GAPS: Final = 10
LEAST: Final = timedelta(days=3)
"""Longer than a quiet weekend."""
FEW: Final = 20
"""With fewer calls the usual gap is unknown."""


class SilentHook(NamedTuple):
    """A hook that no longer calls; ``label`` is None if none does."""

    label: str | None
    last_at: datetime
    usual_gap: timedelta


def silent_hooks(hooks: Sequence[HookActivity], now: datetime) -> list[SilentHook]:
    """Give the hooks that are silent while others call, or one entry if all of them are.

    A hook is silent after ten times its mean gap between calls, and three days at least.
    """
    if not hooks:
        return []
    first, last = min(hook.first_at for hook in hooks), max(hook.last_at for hook in hooks)
    together = HookActivity("", first, last, sum(hook.calls for hook in hooks))
    if all_silent := _if_silent(together, now):
        return [all_silent._replace(label=None)]
    # Measured up to the last call of any hook: after a quiet night no single hook is silent.
    return [silent for hook in hooks if (silent := _if_silent(hook, last))]


def _if_silent(hook: HookActivity, now: datetime) -> SilentHook | None:
    if hook.calls < FEW:
        return None
    gap = (hook.last_at - hook.first_at) / (hook.calls - 1)
    if now - hook.last_at <= max(LEAST, GAPS * gap):
        return None
    return SilentHook(hook.label, hook.last_at, gap)
