"""A primary is lost and its standby promoted, under steady webhooks: everything goes on."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import httpx
import pytest
from pydantic import SecretStr

from kratos_sync.infrastructure.migrations import migrate
from kratos_sync.infrastructure.postgres.engine import connect
from kratos_sync.testing.kratos import InMemoryDocuments
from tests.end_to_end.processes import Processes
from tests.end_to_end.steady_sender import SteadySender
from tests.end_to_end.test_outage import Sending, assert_each_is_one_event_and_delivered_once
from tests.end_to_end.wire import KEY, Wire, call, identity
from tests.infrastructure.replicas import Network, Primary, Standby
from tests.kratos.admin_stand_in import AdminStandIn
from tests.kratos.persons import person
from tests.namespaces import why_not
from tests.waiting import until

RATE: Final = 20
MOST_SECONDS: Final = 15.0
"""From the loss of the primary until its standby, promoted at once, accepts webhooks."""


class Pair:
    """A primary with a standby, and the service that uses both."""

    def __init__(self, folder: Path, stack: ExitStack, network: Network | None = None) -> None:
        self.network = network
        self.primary = stack.enter_context(Primary(folder / "primary", network))
        self.standby = stack.enter_context(Standby(folder / "standby", self.primary))
        # The old primary comes first: libpq would use it again.
        hosts = f"{self.primary.address},{self.standby.address}"
        self.url = f"postgresql://postgres@{hosts}/postgres?target_session_attrs=read-write"
        engine = connect(SecretStr(self.url), pool_size=2)
        migrate(engine)
        engine.dispose()

    def lose(self, how: str) -> None:
        """Lose the primary, and promote its standby."""
        if how == "stopped":
            self.primary.shut_down()
        elif how == "killed":
            self.primary.crash()
        else:
            assert self.network is not None
            self.network.cut()
        self.standby.promote()


MakePair = Callable[..., Pair]


@pytest.fixture
def make_pair(tmp_path: Path) -> Iterator[MakePair]:
    with ExitStack() as stack:

        def make(how: str = "killed") -> Pair:
            network = None
            if how == "cut off":
                if reason := why_not():
                    pytest.skip(reason)
                network = stack.enter_context(Network())
            return Pair(tmp_path, stack, network)

        yield make


@contextmanager
def service(folder: Path, url: str, broker_url: str, **settings: str) -> Iterator[Processes]:
    """An api, a relay and a worker."""
    common = {
        "DATABASE_URL": url,
        "BROKER_URL": broker_url,
        "KRATOS_WEBHOOK_API_KEYS": KEY,
        "LOG_FORMAT": "json",
        "LEASE_SECONDS": "5",
        **settings,
    }
    with Processes(folder, common) as processes:
        processes.start_api()
        processes.start("relay", "relay")
        processes.start("worker", "worker")
        processes.wait_for("worker", "worker_started")
        yield processes


def lose_under_load(pair: Pair, how: str, processes: Processes) -> SteadySender:
    """Send webhooks all the time; lose the primary, and wait until all goes on."""
    until(lambda: listens(pair.primary))
    sending = Sending(processes.http.base_url.port or 0, rate=RATE)
    sender = sending.start()
    until(lambda: len(sender.accepted) >= 2 * RATE)
    began = time.monotonic()
    pair.lose(how)
    accepted = len(sender.accepted)
    until(lambda: len(sender.accepted) >= accepted + RATE)
    recovered = time.monotonic() - began
    consumed = "SELECT count(*) FROM kratos_sync.kratos_identities"
    [[before]] = pair.standby.ask(consumed)
    until(lambda: pair.standby.ask(consumed) > [(before + RATE,)])
    consuming = time.monotonic() - began
    until(lambda: listens(pair.standby))
    sending.finish()
    print(
        f"{how}: accepts after {recovered:.1f} s, consumes after {consuming:.1f} s,"
        f" accepted {len(sender.accepted)}, refused for good {len(sender.lost)},"
        f" longest call {sender.longest:.1f} s"
    )
    assert sender.lost == {}
    assert recovered < MOST_SECONDS
    assert consuming < 2 * MOST_SECONDS
    return sender


def listens(server: Primary) -> bool:
    """Whether the relay waits for wake-ups there."""
    return bool(
        server.ask("""
            SELECT FROM pg_stat_activity
            WHERE application_name = 'kratos-sync relay' AND query LIKE 'LISTEN%'
        """)
    )


def failover_in_status(processes: Processes) -> Any:
    code, document = processes.run("status", "--json")
    assert code == 0, document
    return json.loads(document.splitlines()[-1])["failover"]


def url_of(server: Primary) -> str:
    return f"postgresql://postgres@{server.address}/postgres"


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_a_failover_to_a_synchronous_standby_loses_nothing_under_load(
    how: str, make_pair: MakePair, broker_url: str, tmp_path: Path
) -> None:
    pair = make_pair(how)
    with service(tmp_path, pair.url, broker_url) as processes:
        pair.primary.wait_for_its_standby()

        sender = lose_under_load(pair, how, processes)

        assert_each_is_one_event_and_delivered_once(url_of(pair.standby), sender)
        assert processes.stop("api", "relay", "worker") == {"api": 0, "relay": 0, "worker": 0}


def test_what_an_asynchronous_failover_lost_is_noticed_and_found_by_a_reconciliation(
    make_pair: MakePair, broker_url: str, tmp_path: Path
) -> None:
    pair = make_pair()
    people = InMemoryDocuments()
    with (
        AdminStandIn(people) as kratos,
        service(tmp_path, pair.url, broker_url, KRATOS_ADMIN_URL=kratos.url) as processes,
    ):
        port = processes.http.base_url.port or 0
        until(lambda: pair.primary.ask("SELECT FROM kratos_sync.timelines"))
        received = pair.primary.ask("SELECT pg_current_wal_lsn()")
        until(lambda: pair.standby.ask("SELECT pg_last_wal_replay_lsn()") >= received)

        with pair.primary.sending_nothing():
            accepted = [accepted_person(port, people) for _ in range(30)]
            began = time.monotonic()
            pair.lose("killed")
        later = accepted_person(port, people)
        recovered = time.monotonic() - began
        consumed = f"SELECT FROM kratos_sync.kratos_identities WHERE id = '{later}'"
        until(lambda: pair.standby.ask(consumed))
        consuming = time.monotonic() - began
        assert recovered < MOST_SECONDS
        assert consuming < 2 * MOST_SECONDS

        kept = set(pair.standby.ask("SELECT subject FROM kratos_sync.events"))
        assert not kept & {(each,) for each in accepted}
        assert (later,) in kept
        noted = "SELECT FROM kratos_sync.timelines WHERE timeline = 2"
        until(lambda: pair.standby.ask(noted))
        failover = failover_in_status(processes)
        assert (failover["timeline"], failover["before"], failover["same_cluster"]) == (2, 1, True)
        code, said = processes.run("reconcile")
        assert code == 0, said
        held = "SELECT id FROM kratos_sync.kratos_identities"
        until(lambda: len(pair.standby.ask(held)) == len(people.documents))
        assert failover_in_status(processes) is None
        twice = "SELECT FROM kratos_sync.attempts GROUP BY event_id, consumer HAVING count(*) > 1"
        assert pair.standby.ask(twice) == []
        print(
            f"accepts after {recovered:.1f} s, consumes after {consuming:.1f} s,"
            f" lost {len(accepted)} of {len(people.documents)}, all found"
        )


def accepted_person(port: int, people: InMemoryDocuments) -> UUID:
    """Somebody who registers in Kratos, and of whom the api accepted the webhook."""
    document = person()
    people.put(document)
    with Wire(port) as wire:
        wire.send(call(json.dumps({"identity": document}).encode()))
        assert wire.answer().status == 200
    return UUID(document["id"])


def test_a_primary_that_was_cut_off_is_not_used_again_when_it_comes_back(
    make_pair: MakePair, broker_url: str, tmp_path: Path
) -> None:
    pair = make_pair("cut off")
    assert pair.network is not None
    with service(tmp_path, pair.url, broker_url) as processes:
        pair.primary.wait_for_its_standby()
        sender = lose_under_load(pair, "cut off", processes)
        assert_each_is_one_event_and_delivered_once(url_of(pair.standby), sender)

        pair.network.mend()
        [[mended_at]] = until(lambda: pair.primary.ask("SELECT clock_timestamp()"))
        pair.primary.ask_nothing("ALTER SYSTEM RESET synchronous_standby_names")
        pair.primary.ask_nothing("SELECT pg_reload_conf()")
        # New processes have seen no timeline, and it comes first in the URL.
        processes.stop("api", "relay", "worker")
        processes.start_api()
        processes.start("relay", "relay")
        processes.start("worker", "worker")
        with Wire(processes.http.base_url.port or 0) as wire:
            for _ in range(RATE):
                wire.send(call(identity()))
                assert wire.answer().status == 200
        stored = "SELECT count(*) FROM kratos_sync.kratos_identities"
        until(lambda: pair.standby.ask(stored) == [(len(sender.accepted) + RATE,)])
        recent = f"SELECT FROM kratos_sync.events WHERE recorded_at > '{mended_at}'"
        assert pair.primary.ask(recent) == []
        # Those of before the cut stay there for two hours: nobody said that they ended.
        sessions = f"""
            SELECT FROM pg_stat_activity
            WHERE application_name LIKE 'kratos-sync%' AND backend_start > '{mended_at}'
        """
        until(lambda: pair.primary.ask(sessions) == [])


def test_a_read_only_server_is_an_outage_and_counts_no_attempt(
    make_pair: MakePair, broker_url: str, tmp_path: Path
) -> None:
    pair = make_pair()
    settings = {
        "BROKER_URL": broker_url,
        "KRATOS_WEBHOOK_API_KEYS": KEY,
        "LOG_FORMAT": "json",
        "LEASE_SECONDS": "5",
    }
    with Processes(tmp_path, {"DATABASE_URL": url_of(pair.primary), **settings}) as before:
        before.start_api()
        with Wire(before.http.base_url.port or 0) as wire:
            wire.send(call(identity()))
            assert wire.answer().status == 200
    received = pair.primary.ask("SELECT pg_current_wal_lsn()")
    until(lambda: pair.standby.ask("SELECT pg_last_wal_replay_lsn()") >= received)

    (tmp_path / "standby_only").mkdir()
    with Processes(
        tmp_path / "standby_only", {"DATABASE_URL": url_of(pair.standby), **settings}
    ) as processes:
        port = processes.http.base_url.port or 0
        processes.start("api", "api", "--port", str(port))
        processes.start("relay", "relay")
        processes.start("worker", "worker")
        processes.wait_for("relay", "read-only")
        until(lambda: is_read_only(processes))
        code, said = processes.run("status")
        assert code == 0, said
        code, said = processes.run("purge")
        assert (code, len(said.splitlines())) == (1, 1), said
        with Wire(port) as wire:
            wire.send(call(identity()))
            processes.wait_for("api", "webhook_waiting")
            pair.standby.promote()
            assert wire.answer().status == 200
        attempts = "SELECT number, outcome FROM kratos_sync.attempts WHERE consumer LIKE 'Sync%'"
        until(lambda: len(pair.standby.ask(attempts)) == 2)
        assert pair.standby.ask(attempts) == [(1, "succeeded")] * 2
        assert processes.stop("api", "relay", "worker") == {"api": 0, "relay": 0, "worker": 0}
        assert "Traceback" not in "".join(map(processes.said, ("api", "relay", "worker")))


def is_read_only(processes: Processes) -> bool:
    try:
        answer = processes.http.get("/health/ready")
    except httpx.TransportError:
        return False
    return answer.status_code == 503 and "read-only" in answer.text
