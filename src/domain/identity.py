"""What Kratos said of a person, at one moment, in one document."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter
from typing import Final, Self, TypeAlias
from uuid import UUID

from domain import fields
from domain.addresses import AnyAddress, RecoveryAddress, VerifiableAddress, united
from domain.fields import InvalidField
from domain.json_values import ABSENT, Absent, Json

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
_values: Final = attrgetter(*PARTS)
_LEFT_OUT_WHEN_EMPTY: Final = ("external_id", "state_changed_at", "region")


class InvalidIdentity(InvalidField):
    """A document is not an identity as Kratos sends it; names the field, never the value."""


class IdentityIdIsEmpty(InvalidIdentity):
    """The id is missing, null, empty or all zeros, as in a call made before Kratos stored it."""


@dataclass(frozen=True, slots=True)
class Identity:
    """One snapshot of an identity; `ABSENT` where the document has no such key.

    Times are aware, in UTC, cut to microseconds, and None where Kratos sent null or Go's zero
    time. Addresses are sets: sorted, each (via, value) once. `unknown` keeps the fields that this
    code does not know. `document` is the JSON as sent, less `credentials`: never change it.
    """

    id: UUID
    external_id: str | Absent | None = field(default=ABSENT, repr=False)
    schema_id: str | Absent | None = field(default=ABSENT, repr=False)
    schema_url: str | Absent | None = field(default=ABSENT, repr=False)
    state: str | Absent | None = field(default=ABSENT, repr=False)
    state_changed_at: datetime | Absent | None = field(default=ABSENT, repr=False)
    traits: Json | Absent = field(default=ABSENT, repr=False)
    verifiable_addresses: tuple[VerifiableAddress, ...] | Absent = field(default=ABSENT, repr=False)
    recovery_addresses: tuple[RecoveryAddress, ...] | Absent = field(default=ABSENT, repr=False)
    metadata_public: Json | Absent = field(default=ABSENT, repr=False)
    metadata_admin: Json | Absent = field(default=ABSENT, repr=False)
    created_at: datetime | Absent | None = field(default=ABSENT, repr=False)
    updated_at: datetime | Absent | None = field(default=ABSENT, repr=False)
    organization_id: UUID | Absent | None = field(default=ABSENT, repr=False)
    region: str | Absent | None = field(default=ABSENT, repr=False)
    unknown: Mapping[str, Json] = field(default_factory=dict, repr=False)
    document: dict[str, Json] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_kratos(cls, document: Mapping[str, Json]) -> Self:
        """Read an identity as webhooks (`ctx.identity`) and the Admin API write it.

        Only `id` is required. Raises IdentityIdIsEmpty, or InvalidIdentity naming the field.
        """
        try:
            return cls(
                id=_identity_id(document),
                external_id=fields.text(document, "external_id"),
                schema_id=fields.text(document, "schema_id"),
                schema_url=fields.text(document, "schema_url"),
                state=fields.text(document, "state"),
                state_changed_at=fields.time(document, "state_changed_at"),
                traits=document.get("traits", ABSENT),
                verifiable_addresses=_addresses(
                    document, "verifiable_addresses", VerifiableAddress.from_kratos
                ),
                recovery_addresses=_addresses(
                    document, "recovery_addresses", RecoveryAddress.from_kratos
                ),
                metadata_public=document.get("metadata_public", ABSENT),
                metadata_admin=document.get("metadata_admin", ABSENT),
                created_at=fields.time(document, "created_at"),
                updated_at=fields.time(document, "updated_at"),
                organization_id=fields.uuid(document, "organization_id"),
                region=fields.text(document, "region"),
                unknown=_unknown(document),
                document=_without_credentials(document),
            )
        except InvalidIdentity:
            raise
        except InvalidField as invalid:
            raise InvalidIdentity(invalid.field, invalid.problem) from None

    @property
    def is_exact(self) -> bool:
        """Whether this came from the Admin API: no webhook carries `metadata_admin`."""
        return self.metadata_admin is not ABSENT

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

    def parts(self) -> dict[str, Part]:
        """What this says of each part, unknown fields too; what it is silent about is left out.

        Kratos leaves out what is empty, so in a whole snapshot an absent scalar is none. Absent
        addresses are none only in an exact one: a webhook may not have loaded them.
        """
        values: tuple[Part | Absent, ...] = _values(self)
        said = {
            part: value for part, value in zip(PARTS, values, strict=True) if value is not ABSENT
        }
        said.update(self.unknown)
        if self.is_whole:
            for part in _LEFT_OUT_WHEN_EMPTY:
                said.setdefault(part, None)
        if self.is_exact:
            for part in ADDRESSES:
                said.setdefault(part, ())
        return said


_KNOWN: Final = frozenset(Identity.__dataclass_fields__) - {"unknown", "document"} | {"credentials"}


def _identity_id(document: Mapping[str, Json]) -> UUID:
    if document.get("id") in (None, ""):
        raise IdentityIdIsEmpty("id", "is empty")
    identity_id = fields.uuid(document, "id")
    if not isinstance(identity_id, UUID) or identity_id.int == 0:
        raise IdentityIdIsEmpty("id", "is empty")
    return identity_id


def _addresses(
    document: Mapping[str, Json],
    name: str,
    read: Callable[[Mapping[str, Json]], AnyAddress],
) -> tuple[AnyAddress, ...] | Absent:
    if document.get(name) is None:
        return ABSENT
    addresses: list[AnyAddress] = []
    for index, source in enumerate(fields.mappings(document, name)):
        try:
            addresses.append(read(source))
        except InvalidField as invalid:
            raise InvalidIdentity(f"{name}[{index}].{invalid.field}", invalid.problem) from None
    return united(addresses)


def _unknown(document: Mapping[str, Json]) -> dict[str, Json]:
    if _KNOWN.issuperset(document):
        return {}
    return {key: value for key, value in document.items() if key not in _KNOWN}


def _without_credentials(document: Mapping[str, Json]) -> dict[str, Json]:
    if isinstance(document, dict) and "credentials" not in document:
        return document
    return {key: value for key, value in document.items() if key != "credentials"}
