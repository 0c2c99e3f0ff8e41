import pytest

from kratos_sync.testing.ledger import InMemoryLedger


@pytest.fixture
def ledger() -> InMemoryLedger:
    """A ledger with nothing in it."""
    return InMemoryLedger()
