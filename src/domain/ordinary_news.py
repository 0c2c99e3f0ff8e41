"""What the snapshots change of which nearly all are: a webhook's, newer than the row or no news.

Whatever is said here `domain.merging.weighed` would say too, having weighed part by part.
"""

from collections.abc import Mapping
from datetime import datetime
from operator import attrgetter
from typing import Final, cast

from domain.doubles import restored
from domain.held_identity import HeldIdentity
from domain.identity import LEFT_OUT_WHEN_EMPTY, PARTS, Identity, Part
from domain.json_values import ABSENT, Absent, Json, same
from domain.recency import OLDEST, SKEW, Recency, agreed

_parts_of: Final = attrgetter(*PARTS)
_ROUNDED: Final = frozenset({"traits", "metadata_public"})
_LEFT_OUT_WHEN_EMPTY: Final = frozenset(LEFT_OUT_WHEN_EMPTY)
_UNTOLD_BY_WEBHOOKS: Final = frozenset({"metadata_admin"})


def ordinary_news(
    held: HeldIdentity, identity: Identity, known_at: datetime
) -> dict[str, object] | None:
    """The fields of `held` that the snapshot changes; None when each part has to be weighed.

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
        after = said if before is ABSENT else agreed(before, said, exact=False)
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
