"""What Kratos said of a person, at one moment, in one document."""

from collections.abc import Callable, Mapping
from datetime import datetime
from operator import attrgetter
from typing import Final, NamedTuple, Self, TypeAlias
from uuid import UUID

from kratos_sync.domain import fields
from kratos_sync.domain.addresses import AnyAddress, RecoveryAddress, VerifiableAddress, united
from kratos_sync.domain.fields import InvalidField
from kratos_sync.domain.json_values import ABSENT, Absent, Json

Part: TypeAlias = (
    Json | datetime | UUID | tuple[VerifiableAddress, ...] | tuple[RecoveryAddress, ...]
)

SCALARS: Final = (
    "external_id",
    "schema_id",
    "schema_url",
    "state",
    "state_changed_at",
    "created_at",
    "organization_id",
    "region",
)
ADDRESSES: Final = ("verifiable_addresses", "recovery_addresses")
PARTS: Final = (*SCALARS, "traits", "metadata_public", "metadata_admin", *ADDRESSES)
LEFT_OUT_WHEN_EMPTY: Final = ("external_id", "state_changed_at", "region")
NEVER_IN_WEBHOOKS: Final = frozenset({"metadata_admin"})

_values: Final = attrgetter(*PARTS)
_NOTHING: Final[Mapping[str, Json]] = {}
_NO_DOCUMENT: Final[dict[str, Json]] = {}
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
    external_id: str | Absent | None = ABSENT
    schema_id: str | Absent | None = ABSENT
    schema_url: str | Absent | None = ABSENT
    state: str | Absent | None = ABSENT
    state_changed_at: datetime | Absent | None = ABSENT
    traits: Json | Absent = ABSENT
    verifiable_addresses: tuple[VerifiableAddress, ...] | Absent = ABSENT
    recovery_addresses: tuple[RecoveryAddress, ...] | Absent = ABSENT
    metadata_public: Json | Absent = ABSENT
    metadata_admin: Json | Absent = ABSENT
    created_at: datetime | Absent | None = ABSENT
    updated_at: datetime | Absent | None = ABSENT
    organization_id: UUID | Absent | None = ABSENT
    region: str | Absent | None = ABSENT
    unknown: Mapping[str, Json] = _NOTHING
    document: dict[str, Json] = _NO_DOCUMENT
    is_exact: bool = False

    @classmethod
    def from_kratos(cls, document: Mapping[str, Json]) -> Self:
        """Read an identity as webhooks write it (`ctx.identity`).

        Only `id` is required. What no webhook of Kratos carries is dropped: `credentials`, and
        `metadata_admin`. Raises IdentityIdIsEmpty, or InvalidIdentity naming the field.
        """
        if "metadata_admin" in document:
            document = {key: value for key, value in document.items() if key != "metadata_admin"}
        return cls._read(document)

    @classmethod
    def from_admin_api(cls, document: Mapping[str, Json]) -> Self:
        """Read an identity as we fetched it from the Admin API; raises as `from_kratos` does."""
        return cls._read(document)._replace(is_exact=True)

    @classmethod
    def _read(cls, document: Mapping[str, Json]) -> Self:
        try:
            return cls(
                _identity_id(document),
                fields.text(document, "external_id"),
                fields.text(document, "schema_id"),
                fields.text(document, "schema_url"),
                fields.text(document, "state"),
                fields.time(document, "state_changed_at"),
                document.get("traits", ABSENT),
                _addresses(document, "verifiable_addresses", VerifiableAddress.from_kratos),
                _addresses(document, "recovery_addresses", RecoveryAddress.from_kratos),
                document.get("metadata_public", ABSENT),
                document.get("metadata_admin", ABSENT),
                fields.time(document, "created_at"),
                fields.time(document, "updated_at"),
                fields.uuid(document, "organization_id"),
                fields.text(document, "region"),
                *_rest(document),
            )
        except InvalidIdentity:
            raise
        except InvalidField as invalid:
            raise InvalidIdentity(invalid.field, invalid.problem) from None

    @property
    def is_whole(self) -> bool:
        """Whether every key is there that Kratos never leaves out."""
        return (
            self.schema_id is not ABSENT
            and self.state is not ABSENT
            and self.traits is not ABSENT
            and self.created_at is not ABSENT
            and self.updated_at is not ABSENT
            and self.organization_id is not ABSENT
            and self.metadata_public is not ABSENT
        )

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
        values: tuple[Part | Absent, ...] = _values(self)
        said = {
            part: value for part, value in zip(PARTS, values, strict=True) if value is not ABSENT
        }
        return {**self.values_of_missing, **said, **self.unknown}

    def __eq__(self, other: object) -> bool:
        """Whether both say the same, however their documents spell it."""
        return (
            isinstance(other, Identity)
            and self[:-2] == other[:-2]
            and self.is_exact is other.is_exact
        )

    def __ne__(self, other: object) -> bool:
        """Whether they say different things."""
        return not self == other

    def __hash__(self) -> int:
        """The id's: equal snapshots have it in common."""
        return hash(self.id)

    def __repr__(self) -> str:
        """The id alone: all else is personal."""
        return f"Identity(id={self.id!r})"


_KNOWN: Final = frozenset(Identity._fields) - {"unknown", "document", "is_exact"}
KEYS: Final = _KNOWN | {"credentials"}
"""The fields of a document that are not unknown."""


def _identity_id(document: Mapping[str, Json]) -> UUID:
    if document.get("id") == "":
        raise IdentityIdIsEmpty("id", "is empty")
    identity_id = fields.uuid_or_none(document, "id")
    if identity_id is None or identity_id.int == 0:
        raise IdentityIdIsEmpty("id", "is empty")
    return identity_id


def _addresses(
    document: Mapping[str, Json],
    name: str,
    read: Callable[[Mapping[str, Json]], AnyAddress],
) -> tuple[AnyAddress, ...] | Absent:
    if document.get(name) is None:
        return ABSENT
    sources = fields.mappings(document, name)
    try:
        return united([read(source) for source in sources])
    except InvalidField:
        raise _invalid_address(name, sources, read) from None


def _invalid_address(
    name: str, sources: list[dict[str, Json]], read: Callable[[Mapping[str, Json]], object]
) -> InvalidIdentity:
    for index, source in enumerate(sources):
        try:
            read(source)
        except InvalidField as invalid:
            return InvalidIdentity(f"{name}[{index}].{invalid.field}", invalid.problem)
    raise AssertionError(f"every item of {name} is an address")


def _rest(document: Mapping[str, Json]) -> tuple[Mapping[str, Json], dict[str, Json]]:
    """The fields that we do not know, and the document without what must not be kept."""
    if _KNOWN.issuperset(document) and isinstance(document, dict):
        return _NOTHING, document
    unknown = {key: value for key, value in document.items() if key not in KEYS}
    if isinstance(document, dict) and "credentials" not in document:
        return unknown, document
    return unknown, {key: value for key, value in document.items() if key != "credentials"}
