"""The merge rule: which value of each part of an identity stands after a snapshot.

Each part has a recency of its own, so that a row ends the same whatever order snapshots come in.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from itertools import chain
from operator import attrgetter
from typing import Final, NamedTuple, Protocol, Self, cast
from uuid import UUID

from kratos_sync.domain.addresses import RecoveryAddress, VerifiableAddress, united
from kratos_sync.domain.fields import from_rfc3339, to_rfc3339
from kratos_sync.domain.identity import (
    ADDRESSES,
    NEVER_IN_WEBHOOKS,
    PARTS,
    SCALARS,
    Identity,
    Part,
)
from kratos_sync.domain.json_values import ABSENT, Absent, Json, canonical, same
from kratos_sync.domain.large_integers import large_integers, restored, rounded

OLDEST: Final = datetime.min.replace(tzinfo=UTC)
SKEW: Final = timedelta(minutes=1)
"""How far Kratos' clock may be ahead of ours; a time beyond that is not believed."""

MERGED: Final = (*PARTS, "unknown", "updated_at", "part_recency", "exact_at", "exact_numbers")
"""The fields that `merge` may change."""

_KNOWN: Final = frozenset(PARTS)
_NEVER_ROUNDED: Final = frozenset({*SCALARS, *NEVER_IN_WEBHOOKS})
_parts_of: Final = attrgetter(*PARTS)


class ReceivedWebhook(NamedTuple):
    """The snapshot of a webhook, and when the ledger recorded it."""

    identity: Identity
    recorded_at: datetime


class Current(Protocol):
    """What the merge rule reads of a `KratosIdentity`, beside its parts."""

    unknown: Mapping[str, Json]
    updated_at: datetime | None
    part_recency: Mapping[str, Json]
    exact_at: datetime | None
    exact_numbers: Mapping[str, int] | None


class Recency(NamedTuple):
    """When Kratos last changed what a snapshot says, and whether the Admin API said it.

    Of two recencies the greater stands: the later one, and of two as late the exact one.
    """

    time: datetime
    exact: bool

    @classmethod
    def of(cls, updated_at: datetime | None, *, exact: bool) -> Self:
        """The recency of a snapshot; without `updated_at` it is older than any other."""
        return cls(updated_at or OLDEST, exact)

    def to_json(self) -> Json:
        """The recency as a pair: RFC 3339 time, or null for the oldest, and exact or not."""
        return [None if self.time == OLDEST else to_rfc3339(self.time), self.exact]

    @classmethod
    def from_json(cls, pair: Json) -> Self | None:
        """The recency of a pair; None for null: no snapshot had the part."""
        match pair:
            case [str() as text, bool() as exact]:
                return cls.of(from_rfc3339(text), exact=exact)
            case [None, bool() as exact]:
                return cls(OLDEST, exact)
        return None


def merge(current: Current, identity: Identity, known_at: datetime) -> dict[str, object]:
    """The fields of `current` that the snapshot changes, each with its new value.

    Each part becomes what the most recent snapshot that has it says (`Recency`, `_resolve_tie`).
    Where a webhook said it, the large integers of the newest exact snapshot are restored
    (`domain.large_integers`). `known_at` is when a webhook was recorded, or an exact snapshot was
    asked for, by our own clock.
    """
    updated_at = None if identity.updated_at is ABSENT else identity.updated_at
    incoming = Recency.of(credible(updated_at, known_at), exact=identity.is_exact)
    row = _row_recency(current)
    if incoming.time < row.time and _is_stale(current, identity):
        return {}
    register = _register(current, identity, updated_at) if incoming.exact else {}
    changes = _merge_parts(current, identity, incoming, row, register)
    older = cast("dict[str, Json]", changes.pop("part_recency"))

    stands, newest = current.updated_at, max(incoming, row)
    if (incoming.time, updated_at or OLDEST) > (row.time, stands or OLDEST):
        changes["updated_at"] = stands = updated_at
    exact_at = register.get("exact_at", current.exact_at)
    has_exact = bool(register) or current.exact_numbers is not None
    if newest != (stands or OLDEST, has_exact and exact_at == stands):
        older["updated_at"] = newest.to_json()
    if older != current.part_recency:
        changes["part_recency"] = older
    changes.update(register)
    return changes


def _merge_parts(
    current: Current,
    identity: Identity,
    incoming: Recency,
    row: Recency,
    register: Mapping[str, object],
) -> dict[str, object]:
    """What the snapshot changes in parts and `unknown`, and every part older than the row."""
    recencies, missing = current.part_recency, identity.values_of_missing
    newest = max(incoming, row)
    # No part is more recent than the row.
    is_newest = incoming.time > row.time
    exact_numbers = register.get("exact_numbers", current.exact_numbers)
    numbers = cast("Mapping[str, int] | None", exact_numbers)
    changes: dict[str, object] = {}
    unknown: dict[str, object] = {}
    older: dict[str, Json] = {}
    for part, before, sent in _pairs(current, identity):
        said = missing.get(part, ABSENT) if sent is ABSENT else sent
        rounds = part not in _NEVER_ROUNDED and not incoming.exact
        # Without exact numbers every number that we hold is rounded already.
        is_same = (numbers is None or not rounds) and (said is before or same(before, said))
        if rounds and not is_same:
            said = _restored(part, said, numbers)
            is_same = same(before, said)
        if is_same and (said is ABSENT or (not register and (is_newest or part not in recencies))):
            continue
        after = before
        if said is not ABSENT and is_newest:
            after = said
        else:
            since = Recency.from_json(recencies[part]) if part in recencies else row
            if register and since is not None and not since.exact:
                after = _restored(part, before, numbers)
            if said is not ABSENT:
                after, since = _winner(part, after, since, said, incoming)
            if since is None:
                if part in SCALARS:
                    older[part] = None
            elif since < newest:
                older[part] = since.to_json()
        if after is not before and not same(before, after):
            (changes if part in _KNOWN else unknown)[part] = after
    if unknown:
        changes["unknown"] = {**current.unknown, **unknown}
    changes["part_recency"] = older
    return changes


