"""The snapshot of an identity: what Kratos said of it at one moment, in one document."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from operator import attrgetter, getitem
from typing import Any, Final, NamedTuple, Self, TypeAlias
from uuid import UUID

from kratos_sync.domain import fields
from kratos_sync.domain.addresses import AnyAddress, RecoveryAddress, VerifiableAddress, united
from kratos_sync.domain.fields import InvalidField
from kratos_sync.domain.json_values import ABSENT, Absent, Json

Part: TypeAlias = (
    Json | datetime | UUID | tuple[VerifiableAddress, ...] | tuple[RecoveryAddress, ...]
)
Document: TypeAlias = dict[str, Json]

SCALARS: Final[Mapping[str, Callable[[Mapping[str, Json], str], Part]]] = {
    "external_id": fields.text,
    "schema_id": fields.text,
    "schema_url": fields.text,
    "state": fields.text,
    "state_changed_at": fields.time,
    "created_at": fields.time,
    "organization_id": fields.uuid,
    "region": fields.text,
}
"""The parts that are one value each, with their readers.

Columns, the check of webhook bodies and the OpenAPI description follow from this table. A new one
needs a field of `Identity` and of `KratosIdentity`, and a migration.
"""
ADDRESSES: Final = ("verifiable_addresses", "recovery_addresses")
PARTS: Final = (*SCALARS, "traits", "metadata_public", "metadata_admin", *ADDRESSES)
LEFT_OUT_WHEN_EMPTY: Final = ("external_id", "state_changed_at", "region")
NEVER_IN_WEBHOOKS: Final = frozenset({"metadata_admin"})

_NOTHING: Final[Mapping[str, Json]] = {}
_NO_DOCUMENT: Final[Document] = {}
_EMPTY_SCALARS: Final[Mapping[str, Part]] = dict.fromkeys(LEFT_OUT_WHEN_EMPTY)
_NO_ADDRESSES: Final[Mapping[str, Part]] = dict.fromkeys(ADDRESSES, ())


class InvalidIdentity(InvalidField):
    """A document is not an identity as Kratos sends it; names the field, never the value."""


class IdentityIdIsEmpty(InvalidIdentity):
    """The id is missing, null, empty or all zeros, as in a call made before Kratos stored it."""


class Identity(NamedTuple):
    """One snapshot of an identity; `ABSENT` where the document has no such key.

    Times are aware, in UTC, cut to microseconds, and None where Kratos sent null or Go's zero
    time. Addresses are sets: sorted, each (via, value) once. `unknown` keeps the fields that this
    code does not know. `document` is the JSON as sent, less what is dropped: never change it.
    `is_exact` is for what we ourselves fetched from the Admin API, whatever a document says.
    """

    id: UUID
    updated_at: datetime | Absent | None = ABSENT
    external_id: str | Absent | None = ABSENT
    schema_id: str | Absent | None = ABSENT
    schema_url: str | Absent | None = ABSENT
    state: str | Absent | None = ABSENT
    state_changed_at: datetime | Absent | None = ABSENT
    created_at: datetime | Absent | None = ABSENT
    organization_id: UUID | Absent | None = ABSENT
    region: str | Absent | None = ABSENT
    traits: Json | Absent = ABSENT
    metadata_public: Json | Absent = ABSENT
    metadata_admin: Json | Absent = ABSENT
    verifiable_addresses: tuple[VerifiableAddress, ...] | Absent = ABSENT
    recovery_addresses: tuple[RecoveryAddress, ...] | Absent = ABSENT
    unknown: Mapping[str, Json] = _NOTHING
    document: Document = _NO_DOCUMENT
    is_exact: bool = False

    @classmethod
    def from_kratos(cls, document: Document) -> Self:
        """Read an identity as webhooks write it (`ctx.identity`).

        Only `id` is required. What no webhook of Kratos carries is dropped: `credentials`, and
        `metadata_admin`. Raises IdentityIdIsEmpty, or InvalidIdentity naming the field.
        """
        if "metadata_admin" in document:
            document = {key: value for key, value in document.items() if key != "metadata_admin"}
        return cls._read(document, is_exact=False)

    @classmethod
    def from_admin_api(cls, document: Document) -> Self:
        """Read an identity as we fetched it from the Admin API; raises as `from_kratos` does."""
        return cls._read(document, is_exact=True)

    @classmethod
    def _read(cls, document: Document, *, is_exact: bool) -> Self:
        try:
            values = [
                read(document, name) if name in document else ABSENT for name, read in _READERS
            ]
            return cls._make([_identity_id(document), *values, *_rest(document), is_exact])
        except InvalidIdentity:
            raise
        except InvalidField as invalid:
            raise InvalidIdentity(invalid.field, invalid.problem) from None

    @property
    def parts_as_sent(self) -> tuple[Part | Absent, ...]:
        """The values of `PARTS`, in their order."""
        parts: tuple[Any, ...] = self[_FIRST_PART:_AFTER_PARTS]
        return parts

    @property
    def is_whole(self) -> bool:
        """Whether every key is there that Kratos never leaves out."""
        return ABSENT not in _always_sent(self)

    @property
    def values_of_missing(self) -> Mapping[str, Part]:
        """The parts whose absence says that they are empty.

        Kratos leaves out what is empty, so in a whole snapshot an absent scalar is none. Absent
        addresses are none only in an exact one: a webhook may not have loaded them.
        """
        missing: Mapping[str, Part] = _EMPTY_SCALARS if self.is_whole else {}
        return {**missing, **_NO_ADDRESSES} if self.is_exact else missing

    def parts(self) -> dict[str, Part]:
        """The value of each part that it has, or whose absence says that it is empty."""
        pairs = zip(PARTS, self.parts_as_sent, strict=True)
        sent = {part: value for part, value in pairs if value is not ABSENT}
        return {**self.values_of_missing, **sent, **self.unknown}

    def __eq__(self, other: object) -> bool:
        """Whether both say the same, however their documents spell it."""
        return (
            isinstance(other, Identity)
            and self[:-2] == other[:-2]
            and self.is_exact is other.is_exact
        )

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        """The id's: equal snapshots have it in common."""
        return hash(self.id)

    def __repr__(self) -> str:
        """The id alone: all else is personal."""
        return f"Identity(id={self.id!r})"


