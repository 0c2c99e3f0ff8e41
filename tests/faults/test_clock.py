"""A clock that jumps shows another time, and otherwise changes nothing."""

from datetime import UTC, datetime, timedelta
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest

from kratos_sync.application.pipeline import batch
from tests.faults import clock
from tests.faults.clock import JumpingDatetime, replace_in_modules


def test_now_is_as_far_ahead_as_the_clock_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_ahead", 3600.0)
    ahead = JumpingDatetime.now(UTC) - datetime.now(UTC)
    assert timedelta(minutes=59) < ahead < timedelta(minutes=61)


def test_every_datetime_is_one_of_its_kind() -> None:
    assert isinstance(datetime.now(UTC), JumpingDatetime)
    assert not isinstance("2026-01-01", JumpingDatetime)


def test_the_clock_is_replaced_in_the_services_modules_and_no_others() -> None:
    importing = ModuleType("ours, whose code still runs")
    importing.__spec__ = ModuleSpec(importing.__name__, None)
    importing.__spec__._initializing = True
    copies = {
        batch.__name__: ModuleType("ours"),
        "logging": ModuleType("theirs"),
        "kratos_sync.domain.events": importing,
    }
    for copy in copies.values():
        vars(copy)["datetime"] = datetime
    replace_in_modules(copies)
    found = [vars(copy)["datetime"] for copy in copies.values()]
    assert found == [JumpingDatetime, datetime, datetime]
