"""Every event: what Kratos said or is to be asked, and the facts that follow.

`name` is the event's name on the wire and in the ledger. Renaming one would make every recorded
event of the old name unknown, and so undeliverable: add a new event instead.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import blake2b
from types import MappingProxyType
from typing import Any, ClassVar, Final, Self, TypeAlias
from uuid import UUID

from kratos_sync.domain import fields
from kratos_sync.domain.fields import from_number, to_rfc3339
from kratos_sync.domain.identity import Identity
from kratos_sync.domain.json_values import ABSENT, Absent, Json

NO_IDENTITY: Final = UUID(int=0)

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


def _changes_to_json(changes: Iterable[TraitChange]) -> list[Json]:
    return [change.to_json() for change in changes]


def _changes(payload: Mapping[str, Json], field: str) -> tuple[TraitChange, ...]:
    return tuple(map(TraitChange.from_json, fields.mappings(payload, field)))


_Field: TypeAlias = tuple[Callable[[Any], Json], Callable[[Mapping[str, Json], str], object]]

_FIELDS: Final[Mapping[object, _Field]] = {
    UUID: (str, fields.required_uuid),
    int: (int, fields.integer),
    bool: (bool, fields.flag),
    str: (str, fields.required_text),
    str | None: (lambda text: text, fields.text),
    datetime | None: (fields.time_to_json, fields.time),
    Mapping[str, Json]: (dict, fields.mapping),
    tuple[TraitChange, ...]: (_changes_to_json, _changes),
}
"""How an event's field becomes JSON and is read again, by its type."""


@dataclass(frozen=True, slots=True)
class DomainEvent:
    """Something that happened, and cannot be changed any more.

    `id` is a UUIDv7. `date_occurred` is when it happened, or when we learned of it; aware. All
    other fields are the payload.
    """

    name: ClassVar[str]
    id: UUID
    date_occurred: datetime

    @property
    def subject(self) -> UUID:
        """The id of the identity that it happened to; NO_IDENTITY where that is unknown."""
        return NO_IDENTITY

    def to_json(self) -> dict[str, Json]:
        """The payload: everything but name, id and time, which are columns of the ledger."""
        payload = _PAYLOADS[type(self)]
        return {name: write(getattr(self, name)) for name, (write, _) in payload}

    @classmethod
    def from_json(cls, id: UUID, date_occurred: datetime, payload: Mapping[str, Json]) -> Self:  # noqa: A002
        """The event of that payload; raises InvalidField when it cannot be one."""
        values: list[Any] = [read(payload, name) for name, (_, read) in _PAYLOADS[cls]]
        return cls(id, date_occurred, *values)


@dataclass(frozen=True, slots=True)
class _AboutIdentity(DomainEvent):
    """An event about one identity."""

    identity_id: UUID

    @property
    def subject(self) -> UUID:
        return self.identity_id


@dataclass(frozen=True, slots=True)
class Fact(_AboutIdentity):
    """An event that follows from what Kratos said; `version` is that of our copy afterwards."""

    version: int


@dataclass(frozen=True, slots=True)
class _FirstSeen(Fact):
    traits: Mapping[str, Json] = field(repr=False)
    created_at: datetime | None


@dataclass(frozen=True, slots=True)
class IdentityRegistered(_FirstSeen):
    """A person has just made an account. `traits` is empty when Kratos has not sent them yet."""

    name: ClassVar[str] = "identity.registered"


@dataclass(frozen=True, slots=True)
class IdentityDiscovered(_FirstSeen):
    """An account that Kratos has had for a while was first seen here: no registration."""

    name: ClassVar[str] = "identity.discovered"


@dataclass(frozen=True, slots=True)
class IdentityTraitsChanged(Fact):
    """A person's traits are different: `changes` has each one that is, by name."""

    name: ClassVar[str] = "identity.traits_changed"
    changes: tuple[TraitChange, ...]


@dataclass(frozen=True, slots=True)
class AddressVerified(Fact):
    """A person has proved to own an address that was not verified before."""

    name: ClassVar[str] = "identity.address_verified"
    via: str
    value: str = field(repr=False)
    verified_at: datetime | None


@dataclass(frozen=True, slots=True)
class IdentityStateChanged(Fact):
    """An account was switched on or off: Kratos' states are "active" and "inactive"."""

    name: ClassVar[str] = "identity.state_changed"
    old: str | None
    new: str | None
    state_changed_at: datetime | None


@dataclass(frozen=True, slots=True)
class IdentityDeleted(Fact):
    """An account was deleted from Kratos, and the person's data from our copy."""

    name: ClassVar[str] = "identity.deleted"


@dataclass(frozen=True, slots=True)
class _FlowCompleted(_AboutIdentity):
    """A flow of Kratos, known from the label of the hook that called; `method` if that names it."""

    method: str | None


@dataclass(frozen=True, slots=True)
class IdentityLoggedIn(_FlowCompleted):
    """A person has logged in, by the label of the hook that called."""

    name: ClassVar[str] = "identity.logged_in"


@dataclass(frozen=True, slots=True)
class IdentityRecovered(_FlowCompleted):
    """A person has recovered an account, by the label of the hook that called."""

    name: ClassVar[str] = "identity.recovered"


@dataclass(frozen=True, slots=True)
class IdentityCredentialsChanged(_FlowCompleted):
    """A person has set or removed a credential in the settings, such as a password."""

    name: ClassVar[str] = "identity.credentials_changed"


