"""Somebody here wants an identity deleted, and Kratos has it still."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Self
from uuid import UUID

from domain import fields
from domain.json_values import Json


@dataclass(frozen=True, slots=True)
class IdentityDeletionRequested:
    """An identity is to be deleted: here first, and in Kratos once everybody here is done.

    `by` says who asked; with `erase` what was recorded of the person goes too, at the end.
    """

    name: ClassVar[str] = "identity.deletion_requested"
    id: UUID
    date_occurred: datetime
    identity_id: UUID
    by: str | None = None
    erase: bool = False

    @property
    def subject(self) -> UUID:
        """The identity's id."""
        return self.identity_id

    def to_json(self) -> dict[str, Json]:
        """The payload: everything but name, id and time, which are columns of the ledger."""
        return {"identity_id": str(self.identity_id), "by": self.by, "erase": self.erase}

    @classmethod
    def from_json(cls, id: UUID, date_occurred: datetime, payload: Mapping[str, Json]) -> Self:  # noqa: A002
        """The event of that payload; raises InvalidField."""
        identity_id = fields.required_uuid(payload, "identity_id")
        by = fields.text_or_none(payload, "by")
        return cls(id, date_occurred, identity_id, by, fields.flag(payload, "erase"))
