"""The service as it is deployed: api, relay and workers, each a process of its own."""

import signal
import subprocess
import sysconfig
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from threading import Barrier
from typing import Any, Self

import httpx
import psutil
import psycopg
import redis
from psycopg.rows import dict_row

from tests.environment import environment, with_direct_url
from tests.infrastructure.bus.servers import ReturningValkey
from tests.parent_pipe import ParentPipe
from tests.parts import API, DELIVERY, part_of
from tests.ports import free_port
from tests.recorded import Call, Recording, as_held, as_stored
from tests.waiting import DEADLINE_SECONDS, until

KRATOS_SYNC = str(Path(sysconfig.get_path("scripts"), "kratos-sync"))
KEY = "a-key-of-no-worth"
LEASE_SECONDS = 5
CONNECTIONS = 16
# An application may have added consumers of its own: what they do is not for these tests to say.
OURS = (
    "consumer IN ('SyncKratosIdentity', 'DeleteKratosIdentity', 'FetchKratosIdentity',"
    " 'CountRegistrations', 'ForgetIdentity', 'DeleteFromKratos')"
)
TABLES = ["events", "deliveries", "attempts", "kratos_identities", "registrations_per_day"]


class Service:
    """One api, one relay and one worker, and whatever else is started; ended all together."""

    def __init__(
        self,
        folder: Path,
        database_url: str,
        valkey: ReturningValkey | None,
        lease_seconds: int = LEASE_SECONDS,
        program: Sequence[str] = (KRATOS_SYNC,),
    ) -> None:
        self._folder = folder
        self._program = program
        self.valkey = valkey
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._port = str(free_port())
        self._parent_pipe = ParentPipe()
        self._environment = environment(
            DATABASE_URL=database_url,
            **({} if valkey is None else {"BROKER_URL": valkey.url}),
            KRATOS_WEBHOOK_API_KEYS=f"an-older-key-of-no-worth,{KEY}",
            LEASE_SECONDS=str(lease_seconds),
            LOG_FORMAT="json",
            **self._parent_pipe.environment,
        )
        self._http = httpx.Client(
            base_url=f"http://127.0.0.1:{self._port}",
            headers={"X-Api-Key": KEY},
            timeout=DEADLINE_SECONDS,
            trust_env=False,
            limits=httpx.Limits(max_connections=CONNECTIONS),
        )
        self._database = psycopg.connect(database_url, autocommit=True, row_factory=dict_row)
        self.database_url = database_url

    def __enter__(self) -> Self:
        try:
            self._start_what_is_missing()
        except BaseException:
            self.kill(*list(self._running))
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            names = list(self._running)
            assert self.stop(*names) == dict.fromkeys(names, 0)
        finally:
            self.kill(*list(self._running))
            self._http.close()
            self._database.close()
            self._parent_pipe.close()

    def start(self, name: str, *command: str, program: Sequence[str] | None = None) -> None:
        """Start a process of that name; what it writes is appended to one file.

        A relay or worker is waited for: only then does it receive a signal in order.
        """
        line = '"worker_started"' if command[0] == "all" else f'"{command[0]}_started"'
        path = self._folder / f"{name}.log"
        before = path.read_text().count(line) if path.exists() else 0
        with path.open("ab") as log:
            self._running[name] = subprocess.Popen(
                [*(program or self._program), *command],
                cwd=self._folder,
                env=with_direct_url(command[0], self.environment_of(name)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[self._parent_pipe.inherited],
            )
        if command[0] != "api":
            until(lambda: path.read_text().count(line) > before)

    def environment_of(self, name: str) -> dict[str, str]:
        """The environment of the process of that name."""
        return self._environment

    def stop(self, *names: str) -> dict[str, int]:
        """Ask processes to end, and give their exit codes."""
        for name in names:
            self._running[name].send_signal(signal.SIGTERM)
            self.signal(name, signal.SIGCONT)  # a halted one would not receive it
        codes = {name: self._running[name].wait(DEADLINE_SECONDS) for name in names}
        for name in names:
            del self._running[name]
        return codes

    def kill(self, *names: str) -> None:
        """End processes by force, with those that they started."""
        for name in names:
            self.signal(name, signal.SIGKILL)
            self._running.pop(name).wait(DEADLINE_SECONDS)

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a process a signal, and those that it started: a worker's supervisor and worker."""
        supervisor = psutil.Process(self._running[name].pid)
        for process in (supervisor, *supervisor.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def log(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text()

    def post(self, calls: Iterable[Call], connections: int = CONNECTIONS) -> list[int]:
        """Call the webhook, so many at a time, and give the answers."""
        with ThreadPoolExecutor(connections) as threads:
            return list(threads.map(self.post_one, calls))

    def post_together(self, calls: Sequence[Call]) -> list[int]:
        """Call the webhook with all of them in the same moment."""
        together = Barrier(len(calls))

        def post(call: Call) -> int:
            together.wait(DEADLINE_SECONDS)
            return self.post_one(call)

        with ThreadPoolExecutor(len(calls)) as threads:
            return list(threads.map(post, calls))

    def post_one(self, call: Call) -> int:
        """Call the webhook; as Kratos does, again if the api was just closing the connection."""
        try:
            return self._post(call)
        except (httpx.ReadError, httpx.RemoteProtocolError):
            return self._post(call)

    def _post(self, call: Call) -> int:
        answer = self._http.post(
            "/kratos/sync-identity", content=call.body, headers=dict(call.headers)
        )
        return answer.status_code

    def call(self, body: Mapping[str, Any]) -> int:
        """Call the webhook with a body of one's own."""
        return self._http.post("/kratos/sync-identity", json=dict(body)).status_code

    def children(self, name: str) -> list[psutil.Process]:
        """The processes that a process of ours started."""
        return psutil.Process(self._running[name].pid).children()

    def signal_alone(self, name: str, number: int) -> None:
        """Send a signal to that process, and to none that it started."""
        self._running[name].send_signal(number)

    def wait(self, name: str) -> int:
        """Wait until a process has ended; give its exit code."""
        return self._running.pop(name).wait(DEADLINE_SECONDS)

    def is_in_flight(self, person: str, consumer: str) -> bool:
        """Whether a worker holds the lock of a delivery about that person."""
        statement = (
            "SELECT FROM kratos_sync.deliveries WHERE subject = %s AND consumer = %s"
            " AND leased FOR UPDATE SKIP LOCKED"
        )
        leased = (
            "SELECT FROM kratos_sync.deliveries WHERE subject = %s AND consumer = %s AND leased"
        )
        return bool(
            self.ask(leased, person, consumer) and not self.ask(statement, person, consumer)
        )

    def ask(self, statement: str, *parameters: object) -> list[dict[str, Any]]:
        return self._database.execute(statement.encode(), parameters).fetchall()

    def count(self, table: str, where: str = "true") -> int:
        """Rows of the ledger that concern our own consumers."""
        counting = f"SELECT count(*) AS rows FROM kratos_sync.{table} WHERE {OURS} AND {where}"
        count: int = self.ask(counting)[0]["rows"]
        return count

    def has(self, person: str) -> bool:
        return bool(self.ask("SELECT FROM kratos_sync.kratos_identities WHERE id = %s", person))

    def people(self) -> dict[str, dict[str, Any]]:
        return {
            str(row["id"]): row for row in self.ask("SELECT * FROM kratos_sync.kratos_identities")
        }

    def settle(self) -> None:
        """Wait until no delivery is pending."""
        until(lambda: self.count("deliveries") == 0)

    def forget(self, *, whatever_is_pending: bool = False) -> None:
        """Begin anew, with empty tables, whatever a test left."""
        self._start_what_is_missing()
        if not whatever_is_pending:
            self.settle()
        self._database.execute(
            f"TRUNCATE {', '.join(f'kratos_sync.{table}' for table in TABLES)}".encode()
        )

    def flush_redis(self) -> None:
        assert self.valkey is not None
        with redis.Redis.from_url(self.valkey.url) as client:
            client.flushall()

    @contextmanager
    def holding(self, person: str) -> Iterator[None]:
        """Hold the lock of a person's row, so that a batch with that person is under way."""
        with psycopg.connect(self.database_url) as connection:
            statement = "SELECT FROM kratos_sync.kratos_identities WHERE id = %s FOR UPDATE"
            assert connection.execute(statement, [person]).rowcount == 1
            yield

    def waits_for_a_lock(self) -> bool:
        return bool(
            self.ask(
                "SELECT pid FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
        )

    def commands(self) -> Mapping[str, Sequence[str]]:
        """What runs, by the names of the processes."""
        return {"api": ["api", "--port", self._port], "relay": ["relay"], "worker": ["worker"]}

    def _start_what_is_missing(self) -> None:
        commands = self.commands()
        missing = commands.keys() - self._running.keys()
        for name in sorted(missing, key=[*commands].index):
            self.start(name, *commands[name])
        if missing:
            until(self._answers)

    def _answers(self) -> bool:
        try:
            return self._http.get("/health/ready").status_code == 200
        except httpx.TransportError:
            return False


class AllInOne(Service):
    """`kratos-sync all`, without a broker; it is called by the names of what it is made of."""

    def __init__(self, folder: Path, database_url: str, **options: Any) -> None:
        super().__init__(folder, database_url, None, **options)

    def commands(self) -> Mapping[str, Sequence[str]]:
        return {"all": ["all", "--port", self._port]}

    def children(self, name: str) -> list[psutil.Process]:
        """The process that does this, in a list; there is none while it is being replaced."""
        part = API if name == "api" else DELIVERY
        return [child for child in super().children("all") if part_of(child) == part]

    def signal(self, name: str, number: signal.Signals) -> None:
        if name == "all":
            super().signal(name, number)
            return
        for process in self.children(name):
            process.send_signal(number)

    def signal_alone(self, name: str, number: int) -> None:
        super().signal_alone("all", number)

    def wait(self, name: str) -> int:
        return super().wait("all")

    def log(self, name: str) -> str:
        return super().log("all")

    def _start_what_is_missing(self) -> None:
        # Of one that was killed the api may go on for a moment.
        until(lambda: self._running or not self._answers())
        super()._start_what_is_missing()


def differences(service: Service, expected: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What our rows hold otherwise than Kratos said, field by field; also people too many."""
    people = service.people()
    wrong = [
        f"{person} is {'missing' if person in expected else 'too many'}"
        for person in sorted(expected.keys() ^ people.keys())
    ]
    for person in expected.keys() & people.keys():
        held, stored = as_held(expected[person]), as_stored(people[person])
        wrong += [
            f"{person}.{name}: {stored[name]!r}, not {held[name]!r}"
            for name in held
            if stored[name] != held[name]
        ]
        # A webhook cannot carry the one, nobody was deleted, and nothing is unknown.
        nothing = {"metadata_admin": None, "deleted_at": None, "unknown": {}}
        wrong += [
            f"{person}.{name}: {people[person][name]!r}"
            for name, value in nothing.items()
            if people[person][name] != value
        ]
    return wrong


def assert_the_books_are_right(service: Service, received: int, recording: Recording) -> None:
    """Everything recorded once, consumed once, at the first attempt, and counted once."""
    people = {call.person for call in recording.calls}
    registered = len(people)
    names = Counter(row["name"] for row in service.ask("SELECT name FROM kratos_sync.events"))
    assert names["kratos_identity.updated"] == received
    assert names["identity.registered"] == registered
    assert names["identity.discovered"] == names["identity.deleted"] == 0
    assert service.count("deliveries") == 0
    attempts = service.ask(
        "SELECT e.name, a.consumer, a.outcome, a.number, count(*) AS attempts,"
        " count(DISTINCT a.event_id) AS events"
        f" FROM kratos_sync.attempts a JOIN kratos_sync.events e ON e.id = a.event_id AND a.{OURS}"
        " GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4"
    )
    assert [tuple(row.values()) for row in attempts] == [
        ("identity.registered", "CountRegistrations", "succeeded", 1, registered, registered),
        ("kratos_identity.updated", "SyncKratosIdentity", "succeeded", 1, received, received),
    ]
    assert service.count("attempts") == registered + received

    days = Counter(as_held(call.identity)["created_at"].date() for call in _first_calls(recording))
    counted = service.ask("SELECT day, registrations FROM kratos_sync.registrations_per_day")
    assert {row["day"]: row["registrations"] for row in counted} == days
    _assert_facts_lead_to_the_rows(service)


def _first_calls(recording: Recording) -> Sequence[Call]:
    return list({call.person: call for call in recording.calls}.values())


def _assert_facts_lead_to_the_rows(service: Service) -> None:
    """Who begins with the registration and applies each change ends with the row's traits."""
    facts = service.ask(
        "SELECT subject::text AS person, name, payload FROM kratos_sync.events"
        " WHERE name LIKE 'identity.%%' AND payload ->> 'version' IS NOT NULL"
        " ORDER BY subject, (payload ->> 'version')::int, name"
    )
    people = service.people()
    for person, of_person in groupby(facts, key=itemgetter("person")):
        traits: dict[str, Any] | None = None
        seen = set()
        for fact in of_person:
            payload = fact["payload"]
            assert payload["version"] <= people[person]["version"]
            key = fact["name"], payload["version"], payload.get("via"), payload.get("value")
            assert key not in seen
            seen.add(key)
            if fact["name"] == "identity.registered":
                assert traits is None
                traits = payload["traits"]
            for change in payload.get("changes", ()):
                assert traits is not None
                assert traits.get(change["trait"]) == change.get("old")
                traits[change["trait"]] = change.get("new")
        assert traits is not None
        kept = {name: value for name, value in traits.items() if value is not None}
        assert kept == people[person]["traits"]
