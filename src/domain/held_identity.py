"""What we hold of an identity, and which of it is news to the store."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Final
from uuid import UUID

from kratos_sync.domain.addresses import RecoveryAddress, VerifiableAddress
from kratos_sync.domain.identity import SCALARS, Part
from kratos_sync.domain.json_values import ABSENT, Absent, Json

BLANK: Final[Mapping[str, object]] = {
    **{scalar: None for scalar in SCALARS if scalar != "created_at"},
    "traits": ABSENT,
    "verifiable_addresses": ABSENT,
    "recovery_addresses": ABSENT,
    "metadata_public": ABSENT,
    "metadata_admin": ABSENT,
    "unknown": {},
    "part_recency": {},
    "exact_at": None,
    "exact_numbers": None,
    "seen_alive_at": None,
}
NEVER_TOLD: Final[Mapping[str, Json]] = dict.fromkeys(SCALARS)


@dataclass(slots=True, kw_only=True, eq=False)
class HeldIdentity:
    """The state of a `KratosIdentity`: every field is a column.

    `ABSENT` stands for what Kratos never told, in the fields that can also be null in JSON: store
    it as SQL NULL, and None as JSON null. In every other field None is SQL NULL, whether there is
    none or it was never told.

    `updated_at` is the newest that Kratos sent; `synced_at` and `version` are of the last event
    that changed what we hold. A tombstone has `deleted_at`, and nothing of the person.

    Four fields make the row end the same whatever order snapshots come in. `part_recency` has the
    parts that are less recent than the row (`domain.merging`), null for a scalar never told.
    `exact_at` and `exact_numbers` are the `updated_at` and the large integers, by JSON pointer, of
    the newest snapshot from the Admin API (`exact_numbers` is None before the first).
    `seen_alive_at` is the time of the newest event in which the Admin API showed the identity.

    `forgotten_at` is set where we were told to forget the person: nothing undoes that.
    """

    id: UUID
    schema_id: str | None = field(default=None, repr=False)
    schema_url: str | None = field(default=None, repr=False)
    state: str | None = field(default=None, repr=False)
    state_changed_at: datetime | None = field(default=None, repr=False)
    traits: Json | Absent = field(default=ABSENT, repr=False)
    verifiable_addresses: tuple[VerifiableAddress, ...] | Absent = field(default=ABSENT, repr=False)
    recovery_addresses: tuple[RecoveryAddress, ...] | Absent = field(default=ABSENT, repr=False)
    metadata_public: Json | Absent = field(default=ABSENT, repr=False)
    metadata_admin: Json | Absent = field(default=ABSENT, repr=False)
    external_id: str | None = field(default=None, repr=False)
    organization_id: UUID | None = field(default=None, repr=False)
    region: str | None = field(default=None, repr=False)
    unknown: Mapping[str, Json] = field(default_factory=dict, repr=False)
    created_at: datetime | None = field(default=None, repr=False)
    updated_at: datetime | None = field(default=None, repr=False)
    deleted_at: datetime | None = field(default=None, repr=False)
    synced_at: datetime = field(repr=False)
    version: int
    part_recency: Mapping[str, Json] = field(default_factory=dict, repr=False)
    exact_at: datetime | None = field(default=None, repr=False)
    exact_numbers: Mapping[str, int] | None = field(default=None, repr=False)
    seen_alive_at: datetime | None = field(default=None, repr=False)
    forgotten_at: datetime | None = field(default=None, repr=False)
    _changed: set[str] = field(init=False, repr=False, default_factory=set)

    @property
    def changed(self) -> frozenset[str]:
        """The names of the fields that differ from what is stored: what an UPDATE has to write."""
        return frozenset(self._changed)

    def mark_stored(self) -> None:
        """Take note that the store now holds every field as it is here."""
        self._changed.clear()

    def part(self, name: str) -> Part | Absent:
        """What we hold of a part: one of `domain.identity.PARTS`, or a field unknown to us."""
        value: Part | Absent = getattr(self, name)
        return value

    def _write(self, values: Mapping[str, object]) -> None:
        for name, value in values.items():
            setattr(self, name, value)
        self._changed.update(values)


COLUMNS: Final = tuple(column.name for column in fields(HeldIdentity) if column.init)
