"""Calls of somebody else's code: bounded in number, and in the time that anyone waits for them."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass
from datetime import timedelta
from inspect import isawaitable, iscoroutinefunction
from threading import Thread
from typing import TypeAlias


class CallOverran(Exception):
    """The call was not done, or had not even begun, when its time was over."""


class AllCallsHang(Exception):
    """As many calls as may run have outlived their time, and none of them has come back."""


class CallEscaped(Exception):
    """The call tried to end more than itself, by SystemExit or the like."""


@dataclass(frozen=True, slots=True)
class _Returned:
    value: object


_Outcome: TypeAlias = _Returned | BaseException


class BoundedCalls:
    """Runs functions on threads of their own, and coroutine functions on the event loop.

    A thread cannot be stopped. One that nobody waits for any more keeps its place until it comes
    back, so there are never more than `most`; none of them holds up the end of the process.
    """

    def __init__(self, most: int) -> None:
        """Run up to so many calls at once; raises ValueError for less than one."""
        if most < 1:
            raise ValueError("one call at least must be able to run")
        self._most = most
        self._hanging = 0
        self._free = asyncio.Semaphore(most)

    async def run(self, call: Callable[[], object], budget: timedelta) -> object:
        """What the call returns or raises; the wait for a free place counts as time.

        Raises CallOverran when the time is over, AllCallsHang at once when all calls do, and
        CallEscaped for what is no Exception.
        """
        if self._hanging >= self._most:
            raise AllCallsHang("all calls hang")
        running: asyncio.Future[_Outcome] | None = None
        try:
            async with asyncio.timeout(budget.total_seconds()):
                await self._free.acquire()
                running = self._begin(call)
                await asyncio.wait({running})
        except TimeoutError:
            raise CallOverran("the call took too long") from None
        finally:
            if running is not None and not running.done():
                self._give_up(running)
        outcome = running.result()
        if isinstance(outcome, _Returned):
            return outcome.value
        if isinstance(outcome, Exception):
            raise outcome
        raise CallEscaped from outcome

    def _begin(self, call: Callable[[], object]) -> "asyncio.Future[_Outcome]":
        try:
            running = _as_task(call) if iscoroutinefunction(call) else _on_a_thread(call)
        except BaseException:
            self._free.release()
            raise
        running.add_done_callback(lambda _: self._free.release())
        return running

    def _give_up(self, running: "asyncio.Future[_Outcome]") -> None:
        self._hanging += 1
        running.add_done_callback(lambda _: self._came_back())
        if isinstance(running, asyncio.Task):
            running.cancel()

    def _came_back(self) -> None:
        self._hanging -= 1


def _as_task(call: Callable[[], object]) -> "asyncio.Future[_Outcome]":
    async def run() -> _Outcome:
        try:
            value = call()
            return _Returned(await value if isawaitable(value) else value)
        except BaseException as error:  # noqa: BLE001 - whoever waits raises it
            return error

    return asyncio.create_task(run())


def _on_a_thread(call: Callable[[], object]) -> "asyncio.Future[_Outcome]":
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[_Outcome] = loop.create_future()
    context = copy_context()

    def run() -> None:
        result: _Outcome
        try:
            result = _Returned(context.run(call))
        except BaseException as error:  # noqa: BLE001 - whoever waits raises it
            result = error
        with suppress(RuntimeError):  # the loop has ended, and with it whoever would wait
            loop.call_soon_threadsafe(outcome.set_result, result)

    Thread(target=run, name="bounded-call", daemon=True).start()
    return outcome
