"""Kratos' Admin API is away while webhooks go on coming as hints: what that costs, in figures.

    python -m tests.end_to_end.kratos_away --seconds 60 --how closed

It is away in one of three ways: nobody listens, every answer is 503, or none ever comes.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from statistics import quantiles
from typing import Any, Final
from uuid import UUID, uuid4

import httpx
import psycopg
from psycopg.rows import dict_row

from kratos_sync.infrastructure.embedded import EmbeddedPostgres, EmbeddedValkey
from kratos_sync.testing.kratos import InMemoryDocuments
from tests.end_to_end.processes import Processes
from tests.kratos.admin_stand_in import AdminStandIn
from tests.kratos.persons import person
from tests.kratos.reply import broken, slow
from tests.ports import free_port
from tests.waiting import DEADLINE_SECONDS, until

KEY: Final = "a-key-of-no-worth"
EXACT: Final = 9007199254740993
BEFORE_SECONDS: Final = 5.0
AFTER_SECONDS: Final = 5.0


@dataclass
class Life:
    """People who change all the time, and the webhooks that say so."""

    town: InMemoryDocuments
    rate: float
    chance: Random = field(default_factory=lambda: Random(1))
    ids: list[UUID] = field(default_factory=list)
    answers: dict[int, int] = field(default_factory=dict)
    took: list[float] = field(default_factory=list)

    async def live(self, url: str, stop: asyncio.Event) -> None:
        """Change somebody and call, at the rate, until it is stopped."""
        async with (
            httpx.AsyncClient(base_url=url, timeout=DEADLINE_SECONDS, trust_env=False) as http,
            asyncio.TaskGroup() as calls,
        ):
            next_at = time.monotonic()
            while not stop.is_set():
                who = self.chance.choice(self.ids)
                self._change(who)
                calls.create_task(self._call(http, who))
                next_at += 1 / self.rate
                await asyncio.sleep(max(next_at - time.monotonic(), 0))

    def _change(self, who: UUID) -> None:
        document = self.town.documents[who]
        count = document["metadata_admin"]["count"] + 1
        metadata = {"count": count, "card": EXACT + 2 * count}
        self.town.put({**document, "metadata_admin": metadata, "updated_at": _now()})

    async def _call(self, http: httpx.AsyncClient, who: UUID) -> None:
        body = json.dumps({"identity": {"id": str(who)}})
        headers = {
            "X-Api-Key": KEY,
            "Content-Type": "application/json",
            "Ory-Webhook-Trigger-Id": str(uuid4()),
        }
        began = time.monotonic()
        answer = await http.post("/kratos/sync-identity", content=body, headers=headers)
        self.took.append(time.monotonic() - began)
        self.answers[answer.status_code] = self.answers.get(answer.status_code, 0) + 1


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


class Ledger:
    """What stands in the database."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True, row_factory=dict_row)

    def one(self, expression: str) -> Any:
        """The value of an expression, or of a subquery."""
        row = self._connection.execute(f"SELECT {expression} AS it".encode()).fetchone()
        assert row is not None
        return row["it"]

    def pending(self) -> int:
        return int(self.one("(SELECT count(*) FROM kratos_sync.deliveries)"))

    def hints_pending(self) -> int:
        hints = "kratos_sync.deliveries WHERE consumer = 'FetchKratosIdentity'"
        return int(self.one(f"(SELECT count(*) FROM {hints})"))

    def attempts(self, condition: str) -> int:
        return int(self.one(f"(SELECT count(*) FROM kratos_sync.attempts WHERE {condition})"))

    def wrong(self, town: InMemoryDocuments) -> int:
        """How many are not as Kratos has them, to the last digit."""
        rows = self._connection.execute("SELECT * FROM kratos_sync.kratos_identities").fetchall()
        held = {row["id"]: row["metadata_admin"] for row in rows}
        return sum(
            held.get(who) != document["metadata_admin"]
            for who, document in town.documents.items()
            if document["metadata_admin"]["count"]
        )


