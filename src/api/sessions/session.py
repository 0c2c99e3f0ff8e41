"""A session as Kratos tells of it, and the user that Starlette knows by it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Self
from uuid import UUID

from starlette.authentication import BaseUser

from domain import fields
from domain.identity import Identity
from domain.json_values import Json


@dataclass(frozen=True, slots=True)
class KratosSession:
    """What `/sessions/whoami` answered; times are in UTC. There is no token in it."""

    id: UUID
    identity: Identity
    active: bool
    aal: str | None
    """How sure Kratos is: "aal1", or "aal2" after a second factor."""
    authenticated_at: datetime | None
    expires_at: datetime | None
    methods: tuple[str, ...] = field(repr=False)
    """How the person proved who they are: "password", "totp" …, in order."""

    @classmethod
    def from_kratos(cls, document: Mapping[str, Json]) -> Self:
        """Read a session; raises InvalidField for what is none."""
        return cls(
            fields.required_uuid(document, "id"),
            Identity.from_kratos(fields.mapping(document, "identity")),
            fields.flag(document, "active"),
            fields.text_or_none(document, "authenticator_assurance_level"),
            fields.time_or_none(document, "authenticated_at"),
            fields.time_or_none(document, "expires_at"),
            tuple(
                fields.required_text(each, "method")
                for each in fields.mappings(document, "authentication_methods")
            ),
        )

    @property
    def is_active(self) -> bool:
        """Whether neither the session nor the identity has been switched off."""
        return self.active and self.identity.state != "inactive"


class KratosUser(BaseUser):
    """Somebody who has a session; `request.user` of a request that is authenticated."""

    def __init__(self, session: KratosSession, display_name: str) -> None:
        self.session = session
        self._display_name = display_name

    @property
    def is_authenticated(self) -> bool:
        """True: whoever is not authenticated is Starlette's UnauthenticatedUser."""
        return True

    @property
    def display_name(self) -> str:
        """What the application calls people; the identity's id unless it says otherwise."""
        return self._display_name

    @property
    def identity(self) -> str:
        """The identity's id as text, as Starlette has it; all of it is `session.identity`."""
        return str(self.session.identity.id)

    @property
    def id(self) -> UUID:
        """The identity's id: the key of `kratos_identities`."""
        return self.session.identity.id

    def __repr__(self) -> str:
        """The id alone: all else is personal."""
        return f"KratosUser(id={self.id!r})"
