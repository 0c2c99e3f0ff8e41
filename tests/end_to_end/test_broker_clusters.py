"""Broker clusters that lose a part, under steady webhooks: nothing is lost, and all goes on."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg
import pytest

from tests.end_to_end.processes import Processes
from tests.end_to_end.test_failover import service
from tests.end_to_end.test_outage import Sending, assert_each_is_one_event_and_delivered_once
from tests.infrastructure.bus.rabbitmq_cluster import RabbitmqCluster
from tests.infrastructure.bus.rabbitmq_server import require_rabbitmq
from tests.infrastructure.bus.sentinels import ConfiguredValkey, Sentinels
from tests.infrastructure.replicas import Network
from tests.namespaces import why_not
from tests.waiting import until

RATE: Final = float(os.environ.get("CLUSTER_RATE", "50"))
MOST_SECONDS: Final = 15.0
"""From when work stopped until nothing is late."""
DOWN_AFTER_SECONDS: Final = 3.0
LATE_SECONDS: Final = 1
CALM_SECONDS: Final = 7.0
"""Longer than a lease: what was lost with a broker has come again."""
LAG: Final = """
    SELECT coalesce(extract(epoch FROM clock_timestamp() - min(owed_at)), 0)::float
    FROM kratos_sync.deliveries WHERE failed_at IS NULL
"""


class Watch:
    """Looks all the time how late the oldest delivery is."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._late_since: float | None = None
        self._late_at = 0.0
        self._longest = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(10)

    def calm(self, fault: Callable[[], object], *, ends: bool) -> tuple[float, float]:
        """Do it, wait until nothing is late, and give for how long, and the longest lag.

        If it `ends` an outage, that is from its end on, and else from when work stopped.
        """
        self._late_since, self._longest = None, 0.0
        fault()
        done = time.monotonic()
        until(lambda: time.monotonic() - max(self._late_at, done) > CALM_SECONDS)
        since = done if ends or self._late_since is None else self._late_since
        return max(self._late_at - since, 0.0), self._longest

    def _run(self) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            while not self._ended.wait(0.1):
                row = connection.execute(LAG.encode()).fetchone()
                lag, now = 0.0 if row is None else row[0], time.monotonic()
                self._longest = max(self._longest, lag)
                if lag > LATE_SECONDS:
                    self._late_since = self._late_since or now - lag
                    self._late_at = now


@dataclass
class Load:
    """The service under steady webhooks, and what is seen of it."""

    processes: Processes
    watch: Watch
    rows: list[str]

    def survives(self, name: str, fault: Callable[[], object], *, ends: bool = False) -> None:
        """Do it, and have all go on in time."""
        late, longest = self.watch.calm(fault, ends=ends)
        self.rows.append(f"| {name} | {late:.1f} s | {longest:.1f} s |")
        assert late < MOST_SECONDS, self.rows


@contextmanager
def under_load(folder: Path, database_url: str, broker_url: str) -> Iterator[Load]:
    """Send webhooks to an api, with a relay and two workers; each has its effect once."""
    with (
        service(folder, database_url, broker_url) as processes,
        Watch(database_url) as watch,
    ):
        processes.start("worker-2", "worker")
        processes.wait_for("worker-2", "worker_started")
        sending = Sending(processes.http.base_url.port or 0, rate=RATE)
        sender = sending.start()
        load = Load(processes, watch, [])
        try:
            until(lambda: len(sender.accepted) >= 2 * RATE)
            yield load
        finally:
            sending.finish()
            print("", *load.rows, sep="\n")
        print(f"accepted {len(sender.accepted)}, refused {len(sender.lost)}, {RATE:.0f}/s")
        assert sender.lost == {}
        assert_each_is_one_event_and_delivered_once(database_url, sender)
        attempts = "SELECT outcome, number, count(*) FROM kratos_sync.attempts GROUP BY 1, 2"
        with psycopg.connect(database_url) as connection:
            outcomes = {row[:2] for row in connection.execute(attempts.encode())}
        assert outcomes == {("succeeded", 1)}
        code, said = processes.run("status")
        assert (code, "does not answer" in said) == (0, False), said


@pytest.fixture(autouse=True)
def asked_for(servers: frozenset[str]) -> None:
    if "clusters" not in servers:
        pytest.skip("broker clusters are broken by `make test-servers`")


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def network(stack: ExitStack) -> Network:
    if reason := why_not():
        pytest.skip(reason)
    return stack.enter_context(Network())


def test_the_primary_of_sentinels_is_killed_and_comes_back_as_a_replica(
    tmp_path: Path, database_url: str, stack: ExitStack
) -> None:
    sentinels = stack.enter_context(Sentinels(tmp_path, down_after=DOWN_AFTER_SECONDS))
    with under_load(tmp_path, database_url, sentinels.url) as load:
        load.survives("primary killed, replica promoted", sentinels.primary.kill)
        assert sentinels.is_primary(sentinels.replica)
        load.survives("it comes back", lambda: returns_as_replica(sentinels))


def returns_as_replica(sentinels: Sentinels) -> None:
    sentinels.primary.come_back()
    until(lambda: sentinels.info(sentinels.primary)["role"] == "slave")


def test_the_primary_of_sentinels_is_stopped_and_then_each_sentinel_but_one_dies(
    tmp_path: Path, database_url: str, stack: ExitStack
) -> None:
    sentinels = stack.enter_context(Sentinels(tmp_path, down_after=DOWN_AFTER_SECONDS))
    with under_load(tmp_path, database_url, sentinels.url) as load:
        load.survives("primary stopped in order, replica promoted", sentinels.primary.shut_down)
        assert sentinels.is_primary(sentinels.replica)
        for sentinel in sentinels.sentinels[:2]:
            load.survives("a Sentinel killed", sentinel.kill)