_CREDENTIALS: Final = frozenset(
    {"password", "oidc", "totp", "webauthn", "passkey", "lookup_secret"}
)


def fact_of_flow(
    hook: str | None, identity_id: UUID, date_occurred: datetime, cause: UUID
) -> DomainEvent | None:
    """What the label of a hook says, such as ``login.after.password``; None if nothing.

    Kratos sends what an identity is, and for these flows that may be what it was before.
    """
    flow, _, rest = (hook or "").partition(".")
    after, _, method = rest.partition(".")
    kind: type[_FlowCompleted] | None = {
        "login": IdentityLoggedIn,
        "recovery": IdentityRecovered,
        "settings": IdentityCredentialsChanged if method in _CREDENTIALS else None,
    }.get(flow)
    if after != "after" or kind is None:
        return None
    event_id = fact_id(cause, f"{kind.name} {method}")
    return kind(event_id, date_occurred, identity_id, method or None)


@dataclass(frozen=True, slots=True)
class IdentityDeletionRequested(_AboutIdentity):
    """An identity is to be deleted: here first, and in Kratos once every consumer is done with it.

    `by` says who asked; with `erase` what was recorded of the person is erased too, at the end.
    """

    name: ClassVar[str] = "identity.deletion_requested"
    by: str | None = None
    erase: bool = False


@dataclass(frozen=True, slots=True)
class KratosTemplateFailed(DomainEvent):
    """Kratos called a hook with an empty body, as it does where its template worker died.

    An identity may be missing or stale here, and only the Admin API knows which. `hook` is the
    hook's label, "" where it has none.
    """

    name: ClassVar[str] = "kratos_webhook.template_failed"
    hook: str


@dataclass(frozen=True, slots=True)
class KratosIdentityUpdated(DomainEvent):
    """Kratos said what an identity is now, in a webhook or in an answer of its Admin API.

    An answer's `date_occurred` is when it was asked for, by the ledger's clock. `hinted_at` is when
    the first hint came, where that was before: the identity may have registered then, however late
    Kratos answered. `recorded_at` is when the ledger recorded a webhook, once it has; `hook` is the
    label of the hook that called.
    """

    name: ClassVar[str] = "kratos_identity.updated"
    identity: Identity
    hinted_at: datetime | None = None
    recorded_at: datetime | None = None
    hook: str | None = None

    @property
    def subject(self) -> UUID:
        return self.identity.id

    @property
    def known_at(self) -> datetime:
        """When an answer was asked for, or a webhook recorded, by the ledger's clock."""
        return self.recorded_at or self.date_occurred

    def to_json(self) -> dict[str, Json]:
        """The payload, as a webhook's body has it: the identity's document under "identity"."""
        if self.hinted_at is None:
            return {"identity": self.identity.document}
        return {"identity": self.identity.document, "heard_at": to_rfc3339(self.hinted_at)}

    @classmethod
    def from_json(
        cls,
        id: UUID,  # noqa: A002
        date_occurred: datetime,
        payload: Mapping[str, Json],
        recorded_at: datetime | None = None,
        hook: str | None = None,
    ) -> Self:
        """The event of a webhook's payload or its raw body; other keys are ignored.

        Raises InvalidField when there is no identity, InvalidIdentity when it is not one.
        """
        identity = Identity.from_kratos(fields.mapping(payload, "identity"))
        return cls(id, date_occurred, identity, None, recorded_at, hook)

    @classmethod
    def answered(cls, id: UUID, date_occurred: datetime, payload: Mapping[str, Json]) -> Self:  # noqa: A002
        """The event of the payload of an Admin API answer; raises as `from_json` does.

        That it is one is known from where the event came from, never from the payload.
        """
        identity = Identity.from_admin_api(fields.mapping(payload, "identity"))
        return cls(id, date_occurred, identity, fields.time(payload, "heard_at"))


@dataclass(frozen=True, slots=True)
class KratosIdentityGone(_AboutIdentity):
    """Kratos no longer has an identity: its Admin API answered 404."""

    name: ClassVar[str] = "kratos_identity.gone"


@dataclass(frozen=True, slots=True)
class KratosIdentityHinted(_AboutIdentity):
    """An identity is said to have changed; what it is now has to be asked of the Admin API."""

    name: ClassVar[str] = "kratos_identity.hinted"
    hook: str | None = None
    """The label of the hook that called; the ledger keeps it beside the payload."""

    def to_json(self) -> dict[str, Json]:
        """The payload: the id alone."""
        return {"identity_id": str(self.identity_id)}

    @classmethod
    def from_json(
        cls,
        id: UUID,  # noqa: A002
        date_occurred: datetime,
        payload: Mapping[str, Json],
        hook: str | None = None,
    ) -> Self:
        """The event of that payload; raises InvalidField."""
        return cls(id, date_occurred, fields.required_uuid(payload, "identity_id"), hook)


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
        "identity.logged_in": IdentityLoggedIn,
        "identity.recovered": IdentityRecovered,
        "identity.credentials_changed": IdentityCredentialsChanged,
        "identity.deletion_requested": IdentityDeletionRequested,
    }
)

_PAYLOADS: Final[Mapping[type, list[tuple[str, _Field]]]] = {
    event: [(each.name, _FIELDS[each.type]) for each in dataclasses.fields(event)[2:]]
    for event in EVENTS.values()
    if event is not KratosIdentityUpdated
}

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
"""Names of the events without personal data: an erasure leaves them as they are."""
