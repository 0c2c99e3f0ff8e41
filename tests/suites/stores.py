"""Repositories in transactions, in memory and in PostgreSQL, behind one face."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from copy import deepcopy
from datetime import date, timedelta
from typing import Protocol

from sqlalchemy import Engine, text

from kratos_sync.application.consumers.count_registrations import RegistrationCounts
from kratos_sync.domain.kratos_identities import KratosIdentities
from kratos_sync.infrastructure.identities.kratos_identities import PostgresKratosIdentities
from kratos_sync.infrastructure.identities.registration_counts import PostgresRegistrationCounts
from kratos_sync.infrastructure.postgres.transaction import Transaction
from kratos_sync.testing.fakes import InMemoryKratosIdentities, InMemoryRegistrationCounts

TIME_LIMIT = timedelta(seconds=20)

Identities = Callable[[], AbstractContextManager[KratosIdentities]]
"""Opens a transaction on the identities, which commits when left without an error."""


class Counts(Protocol):
    """Registration counts, in transactions that commit when left without an error."""

    def begin(self) -> AbstractContextManager[RegistrationCounts]: ...
    def by_day(self) -> dict[date, int]: ...


def identities_in_memory() -> Identities:
    stored = InMemoryKratosIdentities()

    @contextmanager
    def begin() -> Iterator[KratosIdentities]:
        nonlocal stored
        identities = deepcopy(stored)
        yield identities
        for identity in identities:
            identity.collect_events()
            identity.mark_stored()
        stored = identities

    return begin


def identities_in_postgres(engine: Engine) -> Identities:
    @contextmanager
    def begin() -> Iterator[KratosIdentities]:
        transaction = Transaction(engine)
        with transaction.begin(TIME_LIMIT):
            yield PostgresKratosIdentities(transaction)
            transaction.commit()

    return begin


class CountsInMemory:
    def __init__(self) -> None:
        self._stored = InMemoryRegistrationCounts()

    @contextmanager
    def begin(self) -> Iterator[RegistrationCounts]:
        counts = deepcopy(self._stored)
        yield counts
        self._stored = counts

    def by_day(self) -> dict[date, int]:
        return dict(self._stored.by_day)


class CountsInPostgres:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @contextmanager
    def begin(self) -> Iterator[RegistrationCounts]:
        transaction = Transaction(self._engine)
        with transaction.begin(TIME_LIMIT):
            yield PostgresRegistrationCounts(transaction)
            transaction.commit()

    def by_day(self) -> dict[date, int]:
        statement = text("SELECT day, registrations FROM kratos_sync.registrations_per_day")
        with self._engine.connect() as connection:
            return {row.day: row.registrations for row in connection.execute(statement)}
