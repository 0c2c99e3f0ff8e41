"""Consumers that hang, crash and ask for more time: seen, counted, and nobody else is held up."""

import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from uuid import uuid4

import psutil
import pytest

from kratos_sync.infrastructure.application import subscriptions_with
from tests.databases import MigratedDatabase
from tests.end_to_end import troublemaker
from tests.end_to_end.service import AllInOne, Service
from tests.infrastructure.bus.servers import ReturningValkey
from tests.waiting import DEADLINE_SECONDS, until

GET_INTO_TROUBLE = troublemaker.GetIntoTrouble.name
AWAIT_TROUBLE = troublemaker.AwaitTrouble.name
KNOWN = list(subscriptions_with(troublemaker.app).consumers)
"""The consumers of these processes: none of another application that tests run with."""
HARMLESS = 20
ATTEMPTS_OF = "kratos_sync.attempts a JOIN kratos_sync.events e ON e.id = a.event_id"


@pytest.fixture(scope="module", params=["valkey", "memory"])
def troubled(
    request: pytest.FixtureRequest,
    migrated_database: MigratedDatabase,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Service]:
    """The service, with a consumer that gets into trouble."""
    folder: Path = tmp_path_factory.mktemp("trouble")
    program = [sys.executable, str(Path(troublemaker.__file__))]
    with ExitStack() as undo:
        url = undo.enter_context(migrated_database())
        if request.param == "memory":
            yield undo.enter_context(AllInOne(folder, url, program=program))
            return
        valkey = undo.enter_context(ReturningValkey(folder / "valkey"))
        yield undo.enter_context(Service(folder, url, valkey, program=program))


@pytest.fixture
def service(troubled: Service) -> Iterator[Service]:
    """The same, begun anew."""
    yield troubled
    troubled.forget(whatever_is_pending=True)


def send(service: Service, trouble: str = "") -> str:
    """Let a person register with that trouble; give the identity's id."""
    person = str(uuid4())
    now = datetime.now(UTC).isoformat()
    identity = {
        "id": person,
        "schema_id": "default",
        "state": "active",
        "traits": {"email": f"{person}@example.org", "trouble": trouble},
        "created_at": now,
        "updated_at": now,
    }
    answer = service.call({"identity": identity})
    assert answer == 200
    return person


def outcomes(service: Service, person: str, consumer: str = GET_INTO_TROUBLE) -> list[str]:
    rows = service.ask(
        f"SELECT a.outcome FROM {ATTEMPTS_OF} WHERE e.subject = %s AND a.consumer = %s"
        " ORDER BY a.id",
        person,
        consumer,
    )
    return [row["outcome"] for row in rows]


def last_error(service: Service, person: str, consumer: str = GET_INTO_TROUBLE) -> str:
    rows = service.ask(
        f"SELECT a.error FROM {ATTEMPTS_OF} WHERE e.subject = %s AND a.consumer = %s"
        " AND a.error IS NOT NULL ORDER BY a.id DESC LIMIT 1",
        person,
        consumer,
    )
    return str(rows[0]["error"])


def effects(service: Service) -> int:
    """How many events took effect at the troublemaker."""
    rows = service.ask(
        "SELECT registrations FROM kratos_sync.registrations_per_day WHERE day = %s",
        troublemaker.DAY_OF_EFFECTS,
    )
    return int(rows[0]["registrations"]) if rows else 0


def line_of(service: Service, event: str, person: str = "") -> str:
    """A line that the worker logged of that, or nothing."""
    lines = service.log("worker").splitlines()
    return next((each for each in lines if f'"{event}"' in each and person in each), "")


def is_settled(service: Service, *people: str) -> bool:
    pending = service.ask(
        "SELECT count(*) AS pending FROM kratos_sync.deliveries"
        " WHERE failed_at IS NULL AND subject = ANY(%s::uuid[]) AND consumer = ANY(%s)",
        list(people),
        KNOWN,
    )
    return bool(pending[0]["pending"] == 0)


def others_register(service: Service) -> tuple[list[str], float]:
    """Let some register who get into no trouble: their ids, and the seconds to store them."""
    began = monotonic()
    others = [send(service) for _ in range(HARMLESS)]
    until(lambda: all(map(service.has, others)))
    return others, monotonic() - began


def test_who_takes_too_long_holds_nobody_up(service: Service) -> None:
    before, calm = others_register(service)
    once = [send(service, f"{trouble} once") for trouble in ("spin", "swallow", "sleep", "socket")]
    always = send(service, "sleep")
    until(lambda: any(outcomes(service, person) for person in once))

    others, took = others_register(service)

    # They wait, if at all, for a worker whose thread hangs to be replaced.
    assert took < 20 + 5 * calm
    until(lambda: is_settled(service, always, *once, *before, *others))
    assert [outcomes(service, person) for person in once] == [["failed", "succeeded"]] * 4
    assert_it_is_a_dead_letter(service, always)
    assert "TimeLimitExceeded: took longer" in last_error(service, always)
    assert [outcomes(service, other)[-1] for other in others] == ["succeeded"] * HARMLESS
    assert effects(service) == 2 * HARMLESS + len(once)
    until(lambda: line_of(service, "consumer_hangs"))
    assert_it_is_named_with_the_place_and_without_the_person(service, once[-1])


