"""What a cache of sessions must never do, whatever happens in whatever order."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kratos_sync.api.http.sessions.lookup import SessionCache
from kratos_sync.api.http.sessions.whoami import SessionCredential
from kratos_sync.domain.session import KratosSession
from tests.api.http.sessions.kratos_server import session

TTL = 5
MAX = 3
START = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)


class Clocks:
    """Two clocks: one for durations, and the wall's."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds)


def a_session(expires_in: float) -> KratosSession:
    expires_at = (START + timedelta(seconds=expires_in)).isoformat()
    return KratosSession.from_kratos(session(expires_at=expires_at))


credentials = st.builds(
    SessionCredential, st.sampled_from(["cookie", "token"]), st.sampled_from(["a", "b", "c d"])
)
steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("put"), credentials, st.tuples(st.integers(-2, 20), st.integers(0, TTL + 1))
        ),
        st.tuples(st.just("drop"), credentials, st.just(0)),
        st.tuples(st.just("wait"), st.none(), st.integers(0, 4)),
    ),
    max_size=30,
)


@given(steps, credentials)
def test_no_session_is_mixed_up_or_kept_beyond_its_end(
    steps: list[tuple[str, Any, Any]], asked: SessionCredential
) -> None:
    clocks = Clocks()
    cache = SessionCache(timedelta(seconds=TTL), MAX, clocks.monotonic, clocks.now)
    last: dict[SessionCredential, tuple[float, KratosSession] | None] = {}
    for step, credential, number in steps:
        match step:
            case "put":
                expires_in, took = number
                kept = a_session(clocks.seconds + expires_in)
                cache.put(cache.key(credential), kept, clocks.seconds - took)
                last[credential] = (clocks.seconds - took, kept)
            case "drop":
                cache.drop(cache.key(credential))
                last[credential] = None
            case _:
                clocks.seconds += number
        assert len(cache) <= MAX
        found = cache.get(cache.key(asked))
        known = last.get(asked)
        if found is not None:
            assert known is not None
            at, kept = known
            assert found is kept
            assert kept.expires_at is not None
            assert clocks.seconds < at + TTL
            assert clocks.now() < kept.expires_at


def test_a_fresh_session_is_found() -> None:
    clocks = Clocks()
    cache = SessionCache(timedelta(seconds=TTL), MAX, clocks.monotonic, clocks.now)
    key, kept = cache.key(SessionCredential("token", "a")), a_session(100)
    cache.put(key, kept, clocks.seconds)
    clocks.seconds = TTL - 0.1
    assert cache.get(key) is kept
    clocks.seconds = TTL
    assert cache.get(key) is None
    assert len(cache) == 0


def test_a_session_is_as_old_as_the_question() -> None:
    clocks = Clocks()
    cache = SessionCache(timedelta(seconds=TTL), MAX, clocks.monotonic, clocks.now)
    key, kept = cache.key(SessionCredential("token", "a")), a_session(100)
    asked_at = cache.clock()
    clocks.seconds = TTL - 1
    cache.put(key, kept, asked_at)
    assert cache.get(key) is kept
    clocks.seconds = TTL
    assert cache.get(key) is None
    cache.put(key, kept, asked_at)
    assert cache.get(key) is None


def test_the_oldest_session_is_evicted_first() -> None:
    cache = SessionCache(timedelta(minutes=1), 2)
    kept = KratosSession.from_kratos(session())
    a, b, c = (cache.key(SessionCredential("token", name)) for name in "abc")
    for key in (a, b, a, c):
        cache.put(key, kept, cache.clock())
    assert [cache.get(key) is kept for key in (a, b, c)] == [True, False, True]


def test_expired_sessions_do_not_stay_in_memory() -> None:
    clocks = Clocks()
    cache = SessionCache(timedelta(seconds=TTL), 100, clocks.monotonic, clocks.now)
    for number in range(50):
        cache.put(
            cache.key(SessionCredential("token", str(number))), a_session(1_000), clocks.seconds
        )
        clocks.seconds += 1
    assert len(cache) == TTL


def test_nothing_is_kept_for_no_time_and_nothing_without_an_end() -> None:
    credential = SessionCredential("token", "a")
    none, some = SessionCache(timedelta(), MAX), SessionCache(timedelta(minutes=1), MAX)
    none.put(none.key(credential), KratosSession.from_kratos(session()), none.clock())
    endless = KratosSession.from_kratos(session(expires_at=None))
    some.put(some.key(credential), endless, some.clock())
    assert (len(none), len(some)) == (0, 0)


def test_a_key_is_no_token_and_no_other_process_has_it() -> None:
    one, other = SessionCache(timedelta(1), 1), SessionCache(timedelta(1), 1)
    credential = SessionCredential("token", "ory_st_secret")
    assert one.key(credential) == one.key(SessionCredential("token", "ory_st_secret"))
    assert one.key(credential) != other.key(credential)
    assert one.key(credential) != one.key(SessionCredential("cookie", "ory_st_secret"))
    assert b"secret" not in one.key(credential)
    assert "secret" not in repr(credential)
    assert "secret" not in json.dumps(str(vars(one)))
