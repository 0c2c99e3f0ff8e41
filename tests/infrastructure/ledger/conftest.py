from collections.abc import Iterator

import pytest

from tests.suites.occurrences import only_ours


@pytest.fixture(autouse=True)
def only_our_consumers() -> Iterator[None]:
    """These tests name who hears of what: an application's own consumers stay out of them."""
    with only_ours():
        yield