def test_the_primary_of_sentinels_is_cut_off_and_comes_back_as_a_second_primary(
    tmp_path: Path, database_url: str, stack: ExitStack
) -> None:
    cable = network(stack)
    sentinels = stack.enter_context(
        Sentinels(tmp_path, down_after=DOWN_AFTER_SECONDS, network=cable)
    )
    with under_load(tmp_path, database_url, sentinels.url) as load:
        load.survives("primary cut off, replica promoted", cable.cut)
        assert sentinels.is_primary(sentinels.replica)

        def mend() -> None:
            cable.mend()
            until(lambda: sentinels.info(sentinels.primary)["role"] == "slave")

        load.survives("the cut healed: two primaries until Sentinels demote the old one", mend)


@pytest.mark.parametrize("copy", ["wiped", "stale"])
def test_a_replica_with_an_older_copy_or_none_is_promoted(
    copy: str, tmp_path: Path, database_url: str, stack: ExitStack
) -> None:
    sentinels = stack.enter_context(Sentinels(tmp_path, down_after=DOWN_AFTER_SECONDS))
    with under_load(tmp_path, database_url, sentinels.url) as load:
        older = held_by(sentinels.replica) if copy == "stale" else {}

        def lose() -> None:
            sentinels.primary.kill()
            with sentinels.replica.client() as client:
                client.config_set("replica-read-only", "no")
                client.flushall()
                for key, value in older.items():
                    client.restore(key, 0, value)
                client.config_set("replica-read-only", "yes")

        load.survives(f"primary killed, a {copy} replica promoted", lose)
        assert sentinels.is_primary(sentinels.replica)


def held_by(server: ConfiguredValkey) -> dict[bytes, bytes]:
    """A copy of all keys, taken at a moment when there are messages."""

    def copy() -> dict[bytes, bytes]:
        with server.client() as client:
            held = {key: client.dump(key) for key in client.scan_iter()}
        whole = {key: value for key, value in held.items() if value is not None}
        return whole if any(key.endswith(b".msgs") for key in whole) else {}

    return until(copy)


@pytest.fixture
def cluster(request: pytest.FixtureRequest, tmp_path: Path, stack: ExitStack) -> RabbitmqCluster:
    """Three nodes; with the parameter "network" one is in a network of its own."""
    require_rabbitmq()
    cable = network(stack) if getattr(request, "param", None) == "network" else None
    return stack.enter_context(RabbitmqCluster(tmp_path / "cluster", cable))


def comes_back(cluster: RabbitmqCluster, name: str) -> None:
    cluster.nodes[name].be_there()
    until(cluster.is_whole)


def test_a_node_of_rabbitmq_is_killed_and_comes_back(
    cluster: RabbitmqCluster, tmp_path: Path, database_url: str
) -> None:
    with under_load(tmp_path, database_url, cluster.url) as load:
        leader = cluster.leader_of("SyncKratosIdentity")
        load.survives("the node that leads the queue killed", cluster.nodes[leader].go_away)
        load.survives("it comes back", lambda: comes_back(cluster, leader))
        other = next(name for name in cluster.nodes if name != leader)
        load.survives("another node stopped in order", cluster.nodes[other].shut_down)
        load.survives("it comes back", lambda: comes_back(cluster, other))


@pytest.mark.parametrize("cluster", ["network"], indirect=True)
def test_a_node_of_rabbitmq_is_cut_off_and_the_partition_heals(
    cluster: RabbitmqCluster, tmp_path: Path, database_url: str
) -> None:
    cable = cluster.network
    assert cable is not None
    with under_load(tmp_path, database_url, cluster.url) as load:
        load.survives("a node cut off from everybody", cable.cut)

        def mend() -> None:
            cable.mend()
            until(cluster.is_whole)

        load.survives("the cut healed", mend)


def test_a_node_of_rabbitmq_is_parted_from_the_others_and_not_from_us(
    cluster: RabbitmqCluster, tmp_path: Path, database_url: str
) -> None:
    with under_load(tmp_path, database_url, cluster.url) as load:
        leader = cluster.leader_of("SyncKratosIdentity")
        load.survives("the node that leads the queue parted", lambda: cluster.part(leader))

        def heal() -> None:
            cluster.heal(leader)
            until(cluster.is_whole)

        load.survives("the partition healed", heal)


def test_without_a_majority_webhooks_are_accepted_and_wait_for_a_second_node(
    cluster: RabbitmqCluster, tmp_path: Path, database_url: str
) -> None:
    with under_load(tmp_path, database_url, cluster.url) as load:
        for name in ("a", "b"):
            cluster.nodes[name].go_away()
        load.processes.wait_for("relay", "broker_unavailable")
        back = cluster.nodes["a"].be_there
        load.survives("one of two that were killed comes back", back, ends=True)
        load.survives("the other comes back", lambda: comes_back(cluster, "b"))


def test_a_queue_of_another_type_is_named_by_status(
    cluster: RabbitmqCluster, tmp_path: Path, database_url: str
) -> None:
    with under_load(tmp_path, database_url, f"{cluster.url}?queue_type=classic") as load:
        code, said = load.processes.run("status", BROKER_URL=cluster.url)
        assert code == 0
        assert "is no quorum queue: delete it" in said
