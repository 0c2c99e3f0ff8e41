"""`POST /kratos/parse-identity`: answers `parse` hooks, before Kratos stores an identity."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from contextvars import copy_context
from datetime import timedelta
from functools import partial
from inspect import isawaitable, iscoroutinefunction
from threading import Thread
from typing import ClassVar, Final, Literal, TypeAlias

import structlog
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from kratos_sync.api.http.webhooks.handler import (
    KratosWebHookHandler,
    KratosWebHookHandlerConfig,
    note_result,
)
from kratos_sync.api.http.webhooks.identity_body import read_document
from kratos_sync.api.http.webhooks.parsed_identity import (
    IdentityChanges,
    InvalidAnswer,
    ParsedIdentity,
    RefuseIdentity,
    checked,
    field,
)
from kratos_sync.api.http.webhooks.rejections import (
    DetailedMessage,
    ErrorMessage,
    error_response,
)
from kratos_sync.api.http.webhooks.requests import first_headers, hook_label
from kratos_sync.application.errors import details
from kratos_sync.domain.json_values import Json

__all__ = [
    "DetailedMessage",
    "ErrorMessage",
    "IdentityChanges",
    "KratosIdentityParseHandler",
    "KratosWebHookHandlerConfig",
    "ParseFailed",
    "ParsedIdentity",
    "RefuseIdentity",
    "field",
]


class CallTimedOut(Exception):
    """The call had not returned, or not even started, within its time limit."""


class AllCallsHang(Exception):
    """All calls that may run at once exceeded their time limit, and none of them has returned."""


class CallEscaped(Exception):
    """The call raised what is no Exception, such as SystemExit."""


_Outcome: TypeAlias = tuple[object, BaseException | None]
"""What a call returned, or raised."""


class BoundedCalls:
    """Runs functions on threads of their own, and coroutine functions on the event loop.

    A thread cannot be stopped: a call that timed out counts against `most` until it returns. Its
    thread does not delay the end of the process.
    """

    def __init__(self, most: int) -> None:
        """Run up to so many calls at once; raises ValueError for less than one."""
        if most < 1:
            raise ValueError("one call at least must be able to run")
        self._most = most
        self._hanging = 0
        self._free = asyncio.Semaphore(most)

    async def run(self, call: Callable[[], object], budget: timedelta) -> object:
        """Return or raise what the call does; `budget` includes the wait for a free place.

        Raises CallTimedOut after that, AllCallsHang at once when all calls hang, and CallEscaped
        for what is no Exception.
        """
        if self._hanging >= self._most:
            raise AllCallsHang("all calls hang")
        running: asyncio.Future[_Outcome] | None = None
        try:
            async with asyncio.timeout(budget.total_seconds()):
                await self._free.acquire()
                running = self._start(call)
                await asyncio.wait({running})
        except TimeoutError:
            raise CallTimedOut("the call took too long") from None
        finally:
            if running is not None and not running.done():
                self._abandon(running)
        value, error = running.result()
        if error is None:
            return value
        if isinstance(error, Exception):
            raise error
        raise CallEscaped from error

    def _start(self, call: Callable[[], object]) -> "asyncio.Future[_Outcome]":
        try:
            running = _as_task(call) if iscoroutinefunction(call) else _on_a_thread(call)
        except BaseException:
            self._free.release()
            raise
        running.add_done_callback(lambda _: self._free.release())
        return running

    def _abandon(self, running: "asyncio.Future[_Outcome]") -> None:
        def returned(_: object) -> None:
            self._hanging -= 1

        self._hanging += 1
        running.add_done_callback(returned)
        if isinstance(running, asyncio.Task):
            running.cancel()


def _as_task(call: Callable[[], object]) -> "asyncio.Future[_Outcome]":
    async def run() -> _Outcome:
        try:
            value = call()
            return await value if isawaitable(value) else value, None
        except BaseException as error:  # noqa: BLE001 - `BoundedCalls.run` raises it
            return None, error

    return asyncio.create_task(run())


def _on_a_thread(call: Callable[[], object]) -> "asyncio.Future[_Outcome]":
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[_Outcome] = loop.create_future()
    context = copy_context()

    def run() -> None:
        result: _Outcome
        try:
            result = context.run(call), None
        except BaseException as error:  # noqa: BLE001 - `BoundedCalls.run` raises it
            result = None, error
        with suppress(RuntimeError):  # the loop has ended: nothing waits any longer
            loop.call_soon_threadsafe(outcome.set_result, result)

    Thread(target=run, name="bounded-call", daemon=True).start()
    return outcome


KRATOS_WAITS: Final = timedelta(seconds=30)
RAISED: Final = "parse raised"
TEMPLATE_FAILED: Final = "Kratos' template failed: the body is empty"
OnFailure: TypeAlias = Literal["refuse", "let_in"]

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()


class ParseFailed(Exception):
    """There is no answer: `parse` raised, took too long, or returned what Kratos does not accept.

    Or Kratos sent an empty body. The text says which, without values; the cause is what was raised.
    """


class KratosIdentityParseHandler(KratosWebHookHandler):
    """Answers `parse` hooks of registration and settings; override `parse` to decide.

    Nothing is recorded: the identity may never be stored. Without changes the answer is 200 `{}`,
    which Kratos accepts like a 204 and every hook can read. When there is no answer, the person is
    refused with `failure_message`, or let in unchanged: after a 5xx Kratos would try again, and
    then show our URL.
    """

    failure_message: ClassVar[DetailedMessage] = DetailedMessage(
        503, "This could not be checked just now. Please try again in a moment."
    )

    def __init__(
        self,
        config: KratosWebHookHandlerConfig,
        *,
        concurrency: int = 10,
        budget: timedelta = timedelta(seconds=5),
        on_failure: OnFailure = "refuse",
    ) -> None:
        """Run up to `concurrency` calls of `parse`, and let a person wait up to `budget` for one.

        Raises ValueError if Kratos might no longer wait by then: it waits 30 s, the body included.
        """
        super().__init__(config)
        if not timedelta() < budget < KRATOS_WAITS - config.body_timeout:
            raise ValueError("the budget and the time for the body must be less than 30 s together")
        if on_failure not in ("refuse", "let_in"):
            raise ValueError("on a failure one can refuse or let_in")
        self._calls = BoundedCalls(concurrency)
        self._budget = budget
        self._on_failure = on_failure

    def parse(
        self,
        identity: ParsedIdentity,  # noqa: ARG002
    ) -> IdentityChanges | Awaitable[IdentityChanges | None] | None:
        """Return what to store instead, or None to change nothing; raise RefuseIdentity to refuse.

        It may block, as it has a thread of its own, unless it is an `async def`: that runs on the
        event loop. May be called several times for one identity, and for several at once.
        """
        return None

    async def decide(self, identity: ParsedIdentity) -> dict[str, Json]:
        """The changes that `parse` returns, as plain JSON; raises RefuseIdentity or ParseFailed."""
        try:
            answer = await self._calls.run(partial(self.parse, identity), self._budget)
            if answer is None:
                return {}
            return await asyncio.to_thread(checked, answer, registration=identity.is_registration)
        except RefuseIdentity:
            raise
        except (AllCallsHang, CallTimedOut, InvalidAnswer) as error:
            raise ParseFailed(str(error)) from error
        except Exception as error:
            raise ParseFailed(RAISED) from error

    async def handle_core(self, request: Request, body: bytes) -> Response:
        """Answer with what `parse` decides about the identity in the body."""
        hook = hook_label(first_headers(request))
        if not body:
            note_result(request, "failed")
            return self._failed(ParseFailed(TEMPLATE_FAILED), hook)
        identity = await self.read(_read, body)
        try:
            changes = await self.decide(identity)
        except RefuseIdentity as refusal:
            note_result(request, "refused")
            return error_response(self._messages_of(refusal, hook))
        except ParseFailed as failure:
            note_result(request, "failed")
            return self._failed(failure, hook)
        _log.info("identity_parsed", hook=hook, changed=sorted(changes))
        return JSONResponse({"identity": changes} if changes else {})

    def _messages_of(self, refusal: RefuseIdentity, hook: str | None) -> Sequence[ErrorMessage]:
        """The refusal's messages; one that cannot be sent refuses nevertheless."""
        try:
            refusal.check()
        except InvalidAnswer as error:
            _log.error("parse_refusal_unreadable", hook=hook, reason=str(error))
            return [ErrorMessage(None, [self.failure_message])]
        pointers = [each.instance_ptr for each in refusal.messages]
        _log.info("identity_refused", hook=hook, pointers=pointers)
        return refusal.messages

    def _failed(self, failure: ParseFailed, hook: str | None) -> Response:
        reason = str(failure)
        facts: dict[str, Json] = {"hook": hook, "reason": reason}
        if reason == RAISED and failure.__cause__ is not None:
            facts.update(details(failure.__cause__))
        if self._on_failure == "let_in":
            _log.error("parse_failed_open", **facts)
            return JSONResponse({})
        _log.error("parse_failed_closed", **facts)
        return error_response([ErrorMessage(None, [self.failure_message])])


def _read(body: bytes) -> ParsedIdentity:
    return ParsedIdentity.from_kratos(read_document(body))
