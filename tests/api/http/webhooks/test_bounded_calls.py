"""Calls of somebody else's code are bounded in number and in time."""

import asyncio
import threading
from contextvars import ContextVar
from datetime import timedelta

import pytest

from kratos_sync.api.http.webhooks.parse_identity import (
    AllCallsHang,
    BoundedCalls,
    CallEscaped,
    CallTimedOut,
)
from tests.waiting import DEADLINE_SECONDS, until_on_loop

LONG = timedelta(seconds=DEADLINE_SECONDS)
SHORT = timedelta(milliseconds=20)
WHO: ContextVar[str] = ContextVar("WHO")


def test_a_call_runs_beside_the_event_loop_and_in_its_context() -> None:
    async def run() -> object:
        WHO.set("ada")
        return await BoundedCalls(1).run(lambda: (WHO.get(), threading.get_ident()), LONG)

    assert asyncio.run(run()) != ("ada", threading.get_ident())
    assert asyncio.run(run())[0] == "ada"  # type: ignore[index]


def test_a_coroutine_function_runs_on_the_event_loop() -> None:
    async def call() -> int:
        loop = asyncio.get_running_loop()
        later = loop.create_future()
        loop.call_soon(later.set_result, None)
        await later
        return threading.get_ident()

    assert asyncio.run(BoundedCalls(1).run(call, LONG)) == threading.get_ident()


@pytest.mark.parametrize("error", [LookupError(), TimeoutError(), StopIteration()])
def test_what_a_call_raises_is_raised(error: Exception) -> None:
    def call() -> None:
        raise error

    async def same() -> None:
        call()

    calls = BoundedCalls(1)
    with pytest.raises(RuntimeError if isinstance(error, StopIteration) else type(error)):
        asyncio.run(calls.run(call, LONG))
    with pytest.raises(RuntimeError if isinstance(error, StopIteration) else type(error)):
        asyncio.run(calls.run(same, LONG))


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, asyncio.CancelledError])
def test_a_call_cannot_end_the_process_or_its_caller(error: type[BaseException]) -> None:
    def call() -> None:
        raise error

    async def same() -> None:
        call()

    calls = BoundedCalls(1)
    for each in (call, same):
        with pytest.raises(CallEscaped):
            asyncio.run(calls.run(each, LONG))


def test_no_more_than_so_many_run_at_once_and_the_others_wait_their_turn() -> None:
    most, all_of_them = 2, 9
    running, highest, lock = 0, 0, threading.Lock()
    together = threading.Barrier(most)

    def call() -> None:
        nonlocal running, highest
        with lock:
            running += 1
            highest = max(highest, running)
        together.wait(DEADLINE_SECONDS) if turns.acquire(blocking=False) else None
        with lock:
            running -= 1

    turns = threading.Semaphore(most)

    async def run() -> None:
        calls = BoundedCalls(most)
        await asyncio.gather(*(calls.run(call, LONG) for _ in range(all_of_them)))

    asyncio.run(run())
    assert highest == most


def test_a_call_that_waits_too_long_for_a_free_place_fails_and_takes_none() -> None:
    begun, go = threading.Event(), threading.Event()

    def call() -> bool:
        begun.set()
        return go.wait(DEADLINE_SECONDS)

    async def run() -> None:
        calls = BoundedCalls(1)
        first = asyncio.create_task(calls.run(call, LONG))
        await until_on_loop(begun.is_set)
        with pytest.raises(CallTimedOut):
            await calls.run(lambda: pytest.fail("it has begun"), SHORT)
        go.set()
        assert await first is True
        assert await calls.run(lambda: "again", LONG) == "again"

    asyncio.run(run())


def test_a_thread_that_outlives_its_time_keeps_its_place_until_it_comes_back() -> None:
    go = threading.Event()

    async def run() -> None:
        calls = BoundedCalls(2)
        for _ in range(2):
            with pytest.raises(CallTimedOut):
                await calls.run(lambda: go.wait(DEADLINE_SECONDS), SHORT)
        with pytest.raises(AllCallsHang):
            await calls.run(lambda: pytest.fail("it has begun"), LONG)
        go.set()
        await until_on_loop(lambda: calls._hanging < 2)
        assert await calls.run(lambda: "again", LONG) == "again"

    asyncio.run(run())


def test_a_coroutine_that_outlives_its_time_is_cancelled() -> None:
    cancelled = []

    async def call() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async def run() -> None:
        calls = BoundedCalls(1)
        with pytest.raises(CallTimedOut):
            await calls.run(call, SHORT)
        await until_on_loop(lambda: not calls._hanging)
        assert cancelled == [True]
        assert await calls.run(lambda: "again", LONG) == "again"

    asyncio.run(run())


def test_a_caller_that_is_cancelled_leaves_its_thread_counted() -> None:
    go = threading.Event()

    async def run() -> None:
        calls = BoundedCalls(1)
        begun = asyncio.Event()
        loop = asyncio.get_running_loop()

        def call() -> None:
            loop.call_soon_threadsafe(begun.set)
            go.wait(DEADLINE_SECONDS)

        caller = asyncio.create_task(calls.run(call, LONG))
        await begun.wait()
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        with pytest.raises(AllCallsHang):
            await calls.run(lambda: pytest.fail("it has begun"), LONG)
        go.set()

    asyncio.run(run())


def test_a_thread_that_returns_after_the_end_of_the_loop_does_no_harm() -> None:
    go = threading.Event()
    calls = BoundedCalls(1)
    with pytest.raises(CallTimedOut):
        asyncio.run(calls.run(lambda: go.wait(DEADLINE_SECONDS), SHORT))
    (late,) = [each for each in threading.enumerate() if each.name == "bounded-call"]
    assert late.daemon
    go.set()
    late.join(DEADLINE_SECONDS)  # an error in it would fail this test
    assert not late.is_alive()


def test_nothing_could_run_with_no_place() -> None:
    with pytest.raises(ValueError, match="one call"):
        BoundedCalls(0)
