"""What large identities cost a worker in memory, and ordinary ones beside them in time.

``python -m benchmarks.memory_mixes``: each mix waits in the ledger when the worker starts, and
ordinary webhooks go on arriving meanwhile. With ``--limit 512`` the worker is killed as soon as it
is larger than so many MB, as the kernel would. It needs nothing but what the tests need.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from threading import Event, Thread
from time import monotonic, sleep
from typing import Any, Final
from uuid import UUID, uuid4

import httpx
import psutil
import psycopg
from pydantic import SecretStr
from uuid_utils.compat import uuid7

from benchmarks.filling import SYNC
from benchmarks.stage import Deployment, Stage, raised
from kratos_sync.application.ports.event_bus import Provenance, UnreadEvent
from kratos_sync.domain.events import KratosIdentityUpdated
from kratos_sync.infrastructure.application import subscriptions_with
from kratos_sync.infrastructure.ledger.recording import RECORD, EventRow, arrays_of
from kratos_sync.infrastructure.ledger.subscriptions import PostgresSubscriptions
from kratos_sync.infrastructure.postgres.engine import connect, driver_of
from tests.end_to_end.service import KEY

KIB: Final = 1024
LARGEST_BODY: Final = 1024 * KIB
ROOM_FOR_THE_REST: Final = 1 * KIB
SAMPLE_SECONDS: Final = 0.02
ORDINARY_PER_SECOND: Final = 10
LONGEST_SECONDS: Final = 120.0
MANY: Final = 500


def _filled(opening: str, item: Callable[[int], str], closing: str, size: int) -> str:
    """JSON of about so many bytes."""
    items: list[str] = []
    length = len(opening) + len(closing)
    for number in count():
        text = item(number)
        length += len(text.encode()) + 1
        if length > size:
            break
        items.append(text)
    return f"{opening}{','.join(items)}{closing}"


def string(size: int) -> str:
    """One long string."""
    return json.dumps("An ordinary line of a biography. " * (size // 33))


def wide(size: int) -> str:
    """A long string with one character that makes Python hold each in four bytes."""
    return json.dumps("\N{GRINNING FACE}" + "x" * (size - 8), ensure_ascii=False)


def objects(size: int) -> str:
    """The same small object again and again."""
    return _filled("[", lambda _: '{"a":0}', "]", size)


def lists(size: int) -> str:
    """Empty lists."""
    return _filled("[", lambda _: "[]", "]", size)


def nested(size: int) -> str:
    """Lists in lists, fifty deep."""
    return _filled("[", lambda _: "[" * 50 + "]" * 50, "]", size)


def floats(size: int) -> str:
    """Small numbers with a fraction."""
    return _filled("[", lambda number: f"{number % 9}.5", "]", size)


def exponents(size: int) -> str:
    """Numbers that PostgreSQL writes with 309 digits each when it gives them back."""
    return _filled("[", lambda number: f"{1 + number % 2 / 2}e307", "]", size)


def largest(size: int) -> str:
    """The shortest texts of the longest numbers."""
    return _filled("[", lambda _: "1e308", "]", size)


def tiny(size: int) -> str:
    """Numbers that PostgreSQL writes with 308 zeros after the point."""
    return _filled("[", lambda number: f"{1 + number % 9}e-308", "]", size)


def middling(size: int) -> str:
    """Numbers that are short as doubles, and as integers not quite a hundred digits long."""
    return _filled("[", lambda number: f"{1 + number % 9}e98", "]", size)


def long(size: int) -> str:
    """Integers of 300 digits."""
    return _filled("[", lambda number: f"{number + 1}" + "7" * 299, "]", size)


def nested_exponents(size: int) -> str:
    """Such numbers, each in lists of its own."""
    return _filled("[", lambda number: f"[[1e{300 + number % 9}],[-1e-{number % 300}]]", "]", size)


def exponent_keys(size: int) -> str:
    """One object of many keys with such numbers."""
    return _filled("{", lambda number: f'"{number:x}":{1 + number % 9}e307', "}", size)


def keys(size: int) -> str:
    """One object of many keys."""
    return _filled("{", lambda number: f'"{number:x}":{number + 1000}', "}", size)


SHAPES: Final = (string, wide, objects, lists, nested, floats, keys)
NUMBERS: Final = (largest, tiny, middling, long, nested_exponents, exponent_keys)
MIXES: Final[dict[str, Callable[[], Iterator[str]]]] = {
    "800 x 250 KiB text": lambda: (string(250 * KIB) for _ in range(800)),
    "40 x 1 MiB objects": lambda: (objects(_LARGEST) for _ in range(40)),
    "35 x 1 MiB any shape": lambda: (shape(_LARGEST) for _ in range(5) for shape in SHAPES),
    "6 x 1 MiB exponents": lambda: (exponents(_LARGEST) for _ in range(6)),
    "18 x 1 MiB any number": lambda: (shape(_LARGEST) for _ in range(3) for shape in NUMBERS),
    "300 x 100 KiB any shape": lambda: (
        SHAPES[number % len(SHAPES)](100 * KIB) for number in range(300)
    ),
}
_LARGEST: Final = LARGEST_BODY - ROOM_FOR_THE_REST


def body(person: UUID, bio: str, minute: int) -> bytes:
    """A webhook's body about a person with these traits."""
    at = datetime(2026, 11, 23, 12, minute, tzinfo=UTC).isoformat()
    identity = {
        "id": str(person),
        "schema_id": "person",
        "schema_url": "http://kratos/schemas/person",
        "state": "active",
        "state_changed_at": at,
        "traits": {"email": f"{person}@example.org", "bio": "HERE"},
        "metadata_public": None,
        "organization_id": None,
        "created_at": at,
        "updated_at": at,
    }
    return json.dumps({"identity": identity}, separators=(",", ":")).replace('"HERE"', bio).encode()


