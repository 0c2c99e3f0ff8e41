"""The suite's own consumers: they leave effects, and some get into trouble first.

An event of a person whose trait ``trouble`` says how, troubles its consumer for its first attempts,
as many as ``troubles`` says. How many there were is kept in a file: it outlives the process.
"""

import asyncio
import os
import re
import socket
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Protocol
from uuid import UUID

from kratos_sync.application.consumer import Consumer
from kratos_sync.domain.events import (
    DomainEvent,
    IdentityDiscovered,
    IdentityRegistered,
    IdentityTraitsChanged,
    KratosIdentityUpdated,
)

TROUBLES: Final = "FAULTS_TROUBLES"
"""The variable that names the folder with a file for each event that causes trouble."""
FOR_EVER: Final = 3600.0
ANSWER_SECONDS: Final = 0.01
PIECE: Final = 32 * 1024 * 1024


class Effects(Protocol):
    """Where consumers leave their effects."""

    def write(self, event_id: UUID, consumer: str) -> None:
        """Write an effect when the transaction commits."""

    def write_now(self, event_id: UUID, consumer: str) -> None:
        """Write an effect at once, in the transaction."""

    def write_in_turn(self, event_id: UUID, consumer: str) -> None:
        """Write an effect, with its place in the order of the deliveries."""

    def sleep(self, seconds: float) -> None:
        """Let the database sleep."""


class Elsewhere(Protocol):
    """Where effects are outside the database."""

    def write(self, event_id: UUID) -> None:
        """Write an effect at once."""


class WriteEffect(Consumer[KratosIdentityUpdated]):
    """Leave an effect of every webhook."""

    name = "WriteEffect"

    def __init__(self, effects: Effects) -> None:
        self._effects = effects

    def consume(self, event: KratosIdentityUpdated) -> None:
        """Leave the effect."""
        self._effects.write(event.id, self.name)


class WriteFactEffect(Consumer[IdentityTraitsChanged]):
    """Leave an effect of every fact that the service itself raised."""

    name = "WriteFactEffect"

    def __init__(self, effects: Effects) -> None:
        self._effects = effects

    def consume(self, event: IdentityTraitsChanged) -> None:
        """Leave the effect."""
        self._effects.write(event.id, self.name)


class GetIntoTrouble(Consumer[KratosIdentityUpdated]):
    """Leave an effect of every webhook, at once, and get into trouble before where it says so."""

    name = "GetIntoTrouble"
    first_backoff = timedelta(seconds=0.2)
    time_limit = timedelta(seconds=2)

    def __init__(self, effects: Effects) -> None:
        self._effects = effects

    def consume(self, event: KratosIdentityUpdated) -> None:
        """Get into trouble as often as the event says; then leave the effect."""
        if trouble := _trouble(event):
            TROUBLE[trouble](self._effects)
        self._effects.write_now(event.id, self.name)


class KeepOrder(
    Consumer[
        KratosIdentityUpdated | IdentityRegistered | IdentityDiscovered | IdentityTraitsChanged
    ]
):
    """Leave an effect of every webhook and fact, in order: each identity's one after another.

    Where an event means trouble, raise after the effect, so that it is rolled back.
    """

    name = "KeepOrder"
    ordered = True
    first_backoff = timedelta(seconds=0.2)

    def __init__(self, effects: Effects) -> None:
        self._effects = effects

    def consume(self, event: DomainEvent) -> None:
        """Leave the effect."""
        self._effects.write_in_turn(event.id, self.name)
        if _trouble(event, ".order"):
            raise Trouble("asked for")


class WriteElsewhere(Consumer[KratosIdentityUpdated]):
    """Leave an effect of every webhook outside the database, many at once."""

    name = "WriteElsewhere"
    first_backoff = timedelta(seconds=0.2)

    def __init__(self, elsewhere: Elsewhere) -> None:
        self._elsewhere = elsewhere

    async def consume(self, event: KratosIdentityUpdated) -> None:
        """Wait as for an answer, and leave the effect."""
        await asyncio.sleep(ANSWER_SECONDS)
        if _trouble(event, ".elsewhere"):
            raise Trouble("asked for")
        self._elsewhere.write(event.id)


def _trouble(event: DomainEvent, of: str = "") -> str | None:
    """The trouble that the event still means, which is counted; None if there is none left.

    ``of`` separates the counts of several consumers.
    """
    if not isinstance(event, KratosIdentityUpdated):
        return None
    traits = event.identity.document.get("traits")
    if not isinstance(traits, Mapping) or "trouble" not in traits:
        return None
    path = Path(os.environ[TROUBLES], f"{traits['call']}{of}")
    if _times(path) >= int(str(traits["troubles"])):
        return None
    with path.open("ab") as times:
        times.write(b".")
    return str(traits["trouble"])


def _times(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


class Trouble(Exception):
    """What a consumer raises when its event asks for it."""


def _raise(_effects: Effects) -> None:
    raise Trouble("asked for")


def _hang(_effects: Effects) -> None:
    ends = time.monotonic() + FOR_EVER
    while time.monotonic() < ends:
        time.sleep(0.01)


def _hang_in_a_call(_effects: Effects) -> None:
    """Read from a peer that says nothing, without a timeout: no exception gets in."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.recv(1)


def _keep_the_interpreter(_effects: Effects) -> None:
    """Match what has no end, in C and with the interpreter's lock: no other thread runs."""
    re.match(r"(a|aa)+$", "a" * 100 + "b")


def _hang_in_sql(effects: Effects) -> None:
    effects.sleep(FOR_EVER)


def _eat_memory(_effects: Effects) -> None:
    """Eat all that the process may have, and keep it for a moment: the others get none."""
    eaten: list[bytearray] = []
    try:
        while True:
            eaten.append(bytearray(PIECE))
    except MemoryError:
        time.sleep(0.5)
        raise


def _exit(_effects: Effects) -> None:
    os._exit(1)


TROUBLE: Final[Mapping[str, Callable[[Effects], Any]]] = {
    "raises": _raise,
    "hangs": _hang,
    "hangs in a call": _hang_in_a_call,
    "keeps the interpreter": _keep_the_interpreter,
    "hangs in SQL": _hang_in_sql,
    "eats memory": _eat_memory,
    "exits": _exit,
}