@contextmanager
def service(folder: Path, kratos_url: str) -> Iterator[tuple[Processes, str]]:
    """Run everything on servers of its own."""
    with ExitStack() as stack:
        postgres = stack.enter_context(EmbeddedPostgres(folder / "postgres"))
        valkey = stack.enter_context(EmbeddedValkey(folder / "valkey"))
        settings = {
            "DATABASE_URL": postgres.url,
            "BROKER_URL": valkey.url,
            "KRATOS_WEBHOOK_API_KEYS": KEY,
            "KRATOS_ADMIN_URL": kratos_url,
            "KRATOS_REFETCH": "true",
            "LOG_FORMAT": "json",
        }
        processes = stack.enter_context(Processes(folder, settings))
        code, said = processes.run("migrate")
        assert code == 0, said
        for name in ("relay", "worker"):
            processes.start(name, name)
        processes.start_api()
        yield processes, postgres.url


class Kratos:
    """An Admin API that comes and goes."""

    def __init__(self, town: InMemoryDocuments, how: str) -> None:
        self._town = town
        self._how = how
        self._port = free_port()
        self._stand_in = AdminStandIn(town, self._port)
        self.url = self._stand_in.url
        self._stand_in.__enter__()

    def leave(self) -> None:
        self.asked_since()
        if self._how == "closed":
            self._stand_in.__exit__()
        else:
            self._stand_in.always = broken(503) if self._how == "503" else slow(3600)

    def come_back(self) -> int | None:
        """Be there again; give how often it was asked meanwhile, unless nobody listened."""
        if self._how == "hangs":
            self.end()  # or the calls that it holds would be answered at last
        meanwhile = None if self._how == "closed" else self.asked_since()
        if self._how != "503":
            self._stand_in = AdminStandIn(self._town, self._port)
            self._stand_in.__enter__()
        self._stand_in.always = None
        return meanwhile

    def end(self) -> None:
        self._stand_in.__exit__()

    def asked_since(self) -> int:
        """How often it was asked since this was called last."""
        count = len(self._stand_in.seen)
        self._stand_in.seen.clear()
        return count


async def measure(
    processes: Processes, ledger: Ledger, kratos: Kratos, life: Life, away: float
) -> None:
    """Let Kratos be away for so many seconds, and print what came of it."""
    stop = asyncio.Event()
    living = asyncio.create_task(life.live(str(processes.http.base_url), stop))
    await asyncio.sleep(BEFORE_SECONDS)
    before = life.answers.get(200, 0)
    kratos.leave()
    await asyncio.sleep(away)
    waiting, sent = ledger.hints_pending(), life.answers.get(200, 0) - before
    meanwhile = kratos.come_back()
    back = time.monotonic()
    await asyncio.sleep(AFTER_SECONDS)
    stop.set()
    await living
    await asyncio.to_thread(until, lambda: ledger.pending() == 0, 600)
    settled = time.monotonic() - back
    hints = life.answers.get(200, 0)
    report = {
        "seconds away": away,
        "hints while it was away": sent,
        "hints that waited when it came back": waiting,
        "answers to webhooks": life.answers,
        "ms for an answer, p50 and p99": [
            round(1000 * quantiles(life.took, n=100)[at], 1) for at in (49, 98)
        ],
        "asked while it was away": meanwhile,
        "asked since, and hints settled since": [
            kratos.asked_since(),
            waiting + hints - before - sent,
        ],
        "postponed": ledger.attempts("outcome = 'postponed'"),
        "failed or dead": ledger.attempts("outcome NOT IN ('postponed', 'succeeded')"),
        "attempts counted above one": ledger.attempts("number > 1"),
        "seconds until all was settled": round(settled, 1),
        "people": len(life.ids),
        "people who are not exact at the end": ledger.wrong(life.town),
    }
    for name, value in report.items():
        print(f"{name:40} {value}")


def main() -> None:
    """Measure once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rate", type=float, default=50, help="webhooks a second")
    parser.add_argument("--people", type=int, default=300)
    parser.add_argument("--how", choices=["closed", "503", "hangs"], default="closed")
    given = parser.parse_args()
    town = InMemoryDocuments()
    life = Life(town, given.rate)
    life.ids = [town.put(person(metadata_admin={"count": 0})) for _ in range(given.people)]
    kratos = Kratos(town, given.how)
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            service(Path(folder), kratos.url) as (processes, url),
        ):
            asyncio.run(measure(processes, Ledger(url), kratos, life, given.seconds))
    finally:
        kratos.end()


if __name__ == "__main__":
    main()
