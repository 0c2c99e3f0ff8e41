"""Webhooks as hints: what is stored is what Kratos' Admin API says, to the last digit."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.rows import dict_row

from kratos_sync.testing.kratos import InMemoryDocuments
from tests.databases import MigratedDatabase, empty_tables
from tests.end_to_end.processes import Processes
from tests.kratos.admin_stand_in import AdminStandIn
from tests.kratos.persons import person
from tests.ports import free_port
from tests.recorded import COLUMNS, Call, as_held, as_stored, thirteen_calls, two_hundred_lives
from tests.waiting import until

KEY = "a-key-of-no-worth"
LOYAL = 9007199254740993


@dataclass
class Refetching:
    """Api, relay and worker that ask Kratos again, and the Kratos that they ask."""

    url: str
    processes: Processes
    town: InMemoryDocuments
    kratos_port: int

    def send(self, call: Call) -> int:
        headers = {**call.headers, "X-Api-Key": KEY}
        http = self.processes.http
        return http.post("/kratos/sync-identity", content=call.body, headers=headers).status_code

    def hint(self, identity_id: UUID) -> None:
        body = json.dumps({"identity": {"id": str(identity_id)}}).encode()
        headers = {"Content-Type": "application/json", "Ory-Webhook-Trigger-Id": str(uuid4())}
        assert self.send(Call(headers, body, str(identity_id))) == 200

    def query(self, statement: str) -> list[dict[str, Any]]:
        with psycopg.connect(self.url, autocommit=True, row_factory=dict_row) as connection:
            return connection.execute(statement.encode()).fetchall()

    def count(self, rows: str) -> int:
        return int(self.query(f"SELECT count(*) AS number FROM kratos_sync.{rows}")[0]["number"])

    def settle(self) -> None:
        until(lambda: self.count("deliveries") == 0)

    @contextmanager
    def kratos(self) -> Iterator[AdminStandIn]:
        """Let Kratos be there."""
        with AdminStandIn(self.town, self.kratos_port) as stand_in:
            yield stand_in


@pytest.fixture(scope="module")
def running(
    migrated_database: MigratedDatabase,
    broker_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Refetching]:
    kratos_port = free_port()
    settings = {
        "BROKER_URL": broker_url,
        "KRATOS_WEBHOOK_API_KEYS": KEY,
        "KRATOS_ADMIN_URL": f"http://127.0.0.1:{kratos_port}",
        "KRATOS_REFETCH": "true",
        "LEASE_SECONDS": "5",
        "LOG_FORMAT": "json",
    }
    folder = tmp_path_factory.mktemp("refetching")
    with (
        migrated_database() as url,
        Processes(folder, {"DATABASE_URL": url, **settings}) as processes,
    ):
        for name in ("relay", "worker"):
            processes.start(name, name)
        processes.start_api()
        yield Refetching(url, processes, InMemoryDocuments(), kratos_port)


@pytest.fixture
def refetching(running: Refetching) -> Iterator[Refetching]:
    """The same, begun anew: nobody is in Kratos, and nobody here."""
    yield replace(running, town=InMemoryDocuments())
    with psycopg.connect(running.url, autocommit=True) as connection:
        empty_tables(connection)


def held(refetching: Refetching) -> dict[str, dict[str, Any]]:
    rows = refetching.query("SELECT * FROM kratos_sync.kratos_identities WHERE deleted_at IS NULL")
    return {str(row["id"]): row for row in rows}


def differing(people: Mapping[str, Mapping[str, Any]], rows: Mapping[str, Any]) -> list[str]:
    """Who is not as Kratos lists them; large integers and administrators' metadata too."""
    return [
        f"{who}: {column}"
        for who, listed in people.items()
        for column in (*COLUMNS, "metadata_admin")
        if (as_stored(rows[who]) | _exact(rows[who]))[column]
        != (as_held(listed) | _exact(listed))[column]
    ]


def _exact(person: Mapping[str, Any]) -> dict[str, Any]:
    return {"traits": person["traits"], "metadata_admin": person.get("metadata_admin")}