def _pairs(
    current: Current, identity: Identity
) -> Iterable[tuple[str, Part | Absent, Part | Absent]]:
    """Each part, known or not, with our value and the snapshot's."""
    pairs = zip(PARTS, _parts_of(current), identity.parts_as_sent, strict=True)
    held, incoming = current.unknown, identity.unknown
    if not held and not incoming:
        return pairs
    keys = sorted(held.keys() | incoming.keys())
    return chain(pairs, ((key, held.get(key, ABSENT), incoming.get(key, ABSENT)) for key in keys))


def _winner(
    part: str, current: Part | Absent, since: Recency | None, said: Part, incoming: Recency
) -> tuple[Part | Absent, Recency]:
    """Which value of a part stands, and how recent it is."""
    if current is ABSENT or since is None:
        return said, incoming
    if said is current or same(current, said):
        return current, max(since, incoming)
    if incoming.time == since.time and (incoming.exact == since.exact or part in ADDRESSES):
        return _resolve_tie(current, said, exact=incoming.exact), max(incoming, since)
    return (said, incoming) if incoming > since else (current, since)


def _resolve_tie(current: Part, said: Part, *, exact: bool) -> Part:
    """Which of two equally recent values stands, whichever came first.

    Addresses are united, each at its greatest `order`. Of other values the one with the larger
    canonical JSON stands, and any before null. Values that are not `exact` compare as doubles.
    """
    if isinstance(current, tuple) and isinstance(said, tuple):
        return united((*current, *said))
    return said if _weight(said, exact=exact) > _weight(current, exact=exact) else current


def credible(updated_at: datetime | None, known_at: datetime) -> datetime | None:
    """`updated_at`, or `known_at` where Kratos' clock is ahead: no later snapshot is outranked."""
    if updated_at is None or updated_at - known_at <= SKEW:
        return updated_at
    return known_at


def _is_stale(current: Current, identity: Identity) -> bool:
    """Whether a snapshot older than the row changes nothing: each part that it has is newer here.

    The early return for the most frequent case after a replay; False leaves it to the rule.
    """
    if identity.is_exact or not current.part_recency.keys() <= NEVER_IN_WEBHOOKS:
        return False
    if identity.unknown and not identity.unknown.keys() <= current.unknown.keys():
        return False
    values = zip(_parts_of(current), identity.parts_as_sent, strict=True)
    return not any(before is ABSENT and said is not ABSENT for before, said in values)


def _row_recency(current: Current) -> Recency:
    """How recent the row is: as its `updated_at` says, where that could be believed."""
    if "updated_at" in current.part_recency:
        stated = Recency.from_json(current.part_recency["updated_at"])
        if stated is not None:
            return stated
    is_exact = current.exact_numbers is not None and current.exact_at == current.updated_at
    return Recency(current.updated_at or OLDEST, is_exact)


def _restored(part: str, value: Part | Absent, numbers: Mapping[str, int] | None) -> Part | Absent:
    if value is ABSENT or part in _NEVER_ROUNDED:
        return value
    if not isinstance(value, tuple):
        return restored(cast("Json", value), f"/{part}", numbers or {})
    said = _json_of(value)
    exact = cast("dict[str, dict[str, Json]]", restored(said, f"/{part}", numbers or {}))
    if exact is said:
        return value
    changed = (each.with_unknown(exact.get(_key(each), {})) for each in value)
    return cast("Part", tuple(changed))


def _json_of(part: Part) -> Json:
    """What may have large integers in it: of addresses the fields that we do not know."""
    if isinstance(part, tuple):
        return {_key(each): dict(each.unknown) for each in part if each.unknown}
    return cast("Json", part)


def _key(address: VerifiableAddress | RecoveryAddress) -> str:
    return f"{address.via} {address.value}"


def _register(
    current: Current, identity: Identity, updated_at: datetime | None
) -> dict[str, object]:
    """What an exact snapshot changes in `exact_at` and `exact_numbers`.

    Of two as recent each place keeps its larger number, so that either may come first.
    """
    old = Recency.of(current.exact_at, exact=True)
    new = Recency.of(updated_at, exact=True)
    if current.exact_numbers is not None and new < old:
        return {}
    numbers: dict[str, int] = {}
    for part, value in identity.parts().items():
        if part not in _NEVER_ROUNDED:
            numbers.update(large_integers(_json_of(value), f"/{part}"))
    if current.exact_numbers is not None and new == old:
        for place, number in current.exact_numbers.items():
            numbers[place] = max(number, numbers.get(place, number))
    changes: dict[str, object] = {}
    if current.exact_numbers is None or numbers != current.exact_numbers:
        changes["exact_numbers"] = numbers
    if updated_at != current.exact_at:
        changes["exact_at"] = updated_at
    return changes


def _weight(value: Part, *, exact: bool) -> tuple[bool, str]:
    if isinstance(value, datetime):
        return True, value.isoformat()
    if isinstance(value, UUID | tuple):
        return True, str(value)
    return value is not None, canonical(value if exact else rounded(value))
