"""What every fact has in common: an id that follows from its cause, and whom it is about."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from typing import Final
from uuid import UUID

from domain import fields
from domain.json_values import Json
from domain.uuids import from_number

_TIMESTAMP: Final = ((1 << 48) - 1) << 80
_VERSION_AND_VARIANT: Final = 0xF << 76 | 0b11 << 62
_VERSION_7_OF_RFC_9562: Final = 0x7 << 76 | 0b10 << 62


def fact_id(cause: UUID, what: str) -> UUID:
    """The id of the fact that the event `cause` (a UUIDv7) brought about: each time the same.

    A UUIDv7 too, of the same millisecond as its cause, so that ids stay ordered by time.
    """
    digest = blake2b(what.encode(errors="surrogatepass"), digest_size=16, key=cause.bytes).digest()
    mixed = int.from_bytes(digest) & ~_TIMESTAMP | cause.int & _TIMESTAMP
    return from_number(mixed & ~_VERSION_AND_VARIANT | _VERSION_7_OF_RFC_9562)


@dataclass(frozen=True, slots=True)
class Fact:
    """What all facts tell: when, of whom, and the version that our copy had afterwards."""

    id: UUID
    date_occurred: datetime
    identity_id: UUID
    version: int

    @property
    def subject(self) -> UUID:
        """The identity's id."""
        return self.identity_id

    def payload(self, rest: Mapping[str, Json]) -> dict[str, Json]:
        """The JSON payload of a fact that has `rest` beside what all facts have."""
        return {"identity_id": str(self.identity_id), "version": self.version, **rest}


def whose(payload: Mapping[str, Json]) -> tuple[UUID, int]:
    """The identity's id and version in a payload; raises InvalidField."""
    return fields.required_uuid(payload, "identity_id"), fields.integer(payload, "version")