class Memory:
    """Samples processes and those that they start, and kills a worker that is too large."""

    def __init__(self, pids: dict[str, int], limit_mb: float) -> None:
        self._pids = pids
        self._limit = limit_mb
        self.peaks = dict.fromkeys(pids, 0.0)
        self.kills = 0
        self.done = Event()
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self.done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self.done.wait(SAMPLE_SECONDS):
            for name, pid in self._pids.items():
                with suppress(psutil.Error):
                    self._look(name, psutil.Process(pid))

    def _look(self, name: str, process: psutil.Process) -> None:
        children = process.children(recursive=True)
        size = sum(each.memory_info().rss for each in (process, *children)) / 1e6
        self.peaks[name] = max(self.peaks[name], size)
        if name == "worker" and children and size > self._limit:
            self.kills += 1
            children[0].kill()
            children[0].wait(10)


class Sender:
    """Calls the webhook."""

    def __init__(self, address: str) -> None:
        self._http = httpx.Client(
            base_url=address, headers={"X-Api-Key": KEY}, timeout=60, trust_env=False
        )

    def send(self, content: bytes) -> None:
        """Send one until it is accepted."""
        headers = {"Content-Type": "application/json", "Ory-Webhook-Trigger-Id": str(uuid4())}
        until = monotonic() + LONGEST_SECONDS
        while monotonic() < until:
            answer = self._http.post("/kratos/sync-identity", content=content, headers=headers)
            if answer.status_code == httpx.codes.OK:
                return
        raise TimeoutError(f"the last answer was {answer.status_code}")


def _events(bios: Sequence[str]) -> Iterator[UnreadEvent]:
    """Every other person twice: the second time the row is as large as the event."""
    for number, bio in enumerate(bios):
        person = uuid4()
        yield _event(person, body(person, bio, 0))
        if number % 2 and len(bios) < MANY:
            yield _event(person, body(person, bio.replace("0", "1", 1), 1))


def _event(person: UUID, content: bytes) -> UnreadEvent:
    return UnreadEvent(KratosIdentityUpdated, uuid7(), datetime.now(UTC), person, content)


