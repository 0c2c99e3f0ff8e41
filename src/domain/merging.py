"""How what we hold takes in a snapshot, so that it ends the same whatever order they come in."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from itertools import chain
from operator import attrgetter
from typing import Final, NamedTuple, Self, cast
from uuid import UUID

from kratos_sync.domain.addresses import united
from kratos_sync.domain.fields import from_rfc3339, to_rfc3339
from kratos_sync.domain.held_identity import NEVER_TOLD, HeldIdentity
from kratos_sync.domain.identity import (
    ADDRESSES,
    LEFT_OUT_WHEN_EMPTY,
    PARTS,
    SCALARS,
    Identity,
    Part,
)
from kratos_sync.domain.json_values import ABSENT, Absent, Json, canonical, same
from kratos_sync.domain.large_integers import large_integers, restored, rounded
from kratos_sync.domain.recorded_webhooks import ReceivedWebhook

OLDEST: Final = datetime.min.replace(tzinfo=UTC)
SKEW: Final = timedelta(minutes=1)
"""Kratos' clock may be so far ahead of ours; a time beyond that is not believed."""


def credible(updated_at: datetime | None, known_at: datetime) -> datetime | None:
    """`updated_at`, or when we came to know of it if that is long before: then a clock is wrong.

    So a time in the future outranks nothing that comes later.
    """
    if updated_at is None or updated_at - known_at <= SKEW:
        return updated_at
    return known_at


class Recency(NamedTuple):
    """When Kratos last changed what a snapshot says, and whether the Admin API said it.

    They are ordered: the later one stands, and of two as late the exact one.
    """

    time: datetime
    exact: bool

    @classmethod
    def of(cls, updated_at: datetime | None, *, exact: bool) -> Self:
        """The recency of a snapshot; one that has no `updated_at` is older than any other."""
        return cls(updated_at or OLDEST, exact)

    def to_json(self) -> Json:
        """The recency as a pair: RFC 3339 time, or null for the oldest, and exact or not."""
        return [None if self.time == OLDEST else to_rfc3339(self.time), self.exact]

    @classmethod
    def from_json(cls, pair: Json) -> Self | None:
        """The recency of a pair; null, for a part that nobody ever told, is None."""
        match pair:
            case [str() as text, bool() as exact]:
                return cls.of(from_rfc3339(text), exact=exact)
            case [None, bool() as exact]:
                return cls(OLDEST, exact)
        return None


def resolve_tie(held: Part, said: Part, *, exact: bool) -> Part:
    """Which of two equally recent values stands, whichever came first.

    Of addresses each stands that either has, at its greatest `order`; of other values the one with
    the larger canonical JSON, and any before null. Values that are not `exact` are compared as the
    doubles that they are.
    """
    if same(held, said):
        return held
    if isinstance(held, tuple) and isinstance(said, tuple):
        return united((*held, *said))
    return said if _weight(said, exact=exact) > _weight(held, exact=exact) else held


def _weight(value: Part, *, exact: bool) -> tuple[bool, str]:
    if isinstance(value, datetime):
        return True, value.isoformat()
    if isinstance(value, UUID | tuple):
        return True, str(value)
    return value is not None, canonical(value if exact else rounded(value))


_parts_of: Final = attrgetter(*PARTS)
_ROUNDED: Final = frozenset({"traits", "metadata_public"})
_LEFT_OUT_WHEN_EMPTY: Final = frozenset(LEFT_OUT_WHEN_EMPTY)
_UNTOLD_BY_WEBHOOKS: Final = frozenset({"metadata_admin"})


def ordinary_news(
    held: HeldIdentity, identity: Identity, known_at: datetime
) -> dict[str, object] | None:
    """The fields of `held` that the snapshot changes; None when each part has to be merge_fields.

    Relies on what every row keeps to: no part is more recent than the row, and before the first
    exact snapshot every number is a double.
    """
    said_at = identity.updated_at
    if not isinstance(said_at, datetime) or identity.is_exact or said_at - known_at > SKEW:
        return None
    if "updated_at" in held.part_recency:
        return None
    held_at = held.updated_at or OLDEST
    if said_at > held_at:
        return None if said_at == held.exact_at else _newer(held, identity, said_at)
    if held.part_recency and held.part_recency.keys() != _UNTOLD_BY_WEBHOOKS:
        return None
    if said_at < held_at:
        return {} if _tells_only_what_is_held(held, identity) else None
    return _equally_recent(held, identity)


