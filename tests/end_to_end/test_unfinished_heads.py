"""Heads without an end, and callers who were refused and stay: neither takes what others need."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.databases import MigratedDatabase
from tests.end_to_end.processes import KRATOS_SYNC
from tests.end_to_end.running_api import RunningApi
from tests.end_to_end.wire import call, head, identity
from tests.waiting import until

MEGABYTE = 1_000_000
WIRES = 80
ROOM, OTHER_FILES = 100, 128


@pytest.fixture
def wires() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize("megabytes", [5, 26])
@pytest.mark.parametrize("line", [b"a:\r\n", b"a-name: with a value\r\n"], ids=["tiny", "usual"])
def test_lines_of_headers_cost_no_multiple_of_their_size(
    api: RunningApi, wires: ExitStack, megabytes: int, line: bytes
) -> None:
    lines = line * (megabytes * MEGABYTE // WIRES // len(line))
    assert api.takes_webhooks()
    before = api.process.memory_info().rss
    opened = [wires.enter_context(api.wire()) for _ in range(WIRES)]
    for wire in opened:
        wire.send(head(key=None)[:-2], lines)
    until(lambda: all(wire.has_something_to_say(0) for wire in opened))
    grown = api.process.memory_info().rss - before
    print(f"{megabytes} MB: +{grown / MEGABYTE:.1f} MB")
    assert grown < 16 * MEGABYTE


def test_heads_without_an_end_have_a_bound_together(api: RunningApi, wires: ExitStack) -> None:
    before = api.process.memory_info().rss
    opened = [wires.enter_context(api.wire()) for _ in range(1_000)]
    for number, wire in enumerate(opened):
        wire.send(head(key=None)[:-2], b"X: %s\r\n" % (b"x" * 600) * 80, b"Y: ", b"y" * 14_000)
        if number % 100 == 0:
            assert api.takes_webhooks()
    until(lambda: sum(wire.has_something_to_say(0) for wire in opened) > 400)
    grown = api.process.memory_info().rss - before
    print(f"62 MB in 1,000 heads: +{grown / MEGABYTE:.1f} MB")
    assert grown < 64 * MEGABYTE
    assert api.takes_webhooks()


@pytest.fixture(scope="module")
def small_api(
    migrated_database: MigratedDatabase, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningApi]:
    limited = ("bash", "-c", f'ulimit -n {ROOM + OTHER_FILES}; exec "$@"', "-", *KRATOS_SYNC)
    with (
        migrated_database() as url,
        RunningApi.started(tmp_path_factory.mktemp("small"), url, limited) as running,
    ):
        yield running


STAYING = {
    "without a key, in the middle of a body": head("Content-Length: 1000", key=None),
    "with a body that is too large": head(f"Content-Length: {10**9}"),
    "with a request that is not HTTP": b"HELO there\r\n\r\n",
    "with too many headers": head(*("a:" for _ in range(200))),
    "with an answer and no more": head(method="GET", path="/health/live"),
    "with nothing": b"",
}


@pytest.mark.parametrize("request_of_one", STAYING.values(), ids=STAYING)
def test_callers_who_were_refused_and_stay_keep_nobody_out(
    small_api: RunningApi, wires: ExitStack, request_of_one: bytes
) -> None:
    answers: Counter[int] = Counter()
    body = call(identity())
    began = time.monotonic()
    for number in range(4 * ROOM):
        wires.enter_context(small_api.wire()).send(request_of_one)
        if number % 10 == 0:
            answers[small_api.ask(body).status] += 1
    print(answers, f"{4 * ROOM / (time.monotonic() - began):.0f} strangers a second")
    assert set(answers) == {200}
