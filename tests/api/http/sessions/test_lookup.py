"""One question for all who come with one token, and a logout that overtakes its answer."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from kratos_sync.api.http.sessions.lookup import SessionCache, SessionLookup
from kratos_sync.api.http.sessions.whoami import (
    KratosSession,
    NeedsSecondFactor,
    SessionCredential,
    Unknown,
    Whoami,
    WhoamiAnswer,
)
from tests.api.http.sessions.kratos_server import TOKEN, KratosServer, session
from tests.waiting import DEADLINE_SECONDS, until_on_loop

ADA = SessionCredential("token", "ada")


TTL = 5.0


def known(**changes: Any) -> KratosSession:
    return KratosSession.from_kratos(session(**changes))


class SlowWhoami(Whoami):
    """Answers when the test says so, with what was true when it was asked."""

    def __init__(self) -> None:
        self.begun = self.asked = 0
        self.truth: WhoamiAnswer = known()
        self.free = asyncio.Event()
        self.free.set()
        self.go = asyncio.Event()

    async def ask(self, credential: SessionCredential, sent: Callable[[], None]) -> WhoamiAnswer:
        self.begun += 1
        await self.free.wait()
        sent()
        self.asked += 1
        answer = self.truth
        await self.go.wait()
        return answer


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def looking(whoami: Whoami) -> SessionLookup:
    return SessionLookup(whoami, SessionCache(timedelta(minutes=1), 10), 10)


def looking_by(clock: Clock, whoami: Whoami, required_aal: str = "aal1") -> SessionLookup:
    return SessionLookup(whoami, SessionCache(timedelta(seconds=TTL), 10, clock), 10, required_aal)


async def asking(
    lookup: SessionLookup, whoami: SlowWhoami, question: int
) -> "asyncio.Task[WhoamiAnswer]":
    """Somebody who has come and waits for that question, which has begun."""
    come = asyncio.Event()

    async def find() -> WhoamiAnswer:
        come.set()
        return await lookup.find(ADA)

    task = asyncio.create_task(find())
    await come.wait()
    await until_on_loop(lambda: whoami.begun >= question)
    return task


def test_a_cancelled_request_leaves_the_answer_to_others_that_wait() -> None:
    async def run() -> None:
        whoami = SlowWhoami()
        lookup = looking(whoami)
        first = await asking(lookup, whoami, 1)
        second = await asking(lookup, whoami, 1)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        whoami.go.set()
        assert isinstance(await second, KratosSession)
        assert whoami.asked == 1

    asyncio.run(run())


def test_an_answer_that_comes_after_a_logout_is_not_remembered() -> None:
    async def run() -> None:
        whoami = SlowWhoami()
        lookup = looking(whoami)
        before = await asking(lookup, whoami, 1)
        lookup.drop(ADA.value)
        after = await asking(lookup, whoami, 2)
        lookup.drop(ADA.value)
        whoami.go.set()
        assert isinstance(await before, KratosSession)
        assert isinstance(await after, KratosSession)
        assert whoami.asked == 2
        await lookup.find(ADA)
        assert whoami.asked == 3
        await lookup.find(ADA)
        assert whoami.asked == 3

    asyncio.run(run())


def test_an_answer_from_before_a_revocation_is_not_used_after_the_cache_time() -> None:
    async def run() -> None:
        whoami, clock = SlowWhoami(), Clock()
        lookup = looking_by(clock, whoami)
        first = await asking(lookup, whoami, 1)
        whoami.truth = None  # revoked
        clock.seconds = TTL - 0.1
        soon = await asking(lookup, whoami, 1)
        clock.seconds = TTL
        late = await asking(lookup, whoami, 2)
        whoami.go.set()
        assert isinstance(await first, KratosSession)
        assert isinstance(await soon, KratosSession)
        assert await late is None
        assert whoami.asked == 2
        assert await lookup.find(ADA) is None

    asyncio.run(run())


def test_what_is_kept_counts_from_the_question_and_not_from_the_answer() -> None:
    async def run() -> None:
        whoami, clock = SlowWhoami(), Clock()
        lookup = looking_by(clock, whoami)
        first = await asking(lookup, whoami, 1)
        clock.seconds = 2.9
        whoami.go.set()
        assert isinstance(await first, KratosSession)
        whoami.truth = None
        clock.seconds = TTL - 0.1
        assert isinstance(await lookup.find(ADA), KratosSession)
        clock.seconds = TTL
        assert await lookup.find(ADA) is None

    asyncio.run(run())


def test_a_question_that_waits_for_a_connection_is_shared_and_counts_from_its_sending() -> None:
    async def run() -> None:
        whoami, clock = SlowWhoami(), Clock()
        whoami.go.set()
        whoami.free.clear()
        lookup = looking_by(clock, whoami)
        first = await asking(lookup, whoami, 1)
        clock.seconds = 2 * TTL
        second = await asking(lookup, whoami, 1)
        whoami.free.set()
        assert await first is await second is await lookup.find(ADA)
        assert whoami.asked == 1
        clock.seconds = 3 * TTL - 0.1
        await lookup.find(ADA)
        assert whoami.asked == 1

    asyncio.run(run())


def test_an_older_answer_that_comes_later_is_not_kept_over_a_newer_one() -> None:
    async def run() -> None:
        whoami, clock = SlowWhoami(), Clock()
        lookup = looking_by(clock, whoami)
        old = await asking(lookup, whoami, 1)
        slow, whoami.go = whoami.go, asyncio.Event()
        clock.seconds, whoami.truth = TTL, known(expires_at="2127-01-01T00:00:00Z")
        new = await asking(lookup, whoami, 2)
        whoami.go.set()
        assert await new is await lookup.find(ADA)
        slow.set()
        await old
        assert await new is await lookup.find(ADA)

    asyncio.run(run())


@pytest.mark.parametrize(
    "refusal", [known(authenticator_assurance_level="aal1"), NeedsSecondFactor(None)]
)
def test_a_missing_second_factor_is_looked_up_again(refusal: WhoamiAnswer) -> None:
    async def run() -> None:
        whoami, twice = SlowWhoami(), known(authenticator_assurance_level="aal2")
        lookup = looking_by(Clock(), whoami, "aal2")
        whoami.truth = refusal
        before = await asking(lookup, whoami, 1)
        whoami.truth = twice
        after = await asking(lookup, whoami, 1)
        whoami.go.set()
        assert await before is refusal
        assert await after is twice
        assert whoami.asked == 2
        assert await lookup.find(ADA) is twice
        assert whoami.asked == 2

    asyncio.run(run())


def test_a_session_with_one_factor_is_looked_up_again_where_two_are_required() -> None:
    async def run() -> None:
        whoami, twice = SlowWhoami(), known(authenticator_assurance_level="aal2")
        lookup = looking_by(Clock(), whoami, "aal2")
        whoami.go.set()
        whoami.truth = once = known(authenticator_assurance_level="aal1")
        assert await lookup.find(ADA) is once
        whoami.truth = twice
        assert await lookup.find(ADA) is twice
        assert whoami.asked == 2

    asyncio.run(run())


def test_a_cancelled_wait_for_a_slow_kratos_leaks_no_connection(
    kratos: KratosServer,
) -> None:
    async def run() -> None:
        def seen() -> None:
            pass

        tenth = timedelta(milliseconds=100)
        whoami = Whoami(
            kratos.url, "ory_kratos_session", timeout=tenth, connections=2, ssl_context=None
        )
        kratos.go.clear()
        population = [SessionCredential("token", f"token {number}") for number in range(20)]
        assert set(await asyncio.gather(*(whoami.ask(each, seen) for each in population))) == {
            Unknown(retry_after=1)
        }
        kratos.go.set()
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not isinstance(
                await whoami.ask(SessionCredential("token", TOKEN), seen), KratosSession
            ):
                pass
        await whoami.aclose()

    asyncio.run(run())
