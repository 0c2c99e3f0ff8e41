"""Every event: the two that say what Kratos said, and the facts that follow from them.

`name` is the event's name on the wire and in the ledger. Renaming one would make every recorded
event of the old name unknown, and so undeliverable: add a new event instead.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import ClassVar, Final, Protocol, Self
from uuid import UUID

from domain import fields
from domain.fact import fact_id
from domain.facts import (
    AddressVerified,
    IdentityDeleted,
    IdentityDiscovered,
    IdentityRegistered,
    IdentityStateChanged,
    IdentityTraitsChanged,
    TraitChange,
)
from domain.fields import InvalidField
from domain.identity import Identity
from domain.json_values import Json

__all__ = [
    "EVENTS",
    "AddressVerified",
    "DomainEvent",
    "IdentityDeleted",
    "IdentityDiscovered",
    "IdentityRegistered",
    "IdentityStateChanged",
    "IdentityTraitsChanged",
    "KratosIdentityGone",
    "KratosIdentityUpdated",
    "TraitChange",
    "fact_id",
]


class DomainEvent(Protocol):
    """Something that happened, and cannot be changed any more."""

    name: ClassVar[str]

    @property
    def id(self) -> UUID:
        """The event's own id, a UUIDv7."""
        ...

    @property
    def date_occurred(self) -> datetime:
        """When it happened, or when we heard of it; aware."""
        ...

    @property
    def subject(self) -> UUID:
        """The id of the identity that it happened to."""
        ...

    def to_json(self) -> dict[str, Json]:
        """The payload: everything but name, id and time, which are columns of the ledger."""
        ...

    @classmethod
    def from_json(cls, id: UUID, date_occurred: datetime, payload: Mapping[str, Json]) -> Self:  # noqa: A002
        """The event of that payload; raises InvalidField when it cannot be one."""
        ...


@dataclass(frozen=True, slots=True)
class KratosIdentityUpdated:
    """Kratos said what an identity is now, in a webhook or when we asked its Admin API."""

    name: ClassVar[str] = "kratos_identity.updated"
    id: UUID
    date_occurred: datetime
    identity: Identity

    @property
    def subject(self) -> UUID:
        """The identity's id."""
        return self.identity.id

    def to_json(self) -> dict[str, Json]:
        """The payload, as a webhook's body has it: the identity's document under "identity"."""
        return {"identity": self.identity.document}

    @classmethod
    def from_json(cls, id: UUID, date_occurred: datetime, payload: Mapping[str, Json]) -> Self:  # noqa: A002
        """The event of a payload or a webhook's raw body; other keys are passed over.

        Raises InvalidField when there is no identity, InvalidIdentity when it is not one.
        """
        return cls(id, date_occurred, Identity.from_kratos(fields.mapping(payload, "identity")))


@dataclass(frozen=True, slots=True)
class KratosIdentityGone:
    """Kratos no longer has an identity: its Admin API answered 404."""

    name: ClassVar[str] = "kratos_identity.gone"
    id: UUID
    date_occurred: datetime
    identity_id: UUID

    @property
    def subject(self) -> UUID:
        """The identity's id."""
        return self.identity_id

    def to_json(self) -> dict[str, Json]:
        """The payload: everything but name, id and time, which are columns of the ledger."""
        return {"identity_id": str(self.identity_id)}

    @classmethod
    def from_json(cls, id: UUID, date_occurred: datetime, payload: Mapping[str, Json]) -> Self:  # noqa: A002
        """The event of that payload; raises InvalidField."""
        identity_id = fields.uuid(payload, "identity_id")
        if not isinstance(identity_id, UUID):
            raise InvalidField("identity_id", "is missing")
        return cls(id, date_occurred, identity_id)


EVENTS: Final[Mapping[str, type[DomainEvent]]] = MappingProxyType(
    {
        "kratos_identity.updated": KratosIdentityUpdated,
        "kratos_identity.gone": KratosIdentityGone,
        "identity.registered": IdentityRegistered,
        "identity.discovered": IdentityDiscovered,
        "identity.traits_changed": IdentityTraitsChanged,
        "identity.address_verified": AddressVerified,
        "identity.state_changed": IdentityStateChanged,
        "identity.deleted": IdentityDeleted,
    }
)
