"""What happened to a person, as our aggregate worked it out: Kratos tells nobody these.

A `name` is the fact's name on the wire and in the ledger. Renaming one would make every recorded
fact of the old name unknown, and so undeliverable: add a new fact instead.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar, Self
from uuid import UUID

from domain import fields
from domain.fact import Fact, whose
from domain.json_values import ABSENT, Absent, Json
from domain.times import to_rfc3339


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else to_rfc3339(moment)


@dataclass(frozen=True, slots=True)
class _FirstSeen(Fact):
    traits: Mapping[str, Json] = field(repr=False)
    created_at: datetime | None

    def to_json(self) -> dict[str, Json]:
        """The payload: everything but name, id and time, which are columns of the ledger."""
        return self.payload({"traits": dict(self.traits), "created_at": _time(self.created_at)})

    @classmethod
    def from_json(cls, id: UUID, date_occurred: datetime, payload: Mapping[str, Json]) -> Self:  # noqa: A002
        """The fact of that payload; raises InvalidField."""
        traits = fields.mapping(payload, "traits")
        created_at = fields.time_or_none(payload, "created_at")
        return cls(id, date_occurred, *whose(payload), traits, created_at)


@dataclass(frozen=True, slots=True)
class IdentityRegistered(_FirstSeen):
    """A person has just made an account. `traits` is empty when Kratos did not tell them yet."""

    name: ClassVar[str] = "identity.registered"


@dataclass(frozen=True, slots=True)
class IdentityDiscovered(_FirstSeen):
    """An account that Kratos has had for a while came to our notice: nobody to welcome."""

    name: ClassVar[str] = "identity.discovered"


@dataclass(frozen=True, slots=True)
class TraitChange:
    """One top-level trait before and after; `ABSENT` where there was or is none."""

    trait: str
    old: Json | Absent = field(repr=False)
    new: Json | Absent = field(repr=False)

    def to_json(self) -> dict[str, Json]:
        """The change as an object in which an absent value is a missing key."""
        change: dict[str, Json] = {"trait": self.trait}
        if self.old is not ABSENT:
            change["old"] = self.old
        if self.new is not ABSENT:
            change["new"] = self.new
        return change

    @classmethod
    def from_json(cls, change: Mapping[str, Json]) -> Self:
        """The change of that object; raises InvalidField."""
        trait = fields.required_text(change, "trait")
        return cls(trait, change.get("old", ABSENT), change.get("new", ABSENT))


@dataclass(frozen=True, slots=True)
class IdentityTraitsChanged(Fact):
    """A person's traits are different: `changes` has each one that is, by name."""

    name: ClassVar[str] = "identity.traits_changed"
    changes: tuple[TraitChange, ...]

    def to_json(self) -> dict[str, Json]:
        """The payload: everything but name, id and time, which are columns of the ledger."""
        return self.payload({"changes": [change.to_json() for change in self.changes]})

    @classmethod
    def from_json(cls, id: UUID, date_occurred: datetime, payload: Mapping[str, Json]) -> Self:  # noqa: A002
        """The fact of that payload; raises InvalidField."""
        changes = tuple(map(TraitChange.from_json, fields.mappings(payload, "changes")))
        return cls(id, date_occurred, *whose(payload), changes)


@dataclass(frozen=True, slots=True)
class AddressVerified(Fact):
    """A person has proved to own an address that was not verified before."""

    name: ClassVar[str] = "identity.address_verified"
    via: str
    value: str = field(repr=False)
    verified_at: datetime | None

    def to_json(self) -> dict[str, Json]:
        """The payload: everything but name, id and time, which are columns of the ledger."""
        return self.payload(
            {"via": self.via, "value": self.value, "verified_at": _time(self.verified_at)}
        )

    @classmethod
    def from_json(cls, id: UUID, date_occurred: datetime, payload: Mapping[str, Json]) -> Self:  # noqa: A002
        """The fact of that payload; raises InvalidField."""
        return cls(
            id,
            date_occurred,
            *whose(payload),
            fields.required_text(payload, "via"),
            fields.required_text(payload, "value"),
            fields.time_or_none(payload, "verified_at"),
        )


@dataclass(frozen=True, slots=True)
class IdentityStateChanged(Fact):
    """An account was switched on or off: Kratos' states are "active" and "inactive"."""

    name: ClassVar[str] = "identity.state_changed"
    old: str | None
    new: str | None
    state_changed_at: datetime | None

    def to_json(self) -> dict[str, Json]:
        """The payload: everything but name, id and time, which are columns of the ledger."""
        changed_at = _time(self.state_changed_at)
        return self.payload({"old": self.old, "new": self.new, "state_changed_at": changed_at})

    @classmethod
    def from_json(cls, id: UUID, date_occurred: datetime, payload: Mapping[str, Json]) -> Self:  # noqa: A002
        """The fact of that payload; raises InvalidField."""
        return cls(
            id,
            date_occurred,
            *whose(payload),
            fields.text_or_none(payload, "old"),
            fields.text_or_none(payload, "new"),
            fields.time_or_none(payload, "state_changed_at"),
        )


@dataclass(frozen=True, slots=True)
class IdentityDeleted(Fact):
    """An account is gone from Kratos, and the person's data from our copy."""

    name: ClassVar[str] = "identity.deleted"

    def to_json(self) -> dict[str, Json]:
        """The payload: everything but name, id and time, which are columns of the ledger."""
        return self.payload({})

    @classmethod
    def from_json(cls, id: UUID, date_occurred: datetime, payload: Mapping[str, Json]) -> Self:  # noqa: A002
        """The fact of that payload; raises InvalidField."""
        return cls(id, date_occurred, *whose(payload))
