"""Waiting for what must come."""

from tests.waiting import until

__all__ = ["until"]