def _tells_only_what_is_held(held: HeldIdentity, identity: Identity) -> bool:
    return (
        (held.traits is not ABSENT or identity.traits is ABSENT)
        and (held.metadata_public is not ABSENT or identity.metadata_public is ABSENT)
        and (held.verifiable_addresses is not ABSENT or identity.verifiable_addresses is ABSENT)
        and (held.recovery_addresses is not ABSENT or identity.recovery_addresses is ABSENT)
        and (not identity.unknown or identity.unknown.keys() <= held.unknown.keys())
    )


def _equally_recent(held: HeldIdentity, identity: Identity) -> dict[str, object] | None:
    """What both say of each part that differs, as of a verification: it moves no time."""
    differences, _ = _compared(held, identity)
    if not differences:
        return {}
    if "unknown" in differences or held.exact_at == held.updated_at:
        return None
    news: dict[str, object] = {}
    for part, said in differences.items():
        before = held.part(part)
        after = said if before is ABSENT else resolve_tie(before, said, exact=False)
        if not same(before, after):
            news[part] = after
    return news


def _newer(held: HeldIdentity, identity: Identity, updated_at: datetime) -> dict[str, object]:
    """All that the snapshot says stands; what it does not tell is older than the row now."""
    differences, untold = _compared(held, identity)
    news: dict[str, object] = {**differences, "updated_at": updated_at}
    if untold or held.part_recency:
        is_exact = held.exact_numbers is not None and held.exact_at == held.updated_at
        row = Recency.of(held.updated_at, exact=is_exact).to_json()
        older = {part: held.part_recency.get(part, row) for part in untold}
        if older != held.part_recency:
            news["part_recency"] = older
    return news


def _compared(held: HeldIdentity, identity: Identity) -> tuple[dict[str, Part], list[str]]:
    """What a webhook says otherwise than the row has it, and the parts that it does not tell."""
    numbers = held.exact_numbers
    is_whole = identity.is_whole
    differences: dict[str, Part] = {}
    untold: list[str] = []
    ours: tuple[Part | Absent, ...] = _parts_of(held)
    theirs: tuple[Part | Absent, ...] = _parts_of(identity)
    for part, before, value in zip(PARTS, ours, theirs, strict=True):
        said = value
        if said is ABSENT:
            if not is_whole or part not in _LEFT_OUT_WHEN_EMPTY:
                if before is not ABSENT:
                    untold.append(part)
                continue
            said = None
        if part not in _ROUNDED:
            if said is not before and not same(before, said):
                differences[part] = said
        elif numbers is not None or not same(before, said):
            said = _restored(part, said, numbers)
            if not same(before, said):
                differences[part] = said
    if held.unknown or identity.unknown:
        said_too = {key: _restored(key, value, numbers) for key, value in identity.unknown.items()}
        unknown = {**held.unknown, **said_too}
        if not same(held.unknown, unknown):
            differences["unknown"] = unknown
        untold += held.unknown.keys() - said_too.keys()
    return differences, untold


def _restored(part: str, value: Part, numbers: Mapping[str, int] | None) -> Json:
    return restored(cast("Json", value), f"/{part}", numbers or {})


_KNOWN: Final = frozenset(PARTS)
_SCALARS: Final = frozenset(SCALARS)
_ADDRESSES: Final = frozenset(ADDRESSES)
_MERGED: Final = (
    *PARTS,
    "unknown",
    "updated_at",
    "part_recency",
    "exact_at",
    "exact_numbers",
)
_NEVER_ROUNDED: Final = frozenset({*SCALARS, *ADDRESSES, "metadata_admin"})


def merged(held: HeldIdentity, identity: Identity, known_at: datetime) -> dict[str, object]:
    """The fields of `held` that the snapshot changes, each with its new value.

    `known_at` is when we recorded a webhook, or asked for an exact snapshot, by our own clock.
    """
    news = ordinary_news(held, identity, known_at)
    return merge_fields(held, identity, known_at) if news is None else news


def replaced(
    held: HeldIdentity, identity: Identity, asked_at: datetime, later: Iterable[ReceivedWebhook]
) -> dict[str, object]:
    """The fields that differ once the exact snapshot stands for all that was recorded before it.

    `later` are the webhooks recorded since it was asked for, in any order.
    """
    fresh = HeldIdentity(
        id=held.id, synced_at=held.synced_at, version=held.version, part_recency=NEVER_TOLD
    )
    # One by one: together they may be more than there is memory for.
    for snapshot, known_at in chain([(identity, asked_at)], later):
        for name, value in merged(fresh, snapshot, known_at).items():
            setattr(fresh, name, value)
    return {
        name: value
        for name in _MERGED
        if not same(getattr(held, name), value := getattr(fresh, name))
    }


