"""The suite's own consumers leave their effect once they have been in trouble often enough."""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from kratos_sync.domain.events import KratosIdentityUpdated
from kratos_sync.domain.identity import Identity
from tests.faults.consumers import (
    TROUBLES,
    GetIntoTrouble,
    KeepOrder,
    Trouble,
    WriteEffect,
    WriteElsewhere,
)


@dataclass
class RecordingEffects:
    """Effects in a list."""

    written: list[tuple[UUID, str]] = field(default_factory=list)

    def write(self, event_id: UUID, consumer: str) -> None:
        self.written.append((event_id, consumer))

    write_now = write_in_turn = write

    def sleep(self, seconds: float) -> None:
        raise NotImplementedError


def received(**traits: object) -> KratosIdentityUpdated:
    document: dict[str, Any] = {"id": str(uuid4()), "traits": {"call": "a-call", **traits}}
    return KratosIdentityUpdated(uuid4(), datetime.now(UTC), Identity.from_kratos(document))


def test_a_consumer_leaves_an_effect_of_every_event() -> None:
    effects, event = RecordingEffects(), received()
    WriteEffect(effects).consume(event)
    assert effects.written == [(event.id, "WriteEffect")]


def test_an_event_gets_its_consumer_into_trouble_as_often_as_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TROUBLES, str(tmp_path))
    effects, event = RecordingEffects(), received(trouble="raises", troubles=2)
    for _ in range(2):
        with pytest.raises(Trouble):
            GetIntoTrouble(effects).consume(event)
    assert effects.written == []
    GetIntoTrouble(effects).consume(event)
    assert effects.written == [(event.id, "GetIntoTrouble")]


def test_an_ordered_consumer_raises_after_its_effect_as_often_as_the_event_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TROUBLES, str(tmp_path))
    effects, event = RecordingEffects(), received(trouble="exits", troubles=1)
    with pytest.raises(Trouble):
        KeepOrder(effects).consume(event)
    KeepOrder(effects).consume(event)
    assert effects.written == 2 * [(event.id, "KeepOrder")]


def test_an_async_consumer_raises_before_its_effect_as_often_as_the_event_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TROUBLES, str(tmp_path))
    event = received(trouble="exits", troubles=1)
    written: list[UUID] = []

    class Written:
        def write(self, event_id: UUID) -> None:
            written.append(event_id)

    with pytest.raises(Trouble):
        asyncio.run(WriteElsewhere(Written()).consume(event))
    asyncio.run(WriteElsewhere(Written()).consume(event))
    assert written == [event.id]


def test_an_event_that_says_nothing_causes_no_trouble() -> None:
    effects, event = RecordingEffects(), received()
    GetIntoTrouble(effects).consume(event)
    assert effects.written == [(event.id, "GetIntoTrouble")]
