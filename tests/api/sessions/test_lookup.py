"""One question for all who come with one token, and a logout that overtakes its answer."""

import asyncio
from datetime import timedelta

import pytest

from api.sessions.cache import SessionCache
from api.sessions.credentials import SessionCredential
from api.sessions.lookup import SessionLookup
from api.sessions.session import KratosSession
from api.sessions.whoami import Unknown, Whoami, WhoamiAnswer
from tests.api.sessions.kratos_server import TOKEN, KratosServer, session

ADA = SessionCredential("token", "ada")


class SlowWhoami(Whoami):
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.go = asyncio.Event()

    async def ask(self, credential: SessionCredential) -> WhoamiAnswer:
        self.asked += 1
        await self.go.wait()
        return KratosSession.from_kratos(session())


def looking(whoami: Whoami) -> SessionLookup:
    return SessionLookup(whoami, SessionCache(timedelta(minutes=1), 10), 10)


def test_who_goes_away_takes_no_answer_from_those_who_wait_too() -> None:
    async def run() -> None:
        whoami = SlowWhoami()
        lookup = looking(whoami)
        first, second = (asyncio.create_task(lookup.find(ADA)) for _ in range(2))
        await asyncio.sleep(0)
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
        before = asyncio.create_task(lookup.find(ADA))
        await asyncio.sleep(0)
        lookup.forget(ADA.value)
        after = asyncio.create_task(lookup.find(ADA))
        await asyncio.sleep(0)
        lookup.forget(ADA.value)
        whoami.go.set()
        assert isinstance(await before, KratosSession)
        assert isinstance(await after, KratosSession)
        assert whoami.asked == 2
        await lookup.find(ADA)
        assert whoami.asked == 3
        await lookup.find(ADA)
        assert whoami.asked == 3

    asyncio.run(run())


def test_who_gives_up_waiting_for_a_slow_kratos_takes_no_connection_along(
    kratos: KratosServer,
) -> None:
    async def run() -> None:
        tenth = timedelta(milliseconds=100)
        whoami = Whoami(
            kratos.url, "ory_kratos_session", timeout=tenth, connections=2, ssl_context=None
        )
        kratos.go.clear()
        crowd = [SessionCredential("token", f"token {number}") for number in range(20)]
        assert set(await asyncio.gather(*map(whoami.ask, crowd))) == {Unknown(retry_after=1)}
        kratos.go.set()
        async with asyncio.timeout(10):
            while not isinstance(
                await whoami.ask(SessionCredential("token", TOKEN)), KratosSession
            ):
                pass
        await whoami.aclose()

    asyncio.run(run())