@pytest.mark.parametrize("trouble", ["await-spin once", "await-sleep once"])
def test_an_async_consumer_that_blocks_the_event_loop_is_ended_and_fails_no_other(
    service: Service, trouble: str
) -> None:
    others = [send(service) for _ in range(HARMLESS)]
    blocking = send(service, trouble)
    others += [send(service) for _ in range(HARMLESS)]

    until(lambda: is_settled(service, blocking, *others))

    assert outcomes(service, blocking, AWAIT_TROUBLE) == ["failed", "succeeded"]
    assert "troublemaker.py" in last_error(service, blocking, AWAIT_TROUBLE)
    assert all(outcomes(service, each, AWAIT_TROUBLE) == ["succeeded"] for each in others)
    assert all(outcomes(service, each) == ["succeeded"] for each in [blocking, *others])


def assert_it_is_named_with_the_place_and_without_the_person(service: Service, who: str) -> None:
    overran = line_of(service, "consumer_overran", who)
    assert GET_INTO_TROUBLE in overran
    assert "troublemaker.py:" in overran
    assert "_wait_for_a_socket" in last_error(service, who)
    assert "@example.org" not in service.log("worker")


def test_who_ends_the_process_once_is_counted_and_succeeds_later(service: Service) -> None:
    people = [send(service, f"{trouble} once") for trouble in ("exit", "segfault")]
    others = [send(service) for _ in range(HARMLESS)]

    until(lambda: is_settled(service, *people, *others))

    for person in people:
        # Whoever was at work when the other one's turn came is counted once more.
        assert outcomes(service, person) in (
            ["failed", "succeeded"],
            ["failed", "failed", "succeeded"],
        )
        assert "WorkerDied: the worker's process " in last_error(service, person)
    assert [outcomes(service, other)[-1] for other in others] == ["succeeded"] * HARMLESS
    assert effects(service) == HARMLESS + len(people)


def test_who_always_ends_the_process_becomes_a_dead_letter(service: Service) -> None:
    person = send(service, "kill")
    others = [send(service) for _ in range(HARMLESS)]

    until(lambda: is_settled(service, person, *others))

    assert_it_is_a_dead_letter(service, person)
    assert "WorkerDied: the worker's process was ended by SIGKILL" in last_error(service, person)
    assert effects(service) == HARMLESS


def assert_it_is_a_dead_letter(service: Service, person: str) -> None:
    assert outcomes(service, person) == ["failed", "failed", "gave_up"]
    assert service.has(person)  # its other consumer went on


def test_a_consumer_may_ask_for_more_time(service: Service) -> None:
    person = send(service, "later once")

    until(lambda: outcomes(service, person) == ["postponed"])
    (delivery,) = service.ask(
        "SELECT attempts FROM kratos_sync.deliveries WHERE subject = %s AND consumer = %s",
        person,
        GET_INTO_TROUBLE,
    )
    assert delivery["attempts"] == 0
    until(lambda: is_settled(service, person))
    assert outcomes(service, person) == ["postponed", "succeeded"]


def test_some_errors_are_final_at_once(service: Service) -> None:
    person = send(service, "final")
    until(lambda: is_settled(service, person))
    assert outcomes(service, person) == ["gave_up"]


def test_dead_letters_carry_what_their_errors_have_in_common(service: Service) -> None:
    person = send(service, "raise")
    until(lambda: is_settled(service, person))
    (letter,) = service.ask(
        "SELECT error_type, error_shape FROM kratos_sync.deliveries"
        " WHERE subject = %s AND consumer = ANY(%s)",
        person,
        KNOWN,
    )
    assert letter == {"error_type": "ValueError", "error_shape": "no # for '…'"}


def test_a_worker_killed_by_force_is_replaced_by_its_supervisor(service: Service) -> None:
    (worker,) = service.children("worker")
    worker.kill()

    person = send(service)

    until(lambda: is_settled(service, person))
    until(lambda: "worker_replaced" in service.log("worker"))
    (replacement,) = service.children("worker")
    assert replacement.pid != worker.pid


def test_a_supervisor_that_is_killed_leaves_no_worker_behind(service: Service) -> None:
    (worker,) = service.children("worker")
    service.signal_alone("worker", signal.SIGKILL)
    service.wait("worker")

    psutil.wait_procs([worker], timeout=DEADLINE_SECONDS)
    assert not worker.is_running()


def test_a_worker_in_trouble_stops_in_time_and_gives_back_what_it_has(service: Service) -> None:
    person = send(service, "sleep once")
    until(lambda: service.is_in_flight(person, GET_INTO_TROUBLE))
    has_relay = not isinstance(service, AllInOne)  # it would lease again what is given back
    if has_relay:
        service.signal("relay", signal.SIGSTOP)

    stopping = service.log("worker").count('"stopping"')
    service.signal_alone("worker", signal.SIGTERM)
    until(lambda: service.log("worker").count('"stopping"') > stopping)
    service.signal_alone("worker", signal.SIGTERM)
    assert service.wait("worker") == 0

    (delivery,) = service.ask(
        "SELECT leased FROM kratos_sync.deliveries WHERE subject = %s AND consumer = %s",
        person,
        GET_INTO_TROUBLE,
    )
    if has_relay:
        service.signal("relay", signal.SIGCONT)
    assert not delivery["leased"]
