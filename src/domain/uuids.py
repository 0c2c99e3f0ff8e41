"""UUIDs as Kratos writes them, and as we make them out of numbers."""

from binascii import unhexlify
from typing import Final
from uuid import UUID, SafeUUID

_UNKNOWN: Final = SafeUUID.unknown
_new: Final = object.__new__
_set: Final = object.__setattr__
_number: Final = int.from_bytes


def from_text(text: str) -> UUID | None:
    """The UUID that is written in its 36-character form, upper or lower case; None for the rest."""
    if len(text) != 36 or text[8:24:5] != "----":  # noqa: PLR2004
        return None
    try:
        digits = unhexlify(text.replace("-", ""))
    except ValueError:
        return None
    if len(digits) != 16:  # noqa: PLR2004
        return None
    uuid = _new(UUID)
    _set(uuid, "int", _number(digits))
    _set(uuid, "is_safe", _UNKNOWN)
    return uuid


def from_number(number: int) -> UUID:
    """The UUID of a number that must be below 2**128: what `UUID(int=number)` gives."""
    # UUID() weighs its six ways to be called, which takes longer than everything else here.
    uuid = _new(UUID)
    _set(uuid, "int", number)
    _set(uuid, "is_safe", _UNKNOWN)
    return uuid
