"""Our copy of an identity: the only place that decides what Kratos' word means."""

from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Self
from uuid import UUID

from kratos_sync.domain.addresses import VerifiableAddress
from kratos_sync.domain.events import (
    AddressVerified,
    DomainEvent,
    IdentityDeleted,
    IdentityDiscovered,
    IdentityRegistered,
    IdentityStateChanged,
    IdentityTraitsChanged,
    TraitChange,
    fact_id,
)
from kratos_sync.domain.held_identity import BLANK, COLUMNS, NEVER_TOLD, HeldIdentity
from kratos_sync.domain.identity import Identity
from kratos_sync.domain.json_values import ABSENT, Absent, Json, same_as_doubles
from kratos_sync.domain.merging import merged, replaced
from kratos_sync.domain.recorded_webhooks import ReceivedWebhook


def traits_of(traits: Json | Absent) -> Mapping[str, Json]:
    """The traits by name; none when they are null, were never told, or are not an object."""
    return traits if isinstance(traits, dict) else {}


def trait_changes(old: Json | Absent, new: Json | Absent) -> tuple[TraitChange, ...]:
    """Each top-level trait that differs as doubles, sorted by name."""
    if old is new:
        return ()
    before, after = traits_of(old), traits_of(new)
    changed = [
        trait
        for trait in before.keys() | after.keys()
        if not same_as_doubles(before.get(trait, ABSENT), after.get(trait, ABSENT))
    ]
    return tuple(
        TraitChange(trait, before.get(trait, ABSENT), after.get(trait, ABSENT))
        for trait in sorted(changed)
    )


def newly_verified(
    old: tuple[VerifiableAddress, ...] | Absent, new: tuple[VerifiableAddress, ...] | Absent
) -> Iterator[VerifiableAddress]:
    """Each address, known by (via, value), that is verified now and was not before."""
    if new is ABSENT or old is new:
        return
    proved = {(each.via, each.value) for each in old if each.verified} if old is not ABSENT else ()
    for address in new:
        if address.verified and (address.via, address.value) not in proved:
            yield address


REGISTRATION_WINDOW: Final = timedelta(minutes=10)
_UNHEARD_OF: Final[Mapping[str, object]] = {
    **BLANK,
    "part_recency": NEVER_TOLD,
    "created_at": None,
    "updated_at": None,
    "deleted_at": None,
}


