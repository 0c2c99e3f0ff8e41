import pytest

from tests.fakes.unit_of_work import InMemoryLedger


@pytest.fixture
def ledger() -> InMemoryLedger:
    """A ledger with nothing in it."""
    return InMemoryLedger()
