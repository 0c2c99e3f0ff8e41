"""Hook activity is counted beside the calls, and written once in a while."""

import asyncio
import time
from collections.abc import Sequence
from datetime import timedelta
from uuid import uuid4

from structlog.testing import capture_logs

from kratos_sync.api.http.webhooks.hook_activity import HookActivityRecorder
from kratos_sync.api.http.webhooks.sync_identity import KratosIdentitySyncHandler
from kratos_sync.application.ports.event_bus import LedgerUnavailable
from kratos_sync.application.ports.hook_log import MOST_LABELS, Calls
from tests.api.http.client import KEY, SYNC, TEATIME, Api, config, recorded_webhooks
from tests.fakes.event_bus import RecordingEventBus
from tests.waiting import DEADLINE_SECONDS, until_on_loop

REGISTRATION = recorded_webhooks()[0]
LABEL = "registration.after.password"


class RecordingHookLog:
    """Adds up what it is given, unless a test has made it unavailable."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.ages: list[timedelta] = []
        self.failures_left = 0
        self.notes = 0
        self.is_stopped = False

    async def note(self, calls: Sequence[Calls]) -> None:
        self.notes += 1
        if self.failures_left:
            self.failures_left -= 1
            raise LedgerUnavailable("the test made it so") from ConnectionError("ada@example.org")
        for each in calls:
            self.numbers[each.label] = self.numbers.get(each.label, 0) + each.number
            self.ages.append(each.ago)

    async def stop(self) -> None:
        self.is_stopped = True


def posted(label: str | None, body: bytes = REGISTRATION.content) -> list[str | None]:
    """The labels that are counted where a call with this label is sent."""
    labels: list[str | None] = []
    bus = RecordingEventBus()
    sync = KratosIdentitySyncHandler(
        config(KEY), bus, uuid4, lambda: TEATIME, on_accepted=labels.append
    )
    Api(bus, sync=sync).post(SYNC, body, {**REGISTRATION.headers, "X-Kratos-Hook": label})
    return labels


def test_an_accepted_call_is_counted_by_its_label() -> None:
    assert posted(LABEL) == [LABEL]


def test_a_call_without_a_label_is_counted_too() -> None:
    assert posted(None) == [None]
    assert posted("unfit \x07") == [None]


def test_a_rejected_call_is_not_counted() -> None:
    assert posted(LABEL, b"{}") == []


def test_calls_are_added_up_and_written_down_once() -> None:
    log = RecordingHookLog()
    hooks = HookActivityRecorder(log)
    began = time.monotonic()
    for label in (LABEL, LABEL, None):
        hooks.add(label)
    asyncio.run(hooks.write())
    asyncio.run(hooks.write())
    assert (log.numbers, log.notes) == ({LABEL: 2, "": 1}, 1)
    passed = timedelta(seconds=time.monotonic() - began)
    assert all(timedelta() <= age <= passed for age in log.ages)


def test_what_cannot_be_written_down_is_written_down_later() -> None:
    log = RecordingHookLog()
    hooks = HookActivityRecorder(log)
    log.failures_left = 2
    for _ in range(3):
        hooks.add(LABEL)
        hooks.add("login")
        asyncio.run(hooks.write())
    assert log.numbers == {LABEL: 3, "login": 3}


def test_a_failure_is_logged_once_until_it_is_over_and_without_a_text() -> None:
    log = RecordingHookLog()
    hooks = HookActivityRecorder(log)
    with capture_logs() as logs:
        for failures in (3, 1):
            log.failures_left = failures
            for _ in range(4):
                hooks.add(LABEL)
                asyncio.run(hooks.write())
    assert [line["event"] for line in logs] == ["hook_activity_not_written"] * 2
    assert logs[0]["error"] == "builtins.ConnectionError"
    assert "ada" not in str(logs)


def test_no_more_than_a_hundred_labels_are_remembered_at_a_time() -> None:
    log = RecordingHookLog()
    hooks = HookActivityRecorder(log)
    log.failures_left = 1
    for start in (0, 50):
        for number in range(start, start + 2 * MOST_LABELS):
            hooks.add(str(number))
        asyncio.run(hooks.write())
    assert set(log.numbers) == {str(number) for number in range(MOST_LABELS)}
    assert log.numbers["0"] == 1
    assert log.numbers["99"] == 2


def test_it_is_written_every_so_often_and_the_rest_at_the_end() -> None:
    log = RecordingHookLog()

    async def scenario() -> None:
        hooks = HookActivityRecorder(log, timedelta(milliseconds=1))
        hooks.start()
        hooks.add(LABEL)
        await until_on_loop(lambda: log.numbers)
        hooks.add("login")
        await hooks.stop()

    asyncio.run(scenario())
    assert log.numbers == {LABEL: 1, "login": 1}
    assert log.is_stopped


def test_stopping_writes_at_once() -> None:
    log = RecordingHookLog()

    async def scenario() -> None:
        hooks = HookActivityRecorder(log, timedelta(hours=1))
        hooks.start()
        hooks.add(LABEL)
        async with asyncio.timeout(DEADLINE_SECONDS):
            await hooks.stop()

    asyncio.run(scenario())
    assert log.numbers == {LABEL: 1}
