"""The previous release under load, rolled to the next and back: no call is refused or lost.

UPGRADE_SIZE=full takes a big table, more calls, and the previous release in its own environment.
"""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple
from uuid import UUID

import psycopg
from pydantic import SecretStr

from kratos_sync.infrastructure.migrations import current_revision, newest_revision
from kratos_sync.infrastructure.postgres.engine import connect
from tests.end_to_end.balancer import Balancer
from tests.end_to_end.processes import Processes
from tests.end_to_end.steady_sender import SteadySender
from tests.end_to_end.test_outage import Sending
from tests.end_to_end.wire import KEY
from tests.faults.wires import Loop
from tests.ports import free_port
from tests.releases import Release, next_release, previous_release
from tests.waiting import until


class Size(NamedTuple):
    rate: float
    """Calls a second."""
    rows: int
    """Of events, when the schema of their table is changed."""
    calls: int
    """In each step, after what it does."""
    own_environment: bool


SIZES: Final[Mapping[str, Size]] = {
    "small": Size(30.0, 20_000, 15, own_environment=False),
    "full": Size(50.0, 2_000_000, 500, own_environment=True),
}
SIZE: Final = SIZES[os.environ.get("UPGRADE_SIZE", "small")]
FILL: Final = """
    INSERT INTO kratos_sync.events (id, name, subject, occurred_at, payload, source)
    SELECT gen_random_uuid(), 'kratos_identity.updated', gen_random_uuid(), now(),
           jsonb_build_object('identity', jsonb_build_object('traits', repeat('x', 300))), 'webhook'
    FROM generate_series(1, %s)
"""
EVENTS: Final = """
    SELECT subject, count(*) FROM kratos_sync.events
    WHERE name = 'kratos_identity.updated' AND subject = ANY(%s) GROUP BY 1
"""
# A consumer that succeeded twice with an event wrote twice.
TWICE: Final = """
    SELECT e.subject
    FROM kratos_sync.attempts AS a JOIN kratos_sync.events AS e ON e.id = a.event_id
    GROUP BY e.subject, a.event_id, a.consumer
    HAVING count(*) FILTER (WHERE a.outcome = 'succeeded') > 1
"""


@dataclass
class Step:
    """What was done under load, and what became of the calls meanwhile."""

    what: str
    sent: list[UUID]
    refused: int
    longest: float
    seconds: float
    accepted: int = 0
    lost: int = 0
    doubled: int = 0

    @property
    def row(self) -> str:
        counts = (len(self.sent), self.accepted, self.refused, self.lost, self.doubled)
        cells = (self.what, *counts, f"{self.longest:.2f} s", f"{self.seconds:.1f} s")
        return f"| {' | '.join(map(str, cells))} |"


