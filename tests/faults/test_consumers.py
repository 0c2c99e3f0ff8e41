"""The suite's own consumers leave their effect once they have been in trouble often enough."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from kratos_sync.domain.events import KratosIdentityUpdated
from kratos_sync.domain.identity import Identity
from tests.faults.consumers import TROUBLES, GetIntoTrouble, Trouble, WriteEffect


@dataclass
class RecordingEffects:
    """Effects in a list."""

    written: list[tuple[UUID, str]] = field(default_factory=list)

    def write(self, event_id: UUID, consumer: str) -> None:
        self.written.append((event_id, consumer))

    write_now = write

    def sleep(self, seconds: float) -> None:
        raise NotImplementedError


def heard(**traits: object) -> KratosIdentityUpdated:
    document: dict[str, Any] = {"id": str(uuid4()), "traits": {"call": "a-call", **traits}}
    return KratosIdentityUpdated(uuid4(), datetime.now(UTC), Identity.from_kratos(document))


def test_a_consumer_leaves_an_effect_of_every_event() -> None:
    effects, event = RecordingEffects(), heard()
    WriteEffect(effects).consume(event)
    assert effects.written == [(event.id, "WriteEffect")]


def test_an_event_gets_its_consumer_into_trouble_as_often_as_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TROUBLES, str(tmp_path))
    effects, event = RecordingEffects(), heard(trouble="raises", troubles=2)
    for _ in range(2):
        with pytest.raises(Trouble):
            GetIntoTrouble(effects).consume(event)
    assert effects.written == []
    GetIntoTrouble(effects).consume(event)
    assert effects.written == [(event.id, "GetIntoTrouble")]


def test_an_event_that_says_nothing_causes_no_trouble() -> None:
    effects, event = RecordingEffects(), heard()
    GetIntoTrouble(effects).consume(event)
    assert effects.written == [(event.id, "GetIntoTrouble")]
