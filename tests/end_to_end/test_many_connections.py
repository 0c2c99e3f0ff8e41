"""10,000 connections at once, and a Kratos among them."""

import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.databases import MigratedDatabase
from tests.end_to_end import long_waiting_api
from tests.end_to_end.running_api import RunningApi
from tests.end_to_end.wire import Wire, call, head, identity
from tests.waiting import until

CONNECTIONS = 10_000
MOST_TAKEN = 8_192
MOST_HELD = 6_000
OTHER_FILES = 128
MOST_MEMORY = 256 * 1024 * 1024
ENDED = 0


@pytest.fixture(scope="module")
def api(
    migrated_database: MigratedDatabase, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningApi]:
    """It gives up no connection for being slow: to open so many takes its time."""
    program = [sys.executable, str(Path(long_waiting_api.__file__))]
    folder = tmp_path_factory.mktemp("api")
    with (
        migrated_database() as url,
        RunningApi.started(folder, url, program) as running,
    ):
        yield running


@pytest.fixture
def wires() -> Iterator[ExitStack]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = CONNECTIONS + 1_000
    if hard != resource.RLIM_INFINITY and hard < needed:
        pytest.skip(f"this machine lets a process open {hard} files only")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    with ExitStack() as stack:
        yield stack
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_10_000_connections_that_ask_nothing_lock_nobody_out(
    api: RunningApi, wires: ExitStack
) -> None:
    assert api.takes_webhooks()
    files, memory = api.process.num_fds(), api.process.memory_info().rss
    slowest = 0.0
    for number in range(CONNECTIONS):
        wire = wires.enter_context(api.wire())
        if number % 2:
            wire.send(head()[:40])
        if number % 500 == 0:
            began = time.monotonic()
            assert api.takes_webhooks()
            slowest = max(slowest, time.monotonic() - began)
    assert api.processes.http.get("/health/ready").status_code == 200
    assert api.process.num_fds() <= MOST_TAKEN + OTHER_FILES
    grown = api.process.memory_info().rss - memory
    print(f"{api.process.num_fds()} files, +{grown / 1e6:.0f} MB, slowest {slowest * 1e3:.0f} ms")
    assert grown < MOST_MEMORY
    wires.close()
    until(lambda: api.process.num_fds() <= files + 2)


def test_10_000_connections_that_send_at_once_are_answered_or_asked_to_come_back(
    api: RunningApi, wires: ExitStack
) -> None:
    files, memory = api.process.num_fds(), api.process.memory_info().rss
    request = call(identity())
    opened = [wires.enter_context(api.wire()) for _ in range(CONNECTIONS)]
    for wire in opened:
        wire.send(request)
    answers = Counter(status_of(wire) for wire in opened)
    grown = api.process.memory_info().rss - memory
    print(f"{answers}, +{grown / 1e6:.0f} MB")
    assert answers.keys() <= {200, 503, ENDED}
    assert answers[200] >= MOST_HELD
    assert grown < MOST_MEMORY
    assert api.takes_webhooks()
    wires.close()
    until(lambda: api.process.num_fds() <= files + 2)


def status_of(wire: Wire) -> int:
    """Of an answer; ENDED where the connection made room for others before it asked."""
    return ENDED if wire.is_ended() else wire.answer().status
