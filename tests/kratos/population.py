"""A million identities that take no room: each is made from its number when it is asked for."""

import json
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any
from uuid import UUID

_HIGH_BITS = 48
_LOW_BITS = 128 - _HIGH_BITS
_VERSION_4 = 0x4000_8000_0000_0000_0000
_FREE = 0x0FFF_3FFF_FFFF_FFFF_FFFF
_WHEN = "2026-01-%02dT%02d:%02d:%02d.%06d"


class Population:
    """So many people with random-looking ids, of some 700 bytes each.

    Another ``seed`` is another Kratos: no id is the same. Of every ``missing_every`` one is not
    there, and one of every ``changed_every`` has another name and is newer: as if deleted or
    changed since the whole population was copied.
    """

    def __init__(
        self, number: int, seed: int = 0, missing_every: int = 0, changed_every: int = 0
    ) -> None:
        self.number = number
        self._seed = seed.to_bytes(8, "big")
        self._step = (1 << _HIGH_BITS) // max(number, 1)
        self._missing_every = missing_every
        self._changed_every = changed_every
        self._removed: set[int] = set()
        self._template = _template()

    def id_of(self, index: int) -> UUID:
        """The id of one of them; ids grow with the index."""
        digest = blake2b(index.to_bytes(8, "big"), digest_size=16, key=self._seed).digest()
        chance = int.from_bytes(digest, "big")
        high = index * self._step + (chance >> _LOW_BITS) % self._step
        return UUID(int=(high << _LOW_BITS) | (chance & _FREE) | _VERSION_4)

    def document(self, index: int) -> bytes:
        """What a listing shows of one."""
        identity_id = self.id_of(index)
        low, when = identity_id.int, _time(index)
        first = UUID(int=low ^ 0xFFFF)
        changed = self._changed_every and index % self._changed_every == 1
        name = b"Changed" if changed else b"Person"
        now = b"2026-02-01T00:00:00.%06d1Z" % (index % 100_000) if changed else when
        ids = (str(identity_id).encode(), str(first).encode(), str(UUID(int=low ^ 0xFF)).encode())
        return self._template % {
            b"id": ids[0],
            b"verifiable": ids[1],
            b"recovery": ids[2],
            b"number": index,
            b"name": name,
            b"when": when,
            b"now": now,
        }

    def listed(self, after: UUID, most: int) -> list[tuple[UUID, bytes]]:
        index = self._index_after(after)
        found: list[tuple[UUID, bytes]] = []
        while index < self.number and len(found) < most:
            if self._is_there(index):
                found.append((self.id_of(index), self.document(index)))
            index += 1
        return found

    def chosen(self, ids: Sequence[UUID]) -> list[tuple[UUID, bytes]]:
        indices = [(each, self._index_of(each)) for each in sorted(set(ids))]
        return [(each, self.document(index)) for each, index in indices if index is not None]

    def shown(self, identity_id: UUID) -> bytes | None:
        index = self._index_of(identity_id)
        if index is None:
            return None
        return b'{"credentials":{},' + self.document(index)[1:]

    def search(self, key: str, value: str) -> bytes | None:
        raise NotImplementedError("a population is not searched")

    def remove(self, identity_id: UUID) -> bool:
        index = self._index_of(identity_id)
        if index is None:
            return False
        self._removed.add(index)
        return True

    def _index_after(self, identity_id: UUID) -> int:
        index = min((identity_id.int >> _LOW_BITS) // self._step, self.number)
        return index if index >= self.number or self.id_of(index) > identity_id else index + 1

    def _index_of(self, identity_id: UUID) -> int | None:
        index = (identity_id.int >> _LOW_BITS) // self._step
        is_one = index < self.number and self.id_of(index) == identity_id
        return index if is_one and self._is_there(index) else None

    def _is_there(self, index: int) -> bool:
        return index not in self._removed and not (
            self._missing_every and index % self._missing_every == 0
        )


def _time(index: int) -> bytes:
    day, second = 1 + index // 86_400 % 28, index % 86_400
    text = _WHEN % (day, second // 3600, second // 60 % 60, second % 60, index % 1_000_000)
    return text.rstrip("0").rstrip(".").encode() + b"Z"  # as Go writes it


def _template() -> bytes:
    times = {"created_at": "%(when)s", "updated_at": "%(when)s"}
    address: dict[str, Any] = {"value": "person%(number)d@example.org", "via": "email"}
    proved = {"verified": True, "status": "completed", "verified_at": "%(when)s"}
    document = {
        "id": "%(id)s",
        "schema_id": "person",
        "schema_url": "http://127.0.0.1:4433/schemas/cGVyc29u",
        "state": "active",
        "state_changed_at": "%(when)s",
        "traits": {
            "email": "person%(number)d@example.org",
            "name": {"first": "%(name)s", "last": "Number %(number)d"},
        },
        "verifiable_addresses": [{"id": "%(verifiable)s", **address, **proved, **times}],
        "recovery_addresses": [{"id": "%(recovery)s", **address, **times}],
        "metadata_public": None,
        "metadata_admin": None,
        "created_at": "%(when)s",
        "updated_at": "%(now)s",
        "organization_id": None,
    }
    return json.dumps(document, separators=(",", ":")).encode()
