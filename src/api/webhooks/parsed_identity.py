"""What a `parse` hook asks about, and what may be stored instead."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, Self, TypedDict
from uuid import UUID

from domain import fields
from domain.json_values import Json


@dataclass(frozen=True, slots=True)
class ParsedIdentity:
    """An identity as it would be stored; at a registration it has no id, and times of year 1."""

    id: UUID | None
    schema_id: str | None
    state: str | None
    external_id: str | None = field(repr=False)
    traits: Mapping[str, Json] = field(repr=False)
    metadata_public: Json = field(repr=False)
    document: Mapping[str, Json] = field(repr=False)
    """All of it as Kratos sent it; to change something, return it."""

    @property
    def is_registration(self) -> bool:
        """Whether Kratos asks before it stores a new identity; that may still fail afterwards."""
        return self.id is None

    @classmethod
    def from_kratos(cls, document: Mapping[str, Json]) -> Self:
        """Read `ctx.identity` of a `parse` hook; raises InvalidField."""
        known = None if document.get("id") == "" else fields.uuid(document, "id")
        traits = document.get("traits")
        return cls(
            id=known if isinstance(known, UUID) and known.int else None,
            schema_id=fields.text_or_none(document, "schema_id"),
            state=fields.text_or_none(document, "state"),
            external_id=fields.text_or_none(document, "external_id"),
            traits=MappingProxyType(traits if isinstance(traits, dict) else {}),
            metadata_public=document.get("metadata_public"),
            document=MappingProxyType(dict(document)),
        )


class IdentityChanges(TypedDict, total=False):
    """What to store instead. Each field replaces the whole of Kratos' own: give all traits."""

    traits: Mapping[str, Json]
    schema_id: str
    state: Literal["active", "inactive"]
    verifiable_addresses: list[Json]
    recovery_addresses: list[Json]
    metadata_public: Json
    metadata_admin: Json
    external_id: str
