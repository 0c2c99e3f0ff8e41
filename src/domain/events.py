"""Every event: those of what Kratos said or is to be asked, and the facts that follow from them.

`name` is the event's name on the wire and in the ledger. Renaming one would make every recorded
event of the old name unknown, and so undeliverable: add a new event instead.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import blake2b
from types import MappingProxyType
from typing import ClassVar, Final, Protocol, Self
from uuid import UUID

from kratos_sync.domain import fields
from kratos_sync.domain.fields import from_number, to_rfc3339
from kratos_sync.domain.identity import Identity
from kratos_sync.domain.json_values import ABSENT, Absent, Json

_TIMESTAMP: Final = ((1 << 48) - 1) << 80
_VERSION_AND_VARIANT: Final = 0xF << 76 | 0b11 << 62
_VERSION_7_OF_RFC_9562: Final = 0x7 << 76 | 0b10 << 62


def fact_id(cause: UUID, what: str) -> UUID:
    """The id of the fact that the event `cause` (a UUIDv7) brought about: each time the same.

    A UUIDv7 too, of the same millisecond as its cause, so that ids stay ordered by time.
    """
    digest = blake2b(what.encode(errors="surrogatepass"), digest_size=16, key=cause.bytes).digest()
    mixed = int.from_bytes(digest) & ~_TIMESTAMP | cause.int & _TIMESTAMP
    return from_number(mixed & ~_VERSION_AND_VARIANT | _VERSION_7_OF_RFC_9562)


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
class Fact(_AboutIdentity):
    """What all facts tell: when, of whom, and the version that our copy had afterwards."""

    version: int

    def to_json(self) -> dict[str, Json]:
        """The payload: everything but name, id and time, which are columns of the ledger."""
        return self.payload({})

    @classmethod
    def from_json(cls, id: UUID, date_occurred: datetime, payload: Mapping[str, Json]) -> Self:  # noqa: A002
        """The fact of that payload; raises InvalidField."""
        return cls(id, date_occurred, *whose(payload))

    def payload(self, rest: Mapping[str, Json]) -> dict[str, Json]:
        """The JSON payload of a fact that has `rest` beside what all facts have."""
        return {"identity_id": str(self.identity_id), "version": self.version, **rest}


def whose(payload: Mapping[str, Json]) -> tuple[UUID, int]:
    """The identity's id and version in a payload; raises InvalidField."""
    return fields.required_uuid(payload, "identity_id"), fields.integer(payload, "version")


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


@dataclass(frozen=True, slots=True)
class IdentityDeletionRequested(_AboutIdentity):
    """An identity is to be deleted: here first, and in Kratos once everybody here is done.

    `by` says who asked; with `erase` what was recorded of the person goes too, at the end.
    """

    name: ClassVar[str] = "identity.deletion_requested"
    by: str | None = None
    erase: bool = False

    def to_json(self) -> dict[str, Json]:
        """The payload: everything but name, id and time, which are columns of the ledger."""
        return {"identity_id": str(self.identity_id), "by": self.by, "erase": self.erase}

    @classmethod
    def from_json(cls, id: UUID, date_occurred: datetime, payload: Mapping[str, Json]) -> Self:  # noqa: A002
        """The event of that payload; raises InvalidField."""
        identity_id = fields.required_uuid(payload, "identity_id")
        by = fields.text_or_none(payload, "by")
        return cls(id, date_occurred, identity_id, by, fields.flag(payload, "erase"))


NO_IDENTITY: Final = UUID(int=0)


@dataclass(frozen=True, slots=True)
class KratosTemplateFailed:
    """Kratos called a hook with an empty body, as it does where its template worker died.

    An identity may be missing or stale here, and only the Admin API knows which. `hook` is the
    hook's label, "" where it has none.
    """

    name: ClassVar[str] = "kratos_webhook.template_failed"
    id: UUID
    date_occurred: datetime
    hook: str

    @property
    def subject(self) -> UUID:
        """The id of nobody."""
        return NO_IDENTITY

    def to_json(self) -> dict[str, Json]:
        """The payload: everything but name, id and time, which are columns of the ledger."""
        return {"hook": self.hook}

    @classmethod
    def from_json(cls, id: UUID, date_occurred: datetime, payload: Mapping[str, Json]) -> Self:  # noqa: A002
        """The event of that payload; raises InvalidField."""
        return cls(id, date_occurred, fields.required_text(payload, "hook"))


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
