"""Which identities a deployment holds, where several share those of one Kratos."""

import re
from dataclasses import dataclass
from typing import Final
from uuid import UUID

_DIGITS: Final = 32
_GIVEN: Final = re.compile(r"([0-9a-f]{1,8})(?:-([0-9a-f]{1,8}))?", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class IdRange:
    """Identities whose ids begin with certain hex digits.

    Kratos makes ids at random, so that a sixteenth of the identities is behind each first digit.
    """

    first: UUID
    last: UUID

    @classmethod
    def parse(cls, text: str) -> "IdRange":
        """Read the first digits of ids: ``a``, or from ``0-7`` or ``00-3f``; else ValueError."""
        found = _GIVEN.fullmatch(text)
        if found is None:
            raise ValueError("must be the first hex digits of ids: one such as a, or 0-7, or 00-3f")
        first, last = found[1], found[2] or found[1]
        ids = cls(UUID(first.ljust(_DIGITS, "0")), UUID(last.ljust(_DIGITS, "f")))
        if ids.first > ids.last:
            raise ValueError(f"{first} comes after {last}")
        return ids

    def __contains__(self, identity_id: UUID) -> bool:
        return self.first <= identity_id <= self.last

    def __str__(self) -> str:
        """The shortest digits that say it."""
        first, last = self.first.hex.rstrip("0"), self.last.hex.rstrip("f")
        length = max(len(first), len(last), 1)
        first, last = self.first.hex[:length], self.last.hex[:length]
        return first if first == last else f"{first}-{last}"


ALL_IDS: Final = IdRange.parse("0-f")
