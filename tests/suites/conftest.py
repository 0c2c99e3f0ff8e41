"""Each port twice: its fake, and its adapter on a real PostgreSQL."""

import pytest

from kratos_sync.testing.ledger import InMemoryLedger
from tests.suites.ledgers import Ledger, PostgresLedger
from tests.suites.operations import Record, record_in_memory, record_in_postgres
from tests.suites.stores import (
    Counts,
    CountsInMemory,
    CountsInPostgres,
    Identities,
    identities_in_memory,
    identities_in_postgres,
)

both = pytest.fixture(params=["in memory", "PostgreSQL"])


@both
def ledger(request: pytest.FixtureRequest) -> Ledger:
    if request.param == "in memory":
        return InMemoryLedger()
    return PostgresLedger(request.getfixturevalue("engine"))


@both
def identities(request: pytest.FixtureRequest) -> Identities:
    if request.param == "in memory":
        return identities_in_memory()
    return identities_in_postgres(request.getfixturevalue("engine"))


@both
def counts(request: pytest.FixtureRequest) -> Counts:
    if request.param == "in memory":
        return CountsInMemory()
    return CountsInPostgres(request.getfixturevalue("engine"))


@both
def record(request: pytest.FixtureRequest) -> Record:
    if request.param == "in memory":
        return record_in_memory()
    return record_in_postgres(request.getfixturevalue("engine"))
