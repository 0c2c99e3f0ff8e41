"""Fixtures of the worker's tests."""

import pytest
from sqlalchemy import Engine

from tests.infrastructure.bus.conftest import Ledger


@pytest.fixture
def ledger(engine: Engine) -> Ledger:
    return Ledger(engine)
