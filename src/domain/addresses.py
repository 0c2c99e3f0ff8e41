"""The addresses of an identity: those that can be verified, and those for recovery."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any, Final, NamedTuple, Self, TypeAlias, TypeVar
from uuid import UUID

from kratos_sync.domain import fields
from kratos_sync.domain.fields import time_to_json
from kratos_sync.domain.json_values import Json, canonical, same

_STATUS_RANKS: Final = {"pending": 1, "sent": 2, "completed": 3}
_STATUS_RANKS_ONCE_VERIFIED: Final = {"pending": 1, "completed": 2, "sent": 3}
_NOTHING: Final[Mapping[str, Json]] = {}
_NEVER: Final = datetime.min.replace(tzinfo=UTC)

Order: TypeAlias = tuple[Any, ...]


class VerifiableAddress(NamedTuple):
    """An address that a person can prove to own, known by (via, value) whatever its id.

    Verifying moves `verified`, `status` and `verified_at`, and no other time.
    """

    id: UUID | None
    value: str
    verified: bool
    via: str
    status: str | None
    verified_at: datetime | None
    created_at: datetime | None
    updated_at: datetime | None
    unknown: Mapping[str, Json] = _NOTHING

    def __eq__(self, other: object) -> bool:
        """Whether both say the same, however their numbers are spelled."""
        return (
            isinstance(other, VerifiableAddress)
            and self[:-1] == other[:-1]
            and same(self.unknown, other.unknown)
        )

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash((self.via, self.value))

    def __repr__(self) -> str:
        """The id alone: all else is personal."""
        return f"VerifiableAddress(id={self.id!r})"

    @classmethod
    def from_kratos(cls, source: Mapping[str, Json]) -> Self:
        """Read one item of `verifiable_addresses`; raises InvalidField naming what is wrong."""
        return cls(
            fields.uuid(source, "id"),
            fields.required_text(source, "value"),
            fields.flag(source, "verified"),
            fields.required_text(source, "via"),
            fields.text(source, "status"),
            fields.time(source, "verified_at"),
            fields.time(source, "created_at"),
            fields.time(source, "updated_at"),
            _others(source, _VERIFIABLE_FIELDS),
        )

    def with_unknown(self, unknown: Mapping[str, Json]) -> Self:
        """The same address with other unknown fields."""
        return self._replace(unknown=unknown)

    def to_kratos(self) -> dict[str, Json]:
        """The JSON object that Kratos would send for this address."""
        verified_at = time_to_json(self.verified_at)
        return _to_kratos(self, verified=self.verified, status=self.status, verified_at=verified_at)

    @property
    def order(self) -> Order:
        """Where this stands among equally recent reports of the address.

        Its status climbs from pending to sent to completed. One that is verified may be sent
        another code, which makes it "sent" again, and verified still.
        """
        ranks = _STATUS_RANKS_ONCE_VERIFIED if self.verified else _STATUS_RANKS
        rank = ranks.get(self.status or "", 0)
        verified_at = self.verified_at or _NEVER
        return self.verified, verified_at, rank, self.status or "", *_order_of_the_rest(self)


@dataclass(frozen=True, slots=True)
class RecoveryAddress:
    """An address that Kratos sends recovery codes to, known by (via, value) whatever its id."""

    id: UUID | None
    value: str = field(repr=False)
    via: str = field(repr=False)
    created_at: datetime | None = field(repr=False)
    updated_at: datetime | None = field(repr=False)
    unknown: Mapping[str, Json] = field(repr=False, default_factory=dict)

    def __eq__(self, other: object) -> bool:
        """Whether both say the same, however their numbers are spelled."""
        return (
            isinstance(other, RecoveryAddress)
            and _without_unknown(self) == _without_unknown(other)
            and same(self.unknown, other.unknown)
        )

    def __hash__(self) -> int:
        return hash((self.via, self.value))

    @classmethod
    def from_kratos(cls, source: Mapping[str, Json]) -> Self:
        """Read one item of `recovery_addresses`; raises InvalidField naming what is wrong."""
        return cls(
            fields.uuid(source, "id"),
            fields.required_text(source, "value"),
            fields.required_text(source, "via"),
            fields.time(source, "created_at"),
            fields.time(source, "updated_at"),
            _others(source, _RECOVERY_FIELDS),
        )

    def with_unknown(self, unknown: Mapping[str, Json]) -> Self:
        """The same address with other unknown fields."""
        return replace(self, unknown=unknown)

    def to_kratos(self) -> dict[str, Json]:
        """The JSON object that Kratos would send for this address."""
        return _to_kratos(self)

    @property
    def order(self) -> Order:
        """Where this stands among equally recent reports of the address."""
        return _order_of_the_rest(self)


AnyAddress = TypeVar("AnyAddress", bound=VerifiableAddress | RecoveryAddress)


def united(addresses: Collection[AnyAddress]) -> tuple[AnyAddress, ...]:
    """Each (via, value) once, at its greatest `order`, sorted: two equal sets are equal tuples."""
    if len(addresses) <= 1:
        return tuple(addresses)
    by_key = {(address.via, address.value): address for address in addresses}
    if len(by_key) != len(addresses):
        ascending = sorted(addresses, key=attrgetter("order"))
        by_key = {(address.via, address.value): address for address in ascending}
    return tuple([by_key[key] for key in sorted(by_key)])


def _others(source: Mapping[str, Json], known: frozenset[str]) -> Mapping[str, Json]:
    if known.issuperset(source):
        return _NOTHING
    return {key: value for key, value in source.items() if key not in known}


def _order_of_the_rest(address: VerifiableAddress | RecoveryAddress) -> Order:
    unknown = canonical(dict(address.unknown))
    return address.updated_at or _NEVER, address.created_at or _NEVER, str(address.id), unknown


def _to_kratos(
    address: VerifiableAddress | RecoveryAddress, **verification: Json
) -> dict[str, Json]:
    shape: dict[str, Json] = {
        "id": None if address.id is None else str(address.id),
        "value": address.value,
        "via": address.via,
        **verification,
        "created_at": time_to_json(address.created_at),
        "updated_at": time_to_json(address.updated_at),
    }
    return {**{key: value for key, value in shape.items() if value is not None}, **address.unknown}


_RECOVERY_FIELDS: Final = frozenset({"id", "value", "via", "created_at", "updated_at"})
_without_unknown: Final = attrgetter(*_RECOVERY_FIELDS)
_VERIFIABLE_FIELDS: Final = _RECOVERY_FIELDS | {"verified", "status", "verified_at"}
