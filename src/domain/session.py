"""A session of Kratos: who it is, how the person proved it, and until when."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Self
from uuid import UUID

from kratos_sync.domain import fields
from kratos_sync.domain.identity import Identity
from kratos_sync.domain.json_values import Json


@dataclass(frozen=True, slots=True)
class KratosSession:
    """A session as `/sessions/whoami` shows it, without its token; times are in UTC."""

    id: UUID
    identity: Identity
    active: bool
    aal: str | None
    """The authenticator assurance level: "aal1", or "aal2" after a second factor."""
    authenticated_at: datetime | None
    expires_at: datetime | None
    methods: tuple[str, ...] = field(repr=False)
    """The methods of authentication, in order: "password", "totp" …"""

    @classmethod
    def from_kratos(cls, document: Mapping[str, Json]) -> Self:
        """Read a session; raises InvalidField if it is none."""
        return cls(
            fields.required_uuid(document, "id"),
            Identity.from_kratos(fields.mapping(document, "identity")),
            fields.flag(document, "active"),
            fields.text(document, "authenticator_assurance_level"),
            fields.time(document, "authenticated_at"),
            fields.time(document, "expires_at"),
            tuple(
                fields.required_text(each, "method")
                for each in fields.mappings(document, "authentication_methods")
            ),
        )

    @property
    def is_active(self) -> bool:
        """Whether both the session and the identity are active."""
        return self.active and self.identity.state != "inactive"


def no_scopes(session: KratosSession) -> Iterable[str]:  # noqa: ARG001
    """The scopes of every session, unless an application says otherwise: none."""
    return ()