def fill(url: str, events: Sequence[UnreadEvent]) -> None:
    """Record events as the api does, each with a delivery to every consumer of the service."""
    engine = connect(SecretStr(url), pool_size=2)
    PostgresSubscriptions(engine, subscriptions_with(None)).add_missing()
    for event in events:
        with engine.begin() as connection:
            row = EventRow.of(event, Provenance("benchmark"))
            cursor = psycopg.RawCursor(driver_of(connection))
            cursor.execute(RECORD, arrays_of([row]), binary=True)
    engine.dispose()


def _ordinary_ones(sender: Sender, done: Event, people: list[UUID]) -> None:
    while not done.wait(1 / ORDINARY_PER_SECOND):
        people.append(person := uuid4())
        sender.send(body(person, '"ordinary"', 0))


def measure(stage: Stage, bios: Sequence[str], limit_mb: float, longest: float) -> dict[str, Any]:
    """Let a mix wait, twice about the same people, start a worker and wait until all is settled."""
    with stage.deployed() as service:
        service.start_api()
        sender, ordinary = Sender(service.address), list[UUID]()
        fill(service.database_url, events := list(_events(bios)))
        (waiting,) = service.ask("SELECT count(*) AS n FROM kratos_sync.deliveries")
        if waiting["n"] < len(events):
            raise RuntimeError(f"{waiting['n']} deliveries wait, of {len(events)} events")
        service.start_relay()
        service.start_workers()
        began = monotonic()
        pids = service.pids()
        memory = Memory({"worker": pids["worker-1"], "relay": pids["relay"]}, limit_mb)
        beside = Thread(target=_ordinary_ones, args=(sender, memory.done, ordinary))
        beside.start()
        settled = _settled(service, began + longest)
        seconds = monotonic() - began
        memory.stop()
        beside.join()
        sleep(1)
        return {
            "settled": settled,
            "seconds": round(seconds, 1),
            "kills": memory.kills,
            "attempts failed": service.ask(
                "SELECT count(*) AS n FROM kratos_sync.attempts WHERE outcome <> 'succeeded'"
            )[0]["n"],
            **{f"{name} MB": round(peak) for name, peak in memory.peaks.items()},
            **_delays(service, ordinary),
        }


def _settled(service: Deployment, until: float) -> str:
    """Wait until nothing large is left, and return how many of the deliveries were settled."""
    left = "SELECT count(*) AS n FROM kratos_sync.deliveries d JOIN kratos_sync.events e"
    left += " ON e.id = d.event_id WHERE pg_column_size(e.payload) > 3000"
    while monotonic() < until:
        if not service.ask(left)[0]["n"]:
            return "all"
        sleep(0.25)
    return f"all but {service.ask(left)[0]['n']}"


def _delays(service: Deployment, people: Sequence[UUID]) -> dict[str, Any]:
    rows = service.ask(
        "SELECT extract(epoch FROM a.started_at + a.duration - e.recorded_at)::float AS seconds"
        " FROM kratos_sync.events e LEFT JOIN kratos_sync.attempts a"
        " ON a.event_id = e.id AND a.consumer = %s AND a.outcome = 'succeeded'"
        " WHERE e.name = 'kratos_identity.updated' AND e.subject = ANY(%s)",
        SYNC,
        list(people),
    )
    delays = sorted(row["seconds"] for row in rows if row["seconds"] is not None)
    if not delays:
        return {"ordinary": len(rows), "p50 s": None, "max s": None}
    return {
        "ordinary": f"{len(delays)} of {len(rows)}",
        "p50 s": round(delays[len(delays) // 2], 2),
        "max s": round(delays[-1], 2),
    }


def main() -> int:
    """Measure every mix, or those named, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=float, default=1e9, help="MB that a worker may take")
    parser.add_argument("--longest", type=float, default=LONGEST_SECONDS, help="s for each mix")
    parser.add_argument("--mix", action="append", choices=MIXES, help="only this one; repeatable")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mixes-") as folder, raised(Path(folder)) as stage:
        for name in arguments.mix or MIXES:
            figures = measure(stage, list(MIXES[name]()), arguments.limit, arguments.longest)
            print(f"{name:<24}", "  ".join(f"{k} {v}" for k, v in figures.items()), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
