"""A webhook without a body: Kratos' template failed, and whom it was about nobody knows."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Final, Self
from uuid import UUID

from domain import fields
from domain.json_values import Json

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