_FIRST_PART: Final = Identity._fields.index(PARTS[0])
_AFTER_PARTS: Final = _FIRST_PART + len(PARTS)
_KNOWN: Final = frozenset({"id", "updated_at", *PARTS})
KEYS: Final = _KNOWN | {"credentials"}
"""The fields of a document that are not unknown."""
_always_sent: Final = attrgetter(
    "updated_at",
    "schema_id",
    "state",
    "traits",
    "created_at",
    "organization_id",
    "metadata_public",
)


def _identity_id(document: Document) -> UUID:
    identity_id = fields.uuid(document, "id") if document.get("id") != "" else None
    if identity_id is None or identity_id.int == 0:
        raise IdentityIdIsEmpty("id", "is empty")
    return identity_id


def _addresses(
    read: Callable[[Mapping[str, Json]], AnyAddress], document: Document, name: str
) -> tuple[AnyAddress, ...] | Absent:
    if document[name] is None:
        return ABSENT
    sources = fields.mappings(document, name)
    try:
        return united([read(source) for source in sources])
    except InvalidField:
        raise _invalid_address(name, sources, read) from None


def _invalid_address(
    name: str, sources: Sequence[Document], read: Callable[[Document], object]
) -> InvalidIdentity:
    for index, source in enumerate(sources):
        try:
            read(source)
        except InvalidField as invalid:
            return InvalidIdentity(f"{name}[{index}].{invalid.field}", invalid.problem)
    raise AssertionError(f"every item of {name} is an address")


_READERS: Final[Sequence[tuple[str, Callable[[Document, str], object]]]] = (
    ("updated_at", fields.time),
    *SCALARS.items(),
    ("traits", getitem),
    ("metadata_public", getitem),
    ("metadata_admin", getitem),
    ("verifiable_addresses", partial(_addresses, VerifiableAddress.from_kratos)),
    ("recovery_addresses", partial(_addresses, RecoveryAddress.from_kratos)),
)


def _rest(document: Document) -> tuple[Mapping[str, Json], Document]:
    """The fields that we do not know, and the document without what must not be kept."""
    if _KNOWN.issuperset(document):
        return _NOTHING, document
    unknown = {key: value for key, value in document.items() if key not in KEYS}
    if "credentials" not in document:
        return unknown, document
    return unknown, {key: value for key, value in document.items() if key != "credentials"}
