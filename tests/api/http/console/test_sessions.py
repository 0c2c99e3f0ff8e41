"""Sessions of the console's own: when they end, and what cookie they have."""

import pytest
from starlette.requests import Request
from starlette.responses import Response

from kratos_sync.api.http.console.sessions import COOKIE, MOST_SESSIONS, Sessions
from tests.api.http.console.visiting import EVERYTHING, VIEWER


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def request(cookie: str | None = None, **headers: str) -> Request:
    pairs = {"cookie": cookie, **headers} if cookie else headers
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in pairs.items()]
    return Request({"type": "http", "method": "GET", "path": "/", "headers": raw})


def begun(sessions: Sessions, cookie: str | None = None) -> str:
    """Begin a session, in a browser with this cookie; return the browser's new cookie."""
    response = Response()
    sessions.begin(EVERYTHING, request(cookie), response)
    return response.headers["set-cookie"].partition(";")[0]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sessions(clock: Clock) -> Sessions:
    return Sessions(lasts=8_000, idle=1_000, clock=clock)


def test_a_session_ends_however_much_it_is_used(sessions: Sessions, clock: Clock) -> None:
    cookie = begun(sessions)
    for _ in range(15):
        clock.now += 500
        assert sessions.operator(request(cookie)) == EVERYTHING
    clock.now += 500
    assert sessions.operator(request(cookie)) is None


def test_a_session_that_is_not_used_ends_sooner(sessions: Sessions, clock: Clock) -> None:
    cookie = begun(sessions)
    clock.now += 1_000
    assert sessions.operator(request(cookie)) is None
    clock.now -= 1
    assert sessions.operator(request(cookie)) is None


def test_a_page_that_updates_itself_is_no_use_of_the_session(
    sessions: Sessions, clock: Clock
) -> None:
    cookie = begun(sessions)
    clock.now += 999
    assert sessions.operator(request(cookie, hx_request="true")) == EVERYTHING
    clock.now += 1
    assert sessions.operator(request(cookie, hx_request="true")) is None


def test_of_too_many_sessions_the_one_unused_for_longest_ends(
    sessions: Sessions, clock: Clock
) -> None:
    unused, *others = [begun(sessions) for _ in range(MOST_SESSIONS)]
    clock.now += 1
    for cookie in others:
        sessions.operator(request(cookie))
    others.append(begun(sessions))
    assert sessions.operator(request(unused)) is None
    assert all(sessions.operator(request(cookie)) for cookie in others)


def test_a_session_replaces_that_of_the_same_browser(sessions: Sessions) -> None:
    first = begun(sessions)
    second = begun(sessions, first)
    assert sessions.operator(request(first)) is None
    assert sessions.operator(request(second)) == EVERYTHING


def test_nobody_has_a_session_without_its_cookie(sessions: Sessions) -> None:
    begun(sessions)
    for cookie in (None, f"{COOKIE}=", f"{COOKIE}=guessed", "other=1"):
        assert sessions.operator(request(cookie)) is None


def test_by_https_no_other_host_can_set_the_cookie() -> None:
    response = Response()
    Sessions(secure=True).begin(VIEWER, request(), response)
    name, *flags = response.headers["set-cookie"].lower().split("; ")
    assert name.startswith("__host-kratos_sync_console=")
    assert {"secure", "path=/", "httponly", "samesite=strict"} <= set(flags)
    assert not any(flag.startswith("domain") for flag in flags)
