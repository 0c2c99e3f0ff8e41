"""How what we hold takes in a snapshot, so that it ends the same whatever order they come in."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import chain
from typing import Final, cast

from domain.doubles import large_integers, restored
from domain.held_identity import NEVER_TOLD, HeldIdentity
from domain.identity import ADDRESSES, PARTS, SCALARS, Identity, Part
from domain.json_values import ABSENT, Absent, Json, same
from domain.ordinary_news import ordinary_news
from domain.recency import OLDEST, Recency, agreed, credible
from domain.recorded_webhooks import ReceivedWebhook

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
    return weighed(held, identity, known_at) if news is None else news


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


def weighed(held: HeldIdentity, identity: Identity, known_at: datetime) -> dict[str, object]:
    """What `merged` gives, whatever the row and the snapshot.

    Each part becomes what the most recent snapshot that tells it says (`Recency`, `agreed`). Where
    a webhook said it, the large integers of the newest exact snapshot show through
    (`domain.doubles`).
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
            said[part] = _restored(part, said[part], numbers)
    news: dict[str, object] = {}
    unknown: dict[str, Part | Absent] = {}
    older: dict[str, Json] = {}
    for part in _parts(held, said):
        before = held.part(part) if part in _KNOWN else held.unknown.get(part, ABSENT)
        since = _since(held, part, row) if before is not ABSENT else None
        after = before
        if register and before is not ABSENT and since is not None and not since.exact:
            after = _restored(part, before, numbers)
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
        return agreed(held, said, exact=word.exact), max(word, since)
    return (said, word) if word > since else (held, since)


def _restored(part: str, value: Part, numbers: Mapping[str, int]) -> Part:
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