@pytest.mark.parametrize("seed", [1, 2])
def test_calls_in_any_order_end_in_what_kratos_lists_exactly(
    refetching: Refetching, seed: int
) -> None:
    lives, steps = two_hundred_lives(), thirteen_calls()
    listing = {**lives.listing, **steps.listing}
    for document in listing.values():
        refetching.town.put(document)
    calls = [*Random(seed).sample(lives.calls, k=400), *steps.calls]
    Random(seed).shuffle(calls)

    with refetching.kratos() as kratos:
        assert {refetching.send(call) for call in calls} == {200}
        refetching.settle()

    called = {call.person for call in calls}
    assert differing({who: listing[who] for who in called & listing.keys()}, held(refetching)) == []
    assert held(refetching).keys() == called & listing.keys()
    assert refetching.count("kratos_identities WHERE deleted_at IS NOT NULL") == 1
    numbers = [row["traits"].get("loyalty_number") for row in held(refetching).values()]
    assert LOYAL in numbers
    assert refetching.count("events WHERE source = 'webhook' AND payload::text LIKE '%@%'") == 0
    assert len(kratos.seen) <= len(calls)


def test_hints_that_came_while_kratos_was_away_end_in_the_exact_copy(
    refetching: Refetching,
) -> None:
    people = [person(metadata_admin={"card": LOYAL + 2 * n}) for n in range(12)]
    ids = [refetching.town.put(document) for document in people]
    stranger = uuid4()
    for who in (*ids, stranger, *ids):
        refetching.hint(who)
    until(partial(_all_waited, refetching, 25))
    for document in people:
        refetching.town.put(
            {**document, "traits": {"email": document["traits"]["email"], "n": LOYAL}}
        )

    with refetching.kratos() as kratos:
        refetching.settle()

    rows = held(refetching)
    assert [rows[str(who)]["metadata_admin"] for who in ids] == [
        document["metadata_admin"] for document in people
    ]
    assert [rows[str(who)]["traits"]["n"] for who in ids] == 12 * [LOYAL]
    assert refetching.count("kratos_identities WHERE deleted_at IS NOT NULL") == 1
    assert refetching.count("attempts WHERE outcome NOT IN ('succeeded', 'postponed')") == 0
    assert refetching.count("attempts WHERE number > 1") == 0
    assert len(kratos.seen) < 25
    assert "batch_abandoned" not in refetching.processes.said("worker")


def _all_waited(refetching: Refetching, number: int) -> bool:
    waited = "(SELECT DISTINCT event_id FROM kratos_sync.attempts WHERE outcome = 'postponed') a"
    statement = f"SELECT count(*) AS number FROM {waited}"
    return int(refetching.query(statement)[0]["number"]) == number


def test_sync_waits_until_its_answer_is_consumed(refetching: Refetching) -> None:
    ada = refetching.town.put(person(metadata_admin={"card": LOYAL}))

    with refetching.kratos():
        code, said = refetching.processes.run("sync", "--wait", str(ada))

    assert (code, said.splitlines()[-1]) == (0, f"{ada}  updated")
    assert held(refetching)[str(ada)]["metadata_admin"] == {"card": LOYAL}


def test_an_api_that_is_to_ask_kratos_wants_to_know_where_it_is(refetching: Refetching) -> None:
    code, said = refetching.processes.run("api", KRATOS_ADMIN_URL="")

    assert code == 2
    assert "KRATOS_REFETCH" in said
    assert "needs KRATOS_ADMIN_URL" in said


def test_a_worker_that_knows_no_kratos_starts_and_leaves_hints(refetching: Refetching) -> None:
    refetching.processes.stop("worker")
    refetching.processes.start("ignorant", "worker", KRATOS_ADMIN_URL="", KRATOS_REFETCH="false")
    ada = refetching.town.put(person())
    refetching.hint(ada)

    until(partial(_all_waited, refetching, 1))

    assert '"hints_wait"' in refetching.processes.said("ignorant")
    assert refetching.count("deliveries WHERE attempts = 0 AND failed_at IS NULL") == 1
    refetching.processes.stop("ignorant")
    refetching.processes.start("worker", "worker")
