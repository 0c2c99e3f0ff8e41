"""Which webhook would have told of a difference that reconciling found: what was not heard.

Kratos calls hooks of five flows only, and none for an administrator. Verifying, recovering and
logging in with a code mark an address; settings change traits, and so may an administrator.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from kratos_sync.application.ports.hook_log import HookActivity
from kratos_sync.domain.addresses import RecoveryAddress, VerifiableAddress
from kratos_sync.domain.identity import Identity
from kratos_sync.domain.json_values import ABSENT, Absent, same_as_doubles
from kratos_sync.domain.kratos_identity import KratosIdentity

REGISTRATION: Final = "registration"
"""Made since the comparison before, and not here: a registration, or an administrator's doing."""
SETTINGS: Final = "settings"
"""Other traits or addresses: a change of settings, or an administrator's doing."""
VERIFICATION: Final = "verification"
"""An address verified there and not here: a verification, a recovery or a login with a code."""
LOGIN: Final = "login"
"""Nothing but `updated_at`: a login that renewed something, or a change of credentials."""
ON_ITS_WAY: Final = "on_its_way"
"""Heard, and not consumed yet."""
OLD: Final = "old"
"""Made before the comparison before, or before the first: nobody ever told us."""
ADMIN: Final = "admin"
"""Fields that administrators change, and seldom anyone else."""
UNTOLD: Final = "untold"
"""What no webhook carries or tells: `metadata_admin`, large integers, that a mail was sent, that
there are no addresses."""
NEWER: Final = "newer"
"""Changed later here than in Kratos, or verified here alone: a clock is wrong, Kratos was restored
from a backup, or a call was forged."""
REVIVED: Final = "revived"
"""Deleted here, and there in Kratos."""
OTHER: Final = "other"

HOOKS: Final = (REGISTRATION, SETTINGS, VERIFICATION, LOGIN)
"""What a webhook should have told; of the others none is missed."""

_ADMINS: Final = frozenset(
    {"state", "state_changed_at", "external_id", "organization_id", "schema_id"}
)


def missing(identity: Identity, before: datetime | None) -> tuple[str, ...]:
    """Say which webhook is missed of an identity that is not here at all.

    ``before`` is when the last comparison that came to its end began; None if there was none.
    """
    made = identity.created_at
    since = isinstance(made, datetime) and before is not None and made > before
    return (REGISTRATION if since else OLD,)


def stale(held: KratosIdentity, identity: Identity, fields: Collection[str]) -> tuple[str, ...]:
    """Say which webhooks are missed of one that differs in these fields, each once."""
    if "deleted_at" in fields:
        return (REVIVED,)
    if "updated_at" in fields and _is_newer(held, identity):
        return (NEWER,)
    wanting = dict.fromkeys(_wanting(held, identity, fields))
    return tuple(wanting) or ((LOGIN,) if "updated_at" in fields else (OTHER,))


def missed(unheard: Mapping[str, int]) -> int:
    """Count what a webhook should have told."""
    return sum(unheard.get(hook, 0) for hook in HOOKS)


def _wanting(held: KratosIdentity, identity: Identity, fields: Collection[str]) -> Iterator[str]:
    for name in fields:
        if name == "traits":
            yield UNTOLD if same_as_doubles(held.traits, identity.traits) else SETTINGS
        elif name == "recovery_addresses":
            never_any = held.recovery_addresses is ABSENT and not _any(identity.recovery_addresses)
            yield UNTOLD if never_any else SETTINGS
        elif name == "verifiable_addresses":
            yield _address(held.verifiable_addresses, identity.verifiable_addresses)
        elif name == "metadata_admin":
            yield UNTOLD
        elif name == "metadata_public":
            rounded = same_as_doubles(held.metadata_public, identity.metadata_public)
            yield UNTOLD if rounded else ADMIN
        elif name in _ADMINS:
            yield ADMIN
        elif name != "updated_at":
            yield OTHER


def _is_newer(held: KratosIdentity, identity: Identity) -> bool:
    listed = identity.updated_at
    return held.updated_at is not None and isinstance(listed, datetime) and held.updated_at > listed


def _any(addresses: tuple[RecoveryAddress, ...] | Absent) -> bool:
    return addresses is not ABSENT and bool(addresses)


def _address(
    held: tuple[VerifiableAddress, ...] | Absent, listed: tuple[VerifiableAddress, ...] | Absent
) -> str:
    here, there = _by_value(held), _by_value(listed)
    if here.keys() != there.keys():
        return SETTINGS
    differ = [key for key, one in here.items() if _proof(one) != _proof(there[key])]
    if any(there[key].verified for key in differ):
        return VERIFICATION
    return NEWER if differ else UNTOLD


def _proof(address: VerifiableAddress) -> tuple[bool, datetime | None]:
    return address.verified, address.verified_at


def _by_value(
    addresses: Iterable[VerifiableAddress] | Absent,
) -> dict[tuple[str, str], VerifiableAddress]:
    if addresses is ABSENT:
        return {}
    return {(address.via, address.value): address for address in addresses}


GAPS: Final = 10
"""Whoever is silent for so many times the usual gap,"""
LEAST: Final = timedelta(days=3)
"""and for longer than a quiet weekend, is silent."""
FEW: Final = 20
"""With fewer calls nobody knows what is usual."""


class SilentHook(NamedTuple):
    """A hook that was last heard then, and used to be heard so often; None for all of them."""

    label: str | None
    last_at: datetime
    usual_gap: timedelta


def silent_hooks(hooks: Sequence[HookActivity], now: datetime) -> list[SilentHook]:
    """Tell which hooks are silent while others are heard, or that all of them are.

    A gap is usual if it is the mean one: from the first call to the last.
    """
    if not hooks:
        return []
    last = max(hook.last_at for hook in hooks)
    together = HookActivity(
        "", min(hook.first_at for hook in hooks), last, sum(hook.calls for hook in hooks)
    )
    if silence := _silence(together, now):
        return [silence._replace(label=None)]
    # By the last call of any: a night in which nobody is awake is nobody's silence.
    found = (_silence(hook, last) for hook in hooks)
    return [silence for silence in found if silence]


def _silence(hook: HookActivity, now: datetime) -> SilentHook | None:
    if hook.calls < FEW:
        return None
    gap = (hook.last_at - hook.first_at) / (hook.calls - 1)
    if now - hook.last_at <= max(LEAST, GAPS * gap):
        return None
    return SilentHook(hook.label, hook.last_at, gap)