def merge_fields(held: HeldIdentity, identity: Identity, known_at: datetime) -> dict[str, object]:
    """What `merged` gives, whatever the row and the snapshot.

    Each part becomes what the most recent snapshot that has it says (`Recency`, `resolve_tie`).
    Where a webhook said it, the large integers of the newest exact snapshot show through
    (`domain.large_integers`).
    """
    said = identity.parts()
    updated_at = None if identity.updated_at is ABSENT else identity.updated_at
    word = Recency.of(credible(updated_at, known_at), exact=identity.is_exact)
    row = _row_recency(held)
    newest = max(word, row)
    register: Mapping[str, object] = _register(held, said, updated_at) if word.exact else {}
    numbers = cast("Mapping[str, int]", register.get("exact_numbers", held.exact_numbers) or {})

    if not word.exact:
        for part in said.keys() - _NEVER_ROUNDED:
            said[part] = _restored_of_merging(part, said[part], numbers)
    news: dict[str, object] = {}
    unknown: dict[str, Part | Absent] = {}
    older: dict[str, Json] = {}
    for part in _parts(held, said):
        before = held.part(part) if part in _KNOWN else held.unknown.get(part, ABSENT)
        since = _since(held, part, row) if before is not ABSENT else None
        after = before
        if register and before is not ABSENT and since is not None and not since.exact:
            after = _restored_of_merging(part, before, numbers)
        if part in said:
            after, since = _settled(part, after, since, said[part], word)
        if since is None and part in _SCALARS:
            older[part] = None
        elif since is not None and since < newest:
            older[part] = since.to_json()
        if not same(before, after):
            (news if part in _KNOWN else unknown)[part] = after

    if unknown:
        news["unknown"] = {**held.unknown, **unknown}
    stands = held.updated_at
    if (word.time, updated_at or OLDEST) > (row.time, stands or OLDEST):
        news["updated_at"] = stands = updated_at
    exact_at = register.get("exact_at", held.exact_at)
    known_exact = bool(register) or held.exact_numbers is not None
    if newest != Recency.of(stands, exact=known_exact and exact_at == stands):
        older["updated_at"] = newest.to_json()
    if older != held.part_recency:
        news["part_recency"] = older
    news.update(register)
    return news


def _parts(held: HeldIdentity, said: Mapping[str, Part]) -> Iterable[str]:
    unknown = held.unknown.keys() | (said.keys() - _KNOWN)
    return (*PARTS, *sorted(unknown)) if unknown else PARTS


def _row_recency(held: HeldIdentity) -> Recency:
    """How recent the row is: as its `updated_at` says, where that could be believed."""
    stated = Recency.from_json(held.part_recency.get("updated_at"))
    if stated is not None:
        return stated
    is_exact = held.exact_numbers is not None and held.exact_at == held.updated_at
    return Recency.of(held.updated_at, exact=is_exact)


def _since(held: HeldIdentity, part: str, row: Recency) -> Recency | None:
    """How recent a part is; None for a scalar that nobody ever told."""
    return Recency.from_json(held.part_recency[part]) if part in held.part_recency else row


def _settled(
    part: str, held: Part | Absent, since: Recency | None, said: Part, word: Recency
) -> tuple[Part | Absent, Recency]:
    """Which value stands, and how recent it is."""
    if since is None or held is ABSENT:
        return said, word
    if word.time == since.time and (word.exact == since.exact or part in _ADDRESSES):
        return resolve_tie(held, said, exact=word.exact), max(word, since)
    return (said, word) if word > since else (held, since)


def _restored_of_merging(part: str, value: Part, numbers: Mapping[str, int]) -> Part:
    if part in _NEVER_ROUNDED:
        return value
    return restored(cast("Json", value), f"/{part}", numbers)


def _register(
    held: HeldIdentity, said: Mapping[str, Part], updated_at: datetime | None
) -> dict[str, object]:
    """What an exact snapshot changes in `exact_at` and `exact_numbers`.

    Of two as recent each place keeps its larger number, so that either may come first.
    """
    old = Recency.of(held.exact_at, exact=True)
    new = Recency.of(updated_at, exact=True)
    if held.exact_numbers is not None and new < old:
        return {}
    numbers: dict[str, int] = {}
    for part, value in said.items():
        if part not in _NEVER_ROUNDED:
            numbers.update(large_integers(cast("Json", value), f"/{part}"))
    if held.exact_numbers is not None and new == old:
        for place, number in held.exact_numbers.items():
            numbers[place] = max(number, numbers.get(place, number))
    changes: dict[str, object] = {}
    if held.exact_numbers is None or numbers != held.exact_numbers:
        changes["exact_numbers"] = numbers
    if updated_at != held.exact_at:
        changes["exact_at"] = updated_at
    return changes