@dataclass
class Report:
    """The steps, one after the other; a refused call is one that Kratos had to try again."""

    sender: SteadySender
    steps: list[Step] = field(default_factory=list)

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Do something, and go on sending for some calls."""
        sender, began = self.sender, time.monotonic()
        sent, refused, sender.longest = len(sender.sent), self.refused, 0
        yield
        wanted = len(sender.accepted) + SIZE.calls
        until(lambda: len(sender.accepted) >= wanted)
        self.steps.append(
            Step(
                what,
                sender.sent[sent:],
                self.refused - refused,
                sender.longest,
                time.monotonic() - began,
            )
        )

    @property
    def refused(self) -> int:
        return sum(self.sender.answers.values()) - self.sender.answers.get("200", 0)

    def count(self, url: str) -> None:
        """Count by step how many accepted calls are lost, and how many took effect twice."""
        with psycopg.connect(url) as database:
            events = dict(database.execute(EVENTS, [self.sender.accepted]).fetchall())
            rows = database.execute("SELECT id FROM kratos_sync.kratos_identities").fetchall()
            twice = {subject for (subject,) in database.execute(TWICE).fetchall()}
        held = {identity_id for (identity_id,) in rows}
        twice |= {subject for subject, times in events.items() if times > 1}
        for step in self.steps:
            accepted = set(step.sent).intersection(self.sender.accepted)
            step.accepted = len(accepted)
            step.lost = sum(each not in events or each not in held for each in accepted)
            step.doubled = len(accepted & twice)

    @property
    def table(self) -> str:
        head = "| step | calls | accepted | refused | lost | doubled | longest call | seconds |"
        ruler = "|---|---|---|---|---|---|---|---|"
        return "\n".join([head, ruler, *(step.row for step in self.steps)])


class Deployment:
    """Two apis behind a balancer, a relay and a worker, each of one release or the other."""

    def __init__(self, processes: Processes, balancer: Balancer) -> None:
        self._processes = processes
        self._balancer = balancer
        self.running: dict[str, str] = {}
        self._ports: dict[str, int] = {}
        self._started = 0

    def start(self, role: str, release: Release) -> None:
        """Start a process, and return once it works."""
        self._started += 1
        name = f"{role}-{self._started}-of-{release.revision}"
        words = [role.partition("-")[0]]
        if words == ["api"]:
            self._ports[name] = free_port()
            words += ["--port", str(self._ports[name])]
        self._processes.start(name, *words, program=release.program, **release.settings)
        if words[0] == "api":
            until(lambda: self._balancer.is_ready(self._ports[name]))
            self._balancer.add(self._ports[name])
        else:
            self._processes.wait_for(name, f"{words[0]}_started")
        self.running[role] = name

    def stop(self, name: str) -> None:
        """Stop a process in order; an api is taken out of the balancer first."""
        if (port := self._ports.get(name)) is not None:
            self._balancer.remove(port)
        assert self._processes.stop(name) == {name: 0}
        assert "Traceback" not in self._processes.said(name)

    def replace(self, role: str, release: Release) -> None:
        """Start the new one, and then stop the old one."""
        old = self.running[role]
        self.start(role, release)
        self.stop(old)


def migrate(processes: Processes, release: Release) -> None:
    code, said = processes.run("migrate", program=release.program, **release.settings)
    assert code == 0, said


def revision_of(url: str) -> str | None:
    engine = connect(SecretStr(url), pool_size=1)
    try:
        with engine.connect() as connection:
            return current_revision(connection)
    finally:
        engine.dispose()


ROLES: Final = ("api-1", "api-2", "relay", "worker")


def test_an_upgrade_under_load_and_the_way_back_refuse_lose_and_double_nothing(
    empty_database_url: str, broker_url: str, tmp_path: Path
) -> None:
    url = empty_database_url
    old = previous_release(tmp_path / "old", own_environment=SIZE.own_environment)
    new = next_release(tmp_path / "new")
    assert old.revision < newest_revision() < new.revision
    settings = {
        "DATABASE_URL": url,
        "BROKER_URL": broker_url,
        "KRATOS_WEBHOOK_API_KEYS": KEY,
        "LOG_FORMAT": "json",
        "LEASE_SECONDS": "5",
    }
    with Loop() as loop, Balancer(loop) as balancer, Processes(tmp_path, settings) as processes:
        migrate(processes, old)
        assert revision_of(url) == old.revision
        with psycopg.connect(url) as database:
            database.execute(FILL, [SIZE.rows])
        deployment = Deployment(processes, balancer)
        for role in ROLES:
            deployment.start(role, old)
        sending = Sending(balancer.port, SIZE.rate)
        report = Report(sending.start())

        with report.step(f"release of {old.revision}"):
            pass
        with report.step(f"migrate to {new.revision}, {SIZE.rows:,} events"):
            migrate(processes, new)
        assert revision_of(url) == new.revision
        for release in (new, old):
            for role in ROLES:
                with report.step(f"{role} to the release of {release.revision}"):
                    deployment.replace(role, release)
        sending.finish()
        until(lambda: nothing_is_pending(url))
        report.count(url)
        print(f"\n{report.table}")

        assert report.sender.lost == {}
        assert report.sender.answers == {"200": len(report.sender.sent)}
        assert balancer.refused == 0
        assert [(step.lost, step.doubled) for step in report.steps] == [(0, 0)] * len(report.steps)
        for name in deployment.running.values():
            deployment.stop(name)


def nothing_is_pending(url: str) -> bool:
    with psycopg.connect(url) as database:
        return database.execute("SELECT FROM kratos_sync.deliveries LIMIT 1").fetchone() is None
