"""Every event: those of what Kratos said or is to be asked, and the facts that follow from them.

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
from domain.deletion_request import IdentityDeletionRequested
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
from domain.identity import Identity
from domain.json_values import Json
from domain.template_failure import KratosTemplateFailed
from domain.times import to_rfc3339

__all__ = [
    "EVENTS",
    "IMPERSONAL",
    "AddressVerified",
    "DomainEvent",
    "IdentityDeleted",
    "IdentityDeletionRequested",
    "IdentityDiscovered",
    "IdentityRegistered",
    "IdentityStateChanged",
    "IdentityTraitsChanged",
    "KratosIdentityGone",
    "KratosIdentityHinted",
    "KratosIdentityUpdated",
    "KratosTemplateFailed",
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
        """The id of the identity that it happened to; NO_IDENTITY where nobody knows it."""
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
    """Kratos said what an identity is now, in a webhook or when we asked its Admin API.

    An answer's `date_occurred` is when it was asked for, by the ledger's clock; `heard_at` is when
    we were first told to ask, where that was before: somebody may have registered then, however
    late Kratos answered. `recorded_at` is when the ledger recorded a webhook, once it has.
    """

    name: ClassVar[str] = "kratos_identity.updated"
    id: UUID
    date_occurred: datetime
    identity: Identity
    heard_at: datetime | None = None
    recorded_at: datetime | None = None

    @property
    def subject(self) -> UUID:
        """The identity's id."""
        return self.identity.id

    @property
    def known_at(self) -> datetime:
        """When an answer was asked for, or a webhook recorded, by the ledger's clock."""
        return self.recorded_at or self.date_occurred

    def to_json(self) -> dict[str, Json]:
        """The payload, as a webhook's body has it: the identity's document under "identity"."""
        if self.heard_at is None:
            return {"identity": self.identity.document}
        return {"identity": self.identity.document, "heard_at": to_rfc3339(self.heard_at)}

    @classmethod
    def from_json(cls, id: UUID, date_occurred: datetime, payload: Mapping[str, Json]) -> Self:  # noqa: A002
        """The event of a webhook's payload or its raw body; other keys are passed over.

        Raises InvalidField when there is no identity, InvalidIdentity when it is not one.
        """
        return cls.received(id, date_occurred, payload, None)

    @classmethod
    def received(
        cls,
        id: UUID,  # noqa: A002
        date_occurred: datetime,
        payload: Mapping[str, Json],
        recorded_at: datetime | None,
    ) -> Self:
        """The event of a webhook's payload, recorded at that time; raises as `from_json` does."""
        identity = Identity.from_kratos(fields.mapping(payload, "identity"))
        return cls(id, date_occurred, identity, None, recorded_at)

    @classmethod
    def answered(cls, id: UUID, date_occurred: datetime, payload: Mapping[str, Json]) -> Self:  # noqa: A002
        """The event of the payload of an answer to our own question; raises as `from_json` does.

        That it is one is known from where the event came from, never from the payload.
        """
        identity = Identity.from_admin_api(fields.mapping(payload, "identity"))
        return cls(id, date_occurred, identity, fields.time_or_none(payload, "heard_at"))


@dataclass(frozen=True, slots=True)
class _AboutIdentity:
    """An event that says nothing but whom it is about."""

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
        return cls(id, date_occurred, fields.required_uuid(payload, "identity_id"))


@dataclass(frozen=True, slots=True)
class KratosIdentityGone(_AboutIdentity):
    """Kratos no longer has an identity: its Admin API answered 404."""

    name: ClassVar[str] = "kratos_identity.gone"


@dataclass(frozen=True, slots=True)
class KratosIdentityHinted(_AboutIdentity):
    """Somebody says that an identity has changed, and not what it is now: Kratos will tell."""

    name: ClassVar[str] = "kratos_identity.hinted"


EVENTS: Final[Mapping[str, type[DomainEvent]]] = MappingProxyType(
    {
        "kratos_identity.updated": KratosIdentityUpdated,
        "kratos_identity.gone": KratosIdentityGone,
        "kratos_identity.hinted": KratosIdentityHinted,
        "kratos_webhook.template_failed": KratosTemplateFailed,
        "identity.registered": IdentityRegistered,
        "identity.discovered": IdentityDiscovered,
        "identity.traits_changed": IdentityTraitsChanged,
        "identity.address_verified": AddressVerified,
        "identity.state_changed": IdentityStateChanged,
        "identity.deleted": IdentityDeleted,
        "identity.deletion_requested": IdentityDeletionRequested,
    }
)

IMPERSONAL: Final = frozenset(
    each.name
    for each in (
        KratosIdentityGone,
        KratosIdentityHinted,
        KratosTemplateFailed,
        IdentityDeleted,
        IdentityDeletionRequested,
    )
)
"""Names of the events that say nothing of a person: they outlast what is erased."""
