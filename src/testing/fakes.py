"""Repositories and other ports of the service's own consumers, in memory."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from copy import deepcopy
from datetime import date, datetime
from uuid import UUID

from uuid_utils.compat import uuid7

from kratos_sync.application.ports.deletions import AwaitedConsumer
from kratos_sync.application.ports.kratos import Answer, KratosAdmin
from kratos_sync.application.sync import IdentityLookup
from kratos_sync.domain.events import DomainEvent, KratosIdentityHinted
from kratos_sync.domain.kratos_identity import KratosIdentity


class InMemoryKratosIdentities:
    """The KratosIdentities port; iterates over all identities."""

    def __init__(self, identities: Iterable[KratosIdentity] = ()) -> None:
        self._identities = {identity.id: identity for identity in identities}
        self._before: dict[UUID, KratosIdentity | None] | None = None

    def savepoint(self) -> None:
        """Remember each identity as it is when it is next found."""
        self._before = {}

    def roll_back_to_savepoint(self) -> None:
        for identity_id, before in (self._before or {}).items():
            if before is not None:
                self._identities[identity_id] = before
            else:
                self._identities.pop(identity_id, None)
        self._before = {}

    def find(self, identity_id: UUID) -> KratosIdentity | None:
        if self._before is not None and identity_id not in self._before:
            self._before[identity_id] = deepcopy(self._identities.get(identity_id))
        return self._identities.get(identity_id)

    def add(self, identity: KratosIdentity) -> None:
        if identity.id in self._identities:
            raise ValueError(f"identity {identity.id} was added before")
        if self._before is not None:
            self._before.setdefault(identity.id, None)
        self._identities[identity.id] = identity

    def __iter__(self) -> Iterator[KratosIdentity]:
        return iter(self._identities.values())

    def __len__(self) -> int:
        return len(self._identities)


class InMemoryKratosAnswers:
    """The KratosAnswers port.

    ``is_recorded`` says whether an earlier answer serves a hint, ``first_hinted`` when the first
    hint about an unknown identity came.
    """

    def __init__(
        self,
        kratos: KratosAdmin,
        all_ids: Callable[[], Collection[UUID]],
        now: Callable[[], datetime],
        is_recorded: Callable[[KratosIdentityHinted], bool],
        first_hinted: Callable[[UUID], datetime | None],
    ) -> None:
        self._lookup = IdentityLookup(lambda: kratos, all_ids, now)
        self._is_recorded = is_recorded
        self._first_hinted = first_hinted
        self.recorded: dict[UUID, DomainEvent] = {}
        self.facts: list[DomainEvent] = []
        self._collected: set[UUID] = set()

    def is_answered(self, hint: KratosIdentityHinted) -> bool:
        return self._is_recorded(hint)

    def ask(self, identity_id: UUID) -> Answer:
        return self._lookup.answer(identity_id)

    def record(self, identity_id: UUID, answer: Answer) -> None:
        if identity_id in self.recorded:
            return
        self.recorded[identity_id] = answer.event(
            uuid7(), identity_id, self._first_hinted(identity_id)
        )

    def observe(self, fact: DomainEvent | None) -> None:
        if fact is not None:
            self.facts.append(fact)

    def collect_events(self) -> list[DomainEvent]:
        raised = [event for event in self.recorded.values() if event.id not in self._collected]
        self._collected.update(event.id for event in raised)
        facts, self.facts = self.facts, []
        return [*raised, *facts]


class InMemoryRegistrationCounts:
    """The RegistrationCounts port."""

    def __init__(self) -> None:
        self.by_day: Counter[date] = Counter()

    def add_one(self, day: date) -> None:
        self.by_day[day] += 1


class InMemoryDeletionFinalizer:
    """The DeletionFinalizer port; ``pending`` gives the consumers that are not done yet."""

    def __init__(
        self,
        kratos: KratosAdmin,
        pending: Callable[[UUID], Sequence[AwaitedConsumer]] = lambda _: (),
    ) -> None:
        self._kratos = kratos
        self._pending = pending
        self.erased: list[tuple[UUID, str, str]] = []

    def awaited(self, identity_id: UUID, besides: str) -> Sequence[AwaitedConsumer]:
        return [each for each in self._pending(identity_id) if each.consumer != besides]

    def delete_from_kratos(self, identity_id: UUID) -> bool:
        return self._kratos.delete(identity_id)

    def request_erasure(self, identity_id: UUID, by: str, reason: str) -> None:
        """Note the request in ``erased``."""
        self.erased.append((identity_id, by, reason))
