"""Our copy of an identity: the only place that decides what a snapshot of Kratos changes."""

from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from itertools import chain
from typing import Any, Final, Self, TypeAlias
from uuid import UUID

from kratos_sync.domain.addresses import RecoveryAddress, VerifiableAddress
from kratos_sync.domain.events import (
    AddressVerified,
    DomainEvent,
    Fact,
    IdentityDeleted,
    IdentityDiscovered,
    IdentityRegistered,
    IdentityStateChanged,
    IdentityTraitsChanged,
    TraitChange,
    fact_id,
)
from kratos_sync.domain.identity import SCALARS, Identity
from kratos_sync.domain.json_values import ABSENT, Absent, Json, same, same_as_doubles
from kratos_sync.domain.merging import MERGED, ReceivedWebhook, merge

REGISTRATION_WINDOW: Final = timedelta(minutes=10)
"""How old an account may be when it is first seen, for that to be its registration."""

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
"""The personal fields of a tombstone."""

_NO_SCALARS: Final[Mapping[str, Json]] = dict.fromkeys(SCALARS)
_NEVER_SEEN: Final[Mapping[str, object]] = {
    **BLANK,
    "part_recency": _NO_SCALARS,
    "created_at": None,
    "updated_at": None,
    "deleted_at": None,
}
_BOOKKEEPING: Final = frozenset(
    {"synced_at", "version", "part_recency", "exact_at", "exact_numbers", "seen_alive_at"}
)
_NO_CAUSE: Final = UUID(int=0)

_VerifiableAddresses: TypeAlias = tuple[VerifiableAddress, ...] | Absent


