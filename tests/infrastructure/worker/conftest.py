"""Fixtures of the worker's tests: the bus' ledger."""

from tests.infrastructure.bus.conftest import ledger

__all__ = ["ledger"]
