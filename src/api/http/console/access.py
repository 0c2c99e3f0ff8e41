"""Who uses the console, and what each role may do."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self

NO_ROLE: Final = "You are signed in, and have no role here: viewer, operator or privacy."


class NoRole(Exception):
    """Somebody is signed in who has no role here: to sign in again would change nothing."""


class SecondFactorNeeded(Exception):
    """Somebody is signed in, and is not shown to us without a second factor."""


class Role(StrEnum):
    """What an operator may do; nobody has one that was not given to him."""

    VIEWER = "viewer"
    """See everything without personal data."""
    OPERATOR = "operator"
    """Change what is delivered, and repair the copy."""
    PRIVACY = "privacy"
    """See the personal data of one person at a time, giving a reason; erase and delete."""


@dataclass(frozen=True, slots=True)
class Operator:
    """A person who signed in.

    ``name`` is written to the audit trail. ``second_factor`` is whether the person proved who he is
    by a second factor, which erasing asks for.
    """

    name: str
    roles: frozenset[Role]
    second_factor: bool = False

    @classmethod
    def with_roles(cls, name: str, roles: Iterable[object], *, second_factor: bool) -> Self:
        """An operator with those of the roles that exist; raises NoRole without any.

        The other roles include that of a viewer.
        """
        given = list(roles)
        known = {role for role in Role if role in given}
        if not known:
            raise NoRole
        return cls(name, frozenset({*known, Role.VIEWER}), second_factor)

    def may(self, role: Role) -> bool:
        """Whether the operator has this role."""
        return role in self.roles