@dataclass(slots=True, kw_only=True, eq=False)
class KratosIdentity:
    """Our copy of an identity, or its tombstone. Every public field is a column.

    `ABSENT` marks JSON fields and addresses that no snapshot has had yet: store it as SQL NULL,
    and None as JSON null. In other fields None is SQL NULL.

    - `updated_at` is the newest that Kratos sent.
    - `synced_at` and `version` are of the last event that changed this copy.
    - `deleted_at` makes it a tombstone, which holds nothing personal. `forgotten_at` is set once
      its erasure was requested: nothing brings such an identity back.
    - `part_recency` has the parts that are less recent than the row (`domain.merging`); null stands
      for a scalar that no snapshot had.
    - `exact_at` and `exact_numbers` are the `updated_at` and the large integers, by JSON pointer,
      of the newest snapshot from the Admin API; `exact_numbers` is None before the first one.
    - `seen_alive_at` is the time of the newest event in which the Admin API showed the identity.

    In every operation `at` is when the event that causes it occurred, and `cause` the event's id.
    """

    id: UUID
    schema_id: str | None = field(default=None, repr=False)
    schema_url: str | None = field(default=None, repr=False)
    state: str | None = field(default=None, repr=False)
    state_changed_at: datetime | None = field(default=None, repr=False)
    traits: Json | Absent = field(default=ABSENT, repr=False)
    verifiable_addresses: _VerifiableAddresses = field(default=ABSENT, repr=False)
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
    _deleted_by_fast_clock: bool = field(init=False, repr=False, default=False)
    _changed: set[str] = field(init=False, repr=False, default_factory=set)
    _raised: list[DomainEvent] = field(init=False, repr=False, default_factory=list)

    @classmethod
    def seen(
        cls,
        identity: Identity,
        *,
        at: datetime,
        cause: UUID,
        known_at: datetime | None = None,
        hinted_at: datetime | None = None,
    ) -> Self:
        """The copy of an identity that is seen for the first time; raises its first events.

        `known_at` is as in `update`. `hinted_at` is when the first hint of it came, if that was
        before `at`.
        """
        row = cls(id=identity.id, synced_at=at, version=0)
        row._write(_NEVER_SEEN)
        row._start(identity, at, cause, known_at=known_at, hinted_at=hinted_at or at)
        return row

    @classmethod
    def unseen(cls, identity_id: UUID, *, at: datetime) -> Self:
        """An identity of which nothing is known, to be deleted or erased: it may come later."""
        return cls(id=identity_id, synced_at=at, version=0)

    @property
    def changed(self) -> frozenset[str]:
        """The names of the fields that an UPDATE has to write."""
        return frozenset(self._changed)

    def mark_stored(self) -> None:
        """Note that every field is stored as it is here."""
        self._changed.clear()

    def observe(self, fact: DomainEvent) -> None:
        """Raise a fact that changes nothing of this copy, unless it is a tombstone."""
        if self.deleted_at is None:
            self._raised.append(fact)

    def collect_events(self) -> list[DomainEvent]:
        """Return the events raised since the last call, in order."""
        raised, self._raised = self._raised, []
        return raised

    def ignore_answers_after(self, now: datetime) -> None:
        """Drop a `seen_alive_at` in the future: the clock has been set back since.

        Otherwise whatever comes would count as older. A `deleted_at` in the future stays, and is
        older than every answer.
        """
        if self.seen_alive_at is not None and self.seen_alive_at > now:
            self._write({"seen_alive_at": None})
        self._deleted_by_fast_clock = self.deleted_at is not None and self.deleted_at > now

    def needs_later_webhooks(self, identity: Identity, *, at: datetime) -> bool:
        """Whether `update` with this snapshot depends on the webhooks recorded after `at`."""
        if not identity.is_exact or self.forgotten_at is not None:
            return False
        known = self.seen_alive_at if self.deleted_at is None else self.deleted_at
        return known is None or at > known or self._deleted_by_fast_clock

    def update(
        self,
        identity: Identity,
        *,
        at: datetime,
        cause: UUID,
        known_at: datetime | None = None,
        later: Iterable[ReceivedWebhook] = (),
    ) -> None:
        """Apply what the snapshot changes, and raise the events that follow.

        Snapshots may come in any order, and more than once. `known_at` is when a webhook was
        recorded, if that is another time than `at`. An exact snapshot was asked for `at` that
        time: it replaces whatever was recorded before, and `later` are the webhooks recorded
        after it. A deleted identity comes back only by an exact snapshot later than `deleted_at`,
        and never once it is erased.
        """
        is_answer = self.needs_later_webhooks(identity, at=at)
        if self.deleted_at is not None:
            if is_answer:
                self._write(_NEVER_SEEN)
                self._start(identity, at, cause, later=later)
            return
        known_at = known_at or at
        if self._is_overtaken(identity, at, known_at):
            return
        state, traits, addresses = self.state, self.traits, self.verifiable_addresses
        if is_answer:
            changes = self._replace(identity, at, later)
            self._write({"seen_alive_at": at})
        else:
            changes = merge(self, identity, known_at)
        if not changes:
            return
        self._advance(changes, at)
        if self.state != state:
            self._raise(IdentityStateChanged, cause, state, self.state, self.state_changed_at)
        if traits_changed := _trait_changes(traits, self.traits):
            self._raise(IdentityTraitsChanged, cause, traits_changed)
        self._raise_verified(addresses, cause)

    def mark_deleted(self, *, at: datetime, cause: UUID) -> None:
        """Make this a tombstone, for Kratos no longer has the identity.

        Has no effect when the Admin API has shown the identity since.
        """
        if self.deleted_at is not None:
            if at > self.deleted_at:
                self._advance({"deleted_at": at}, at)
            return
        if self.seen_alive_at is not None and at < self.seen_alive_at:
            return
        self._advance({**BLANK, "deleted_at": at}, at)
        self._raise(IdentityDeleted, cause)

    def erase(self, *, at: datetime, cause: UUID) -> None:
        """Make this a tombstone for good, whether Kratos still has the identity or not.

        Nothing that Kratos shows, before or later, brings it back.
        """
        if self.forgotten_at is not None:
            return
        is_alive = self.deleted_at is None
        deleted_at = at if self.deleted_at is None else max(self.deleted_at, at)
        self._advance({**BLANK, "deleted_at": deleted_at, "forgotten_at": at}, at)
        if is_alive:
            self._raise(IdentityDeleted, cause)

    def differences(
        self, identity: Identity, *, at: datetime, later: Iterable[ReceivedWebhook] = ()
    ) -> tuple[str, ...]:
        """Name the fields that `update` would change, and leave this as it is.

        Only `deleted_at` where the snapshot would bring a deleted identity back.
        """
        twin = copy(self)
        twin.update(identity, at=at, cause=_NO_CAUSE, later=later)
        if twin.deleted_at != self.deleted_at:
            return ("deleted_at",)
        return tuple(sorted(twin.changed - self.changed - _BOOKKEEPING))

    def __copy__(self) -> Self:
        """An independent copy: no field's value is ever changed in place."""
        twin = self.__class__.__new__(self.__class__)
        for column in COLUMNS:
            setattr(twin, column, getattr(self, column))
        twin._deleted_by_fast_clock = self._deleted_by_fast_clock  # noqa: SLF001
        twin._changed, twin._raised = self._changed.copy(), self._raised.copy()  # noqa: SLF001
        return twin

    def _is_overtaken(self, identity: Identity, at: datetime, known_at: datetime) -> bool:
        """Whether the Admin API has shown the identity since."""
        if self.seen_alive_at is None:
            return False
        return at < self.seen_alive_at if identity.is_exact else known_at <= self.seen_alive_at

    def _start(  # as `update` and `seen`
        self,
        identity: Identity,
        at: datetime,
        cause: UUID,
        *,
        known_at: datetime | None = None,
        hinted_at: datetime | None = None,
        later: Iterable[ReceivedWebhook] = (),
    ) -> None:
        """Apply the first snapshot; without `hinted_at` it is no registration."""
        if identity.is_exact:
            self._write({"seen_alive_at": at})
            self._advance(self._replace(identity, at, later), at)
        else:
            self._advance(merge(self, identity, known_at or at), at)
        traits = _by_name(self.traits)
        if hinted_at and self.created_at and hinted_at - self.created_at <= REGISTRATION_WINDOW:
            self._raise(IdentityRegistered, cause, traits, self.created_at)
            self._raise_verified((), cause)
        else:
            self._raise(IdentityDiscovered, cause, traits, self.created_at)

    def _replace(
        self, identity: Identity, asked_at: datetime, later: Iterable[ReceivedWebhook]
    ) -> dict[str, object]:
        """The fields that differ once the exact snapshot replaces all that was recorded before."""
        fresh = KratosIdentity(id=self.id, synced_at=asked_at, version=0)
        fresh._write(_NEVER_SEEN)
        # One by one: together the webhooks may need more memory than there is.
        for snapshot, known_at in chain([(identity, asked_at)], later):
            fresh._write(merge(fresh, snapshot, known_at))
        return {
            name: value
            for name in MERGED
            if not same(getattr(self, name), value := getattr(fresh, name))
        }

    def _advance(self, changes: Mapping[str, object], at: datetime) -> None:
        self._write({**changes, "synced_at": at, "version": self.version + 1})

    def _write(self, values: Mapping[str, object]) -> None:
        for name, value in values.items():
            setattr(self, name, value)
        self._changed.update(values)

    def _raise_verified(self, before: _VerifiableAddresses, cause: UUID) -> None:
        """Raise AddressVerified for each (via, value) that is verified now and was not before."""
        if self.verifiable_addresses is before or self.verifiable_addresses is ABSENT:
            return
        known = before if before is not ABSENT else ()
        verified = {(each.via, each.value) for each in known if each.verified}
        for each in self.verifiable_addresses:
            if each.verified and (each.via, each.value) not in verified:
                self._raise(
                    AddressVerified,
                    cause,
                    each.via,
                    each.value,
                    each.verified_at,
                    what=f"{AddressVerified.name}\0{each.via}\0{each.value}",
                )

    def _raise(self, fact: type[Fact], cause: UUID, *values: Any, what: str | None = None) -> None:
        """Raise a fact with these values; `what` distinguishes facts of one kind and cause."""
        head = fact_id(cause, what or fact.name), self.synced_at, self.id, self.version
        self._raised.append(fact(*head, *values))


COLUMNS: Final = tuple(column.name for column in fields(KratosIdentity) if column.init)


def _by_name(traits: Json | Absent) -> Mapping[str, Json]:
    """The traits by name; none when they are null, absent, or not an object."""
    return traits if isinstance(traits, dict) else {}


def _trait_changes(old: Json | Absent, new: Json | Absent) -> tuple[TraitChange, ...]:
    """Each top-level trait that differs as doubles, sorted by name."""
    if old is new:
        return ()
    before, after = _by_name(old), _by_name(new)
    changes = (
        TraitChange(trait, before.get(trait, ABSENT), after.get(trait, ABSENT))
        for trait in sorted(before.keys() | after.keys())
    )
    return tuple(each for each in changes if not same_as_doubles(each.old, each.new))