@dataclass(slots=True, kw_only=True, eq=False)
class KratosIdentity(HeldIdentity):
    """An identity of Kratos as we follow it: what it hears, it may take in, and tell as facts.

    In every operation `at` is when the event that brought the news occurred, `cause` its id.
    """

    _raised: list[DomainEvent] = field(init=False, repr=False, default_factory=list)

    @classmethod
    def seen(
        cls,
        identity: Identity,
        *,
        at: datetime,
        cause: UUID,
        known_at: datetime | None = None,
        heard_at: datetime | None = None,
    ) -> Self:
        """The copy of an identity that we had never seen; raises its first facts.

        `known_at` is as in `update`. `heard_at` is when we first heard that there is one, if that
        was before.
        """
        row = cls(id=identity.id, synced_at=at, version=0, part_recency=NEVER_TOLD)
        row._changed.update(_UNHEARD_OF)
        row._meet(identity, at, cause, known_at=known_at, heard_at=heard_at or at)
        return row

    @classmethod
    def tombstone(cls, identity_id: UUID, *, at: datetime, cause: UUID) -> Self:
        """The tombstone of an identity that we never saw: a late webhook will not revive it."""
        row = cls(id=identity_id, synced_at=at, version=0)
        row.gone(at=at, cause=cause)
        return row

    @classmethod
    def erased_tombstone(cls, identity_id: UUID, *, at: datetime, cause: UUID) -> Self:
        """The tombstone of an identity that we never saw, and were told to forget."""
        row = cls(id=identity_id, synced_at=at, version=0)
        row.forget(at=at, cause=cause)
        return row

    def distrust_answers_after(self, now: datetime) -> None:
        """Take no notice of an answer from the future: a clock was set back since it was asked for.

        Whatever comes would count as older.
        """
        if self.seen_alive_at is not None and self.seen_alive_at > now:
            self._write({"seen_alive_at": None})

    def needs_later(self, identity: Identity, *, at: datetime) -> bool:
        """Whether `update` with this snapshot depends on the webhooks recorded after `at`."""
        if not identity.is_exact or self.forgotten_at is not None:
            return False
        known = self.seen_alive_at if self.deleted_at is None else self.deleted_at
        return known is None or at > known

    def update(
        self,
        identity: Identity,
        *,
        at: datetime,
        cause: UUID,
        known_at: datetime | None = None,
        later: Iterable[ReceivedWebhook] = (),
    ) -> None:
        """Take in what is news in `identity`, and raise the facts that follow from it.

        Snapshots may come in any order, and more than once. `known_at` is when a webhook was
        recorded, if that is another time than `at`. An exact snapshot was asked for `at` that
        time: it stands for whatever was recorded before, and `later` are the webhooks recorded
        after it. A deleted identity comes back only by an exact snapshot later than `deleted_at`,
        and never once we were told to forget it.
        """
        if self.deleted_at is not None:
            if self.needs_later(identity, at=at):
                self._write(_UNHEARD_OF)
                self._meet(identity, at, cause, later=later)
            return
        known_at = known_at or at
        if self.seen_alive_at is not None and not identity.is_exact:
            if known_at <= self.seen_alive_at:
                return
        elif self.seen_alive_at is not None and at < self.seen_alive_at:
            return
        state, traits, addresses = self.state, self.traits, self.verifiable_addresses
        if self.needs_later(identity, at=at):
            news = replaced(self, identity, at, later)
            self._write({"seen_alive_at": at})
        else:
            news = merged(self, identity, known_at)
        if not news:
            return
        self._advance(news, at)
        if self.state != state:
            whose = self._whose(cause, IdentityStateChanged.name)
            self._raised.append(
                IdentityStateChanged(*whose, state, self.state, self.state_changed_at)
            )
        if changes := trait_changes(traits, self.traits):
            whose = self._whose(cause, IdentityTraitsChanged.name)
            self._raised.append(IdentityTraitsChanged(*whose, changes))
        self._tell_verified(addresses, cause)

    def gone(self, *, at: datetime, cause: UUID) -> None:
        """Forget the person, keep the id and times, for Kratos no longer has the identity.

        Means nothing when the Admin API has shown the identity since.
        """
        if self.deleted_at is not None:
            if at > self.deleted_at:
                self._advance({"deleted_at": at}, at)
            return
        if self.seen_alive_at is not None and at < self.seen_alive_at:
            return
        self._advance({**BLANK, "deleted_at": at}, at)
        self._raised.append(IdentityDeleted(*self._whose(cause, IdentityDeleted.name)))

    def forget(self, *, at: datetime, cause: UUID) -> None:
        """Forget the person for good: somebody asked us to, whether Kratos has them still or not.

        Unlike `gone` it is no news from Kratos, so whatever Kratos shows, before or later, does not
        count.
        """
        if self.forgotten_at is not None:
            return
        deleted_at = at if self.deleted_at is None else max(self.deleted_at, at)
        is_alive = self.deleted_at is None
        self._advance({**BLANK, "deleted_at": deleted_at, "forgotten_at": at}, at)
        if is_alive:
            self._raised.append(IdentityDeleted(*self._whose(cause, IdentityDeleted.name)))

    def __copy__(self) -> Self:
        """Give one that goes its own way from here: no field's value is ever changed in place."""
        twin = self.__class__.__new__(self.__class__)
        for column in COLUMNS:
            setattr(twin, column, getattr(self, column))
        twin._changed, twin._raised = self._changed.copy(), self._raised.copy()  # noqa: SLF001  # one of us
        return twin

    def collect_events(self) -> list[DomainEvent]:
        """Hand over the facts raised since the last call, in order."""
        raised, self._raised = self._raised, []
        return raised

    def _meet(  # as `update` and `seen`
        self,
        identity: Identity,
        at: datetime,
        cause: UUID,
        *,
        known_at: datetime | None = None,
        heard_at: datetime | None = None,
        later: Iterable[ReceivedWebhook] = (),
    ) -> None:
        """Take in the first snapshot of somebody of whom we hold nothing.

        Only who was `heard_at` some time for the first time may have registered.
        """
        if identity.is_exact:
            self._write({"seen_alive_at": at})
            self._advance(replaced(self, identity, at, later), at)
        else:
            self._advance(merged(self, identity, known_at or at), at)
        traits = traits_of(self.traits)
        if heard_at and self.created_at and heard_at - self.created_at <= REGISTRATION_WINDOW:
            whose = self._whose(cause, IdentityRegistered.name)
            self._raised.append(IdentityRegistered(*whose, traits, self.created_at))
            self._tell_verified((), cause)
        else:
            whose = self._whose(cause, IdentityDiscovered.name)
            self._raised.append(IdentityDiscovered(*whose, traits, self.created_at))

    def _advance(self, news: Mapping[str, object], at: datetime) -> None:
        self._write({**news, "synced_at": at, "version": self.version + 1})

    def _tell_verified(self, before: tuple[VerifiableAddress, ...] | Absent, cause: UUID) -> None:
        for address in newly_verified(before, self.verifiable_addresses):
            what = f"{AddressVerified.name}\0{address.via}\0{address.value}"
            self._raised.append(
                AddressVerified(
                    *self._whose(cause, what), address.via, address.value, address.verified_at
                )
            )

    def _whose(self, cause: UUID, what: str) -> tuple[UUID, datetime, UUID, int]:
        return fact_id(cause, what), self.synced_at, self.id, self.version


_NOBODY: Final = UUID(int=0)
_OURS: Final = frozenset(
    {"synced_at", "version", "part_recency", "exact_at", "exact_numbers", "seen_alive_at"}
)
"""Fields that tell of what was heard, and not of the identity."""


def differences(
    held: KratosIdentity, identity: Identity, at: datetime, later: Iterable[ReceivedWebhook] = ()
) -> tuple[str, ...]:
    """Name the fields of the identity that change when our copy hears this; `held` stays as it is.

    `at` and `later` are as in `KratosIdentity.update`. Only `deleted_at`, where we hold it as
    deleted and hearing this would bring it back.
    """
    hearing = copy(held)
    hearing.update(identity, at=at, cause=_NOBODY, later=later)
    if hearing.deleted_at != held.deleted_at:
        return ("deleted_at",)
    return tuple(sorted(hearing.changed - held.changed - _OURS))
