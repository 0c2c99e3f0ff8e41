from collections.abc import Iterator

import pytest

from tests.fakes.unit_of_work import InMemoryLedger
from tests.suites.occurrences import only_ours


@pytest.fixture
def ledger() -> InMemoryLedger:
    """A ledger with nothing in it."""
    return InMemoryLedger()


@pytest.fixture(autouse=True)
def only_our_consumers() -> Iterator[None]:
    """These tests name who hears of what: an application's own consumers stay out of them."""
    with only_ours():
        yield
