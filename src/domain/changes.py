"""What is different between two states of a person."""

from collections.abc import Iterator, Mapping

from domain.addresses import VerifiableAddress
from domain.facts import TraitChange
from domain.json_values import ABSENT, Absent, Json, same_as_doubles


def traits_of(traits: Json | Absent) -> Mapping[str, Json]:
    """The traits by name; none when they are null, were never told, or are not an object."""
    return traits if isinstance(traits, dict) else {}


def trait_changes(old: Json | Absent, new: Json | Absent) -> tuple[TraitChange, ...]:
    """Each top-level trait that differs as doubles, sorted by name."""
    if old is new:
        return ()
    before, after = traits_of(old), traits_of(new)
    changed = [
        trait
        for trait in before.keys() | after.keys()
        if not same_as_doubles(before.get(trait, ABSENT), after.get(trait, ABSENT))
    ]
    return tuple(
        TraitChange(trait, before.get(trait, ABSENT), after.get(trait, ABSENT))
        for trait in sorted(changed)
    )


def newly_verified(
    old: tuple[VerifiableAddress, ...] | Absent, new: tuple[VerifiableAddress, ...] | Absent
) -> Iterator[VerifiableAddress]:
    """Each address, known by (via, value), that is verified now and was not before."""
    if new is ABSENT or old is new:
        return
    proved = {(each.via, each.value) for each in old if each.verified} if old is not ABSENT else ()
    for address in new:
        if address.verified and (address.via, address.value) not in proved:
            yield address
