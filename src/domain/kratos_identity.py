"""Our copy of an identity: the only place that decides what Kratos' word means."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Self
from uuid import UUID

from domain.addresses import VerifiableAddress
from domain.changes import newly_verified, trait_changes, traits_of
from domain.events import (
    AddressVerified,
    DomainEvent,
    IdentityDeleted,
    IdentityDiscovered,
    IdentityRegistered,
    IdentityStateChanged,
    IdentityTraitsChanged,
    fact_id,
)
from domain.held_identity import BLANK, COLUMNS, NEVER_TOLD, HeldIdentity
from domain.identity import Identity
from domain.json_values import Absent
from domain.merging import merged, replaced
from domain.recorded_webhooks import ReceivedWebhook

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
    def never_seen(cls, identity_id: UUID, *, at: datetime, cause: UUID) -> Self:
        """The tombstone of an identity that we never saw: a late webhook will not revive it."""
        row = cls(id=identity_id, synced_at=at, version=0)
        row.gone(at=at, cause=cause)
        return row

    @classmethod
    def unwanted(cls, identity_id: UUID, *, at: datetime, cause: UUID) -> Self:
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
