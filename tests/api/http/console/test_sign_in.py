"""The ways to sign in: who is an operator, with which roles, and who is nobody."""

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from ipaddress import ip_network
from typing import Any

import pytest
from starlette.authentication import AuthCredentials, AuthenticationBackend, AuthenticationError
from starlette.requests import HTTPConnection

from kratos_sync.api.http.console.access import Operator, Role
from kratos_sync.api.http.console.app import ConsoleRoute, Page, create_console
from kratos_sync.api.http.console.sign_in import (
    COOKIE,
    LINK_SECONDS,
    MOST_TRIES,
    ROLES_FIELD,
    SESSION_SECONDS,
    TRIES_SECONDS,
    NoAnswer,
    SignIn,
    SignInByKratos,
    SignInByLink,
    SignInByProxy,
)
from kratos_sync.api.http.sessions.whoami import KratosAway, KratosUser, SecondFactorRequired
from kratos_sync.domain.session import KratosSession
from tests.api.http.console.visiting import Visitor

ADA = "e52e75c7-afbb-4316-a4ef-3977a428a2ca"
PAGE = Page("error.html", {"status": HTTPStatus.OK, "text": "inside"})


def connection(headers: Mapping[str, str] | None = None, peer: str = "10.0.0.7") -> HTTPConnection:
    raw = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
    return HTTPConnection(
        {
            "type": "http",
            "scheme": "http",
            "server": ("console.example", 80),
            "path": "/identity",
            "query_string": b"a=1",
            "headers": [(b"host", b"console.example"), *raw],
            "client": (peer, 40_000),
        }
    )


def session(metadata: object, aal: str = "aal1") -> KratosSession:
    return KratosSession.from_kratos(
        {
            "id": "0f5e9d4e-1111-4222-8333-444455556666",
            "active": True,
            "authenticator_assurance_level": aal,
            "identity": {"id": ADA, "state": "active", "metadata_public": metadata},
        }
    )


class Backend(AuthenticationBackend):
    """Kratos' answer, whoever asks."""

    def __init__(self, answer: KratosSession | AuthenticationError | None) -> None:
        self._answer = answer

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, KratosUser] | None:
        if isinstance(self._answer, AuthenticationError):
            raise self._answer
        if self._answer is None:
            return None
        return AuthCredentials(["authenticated"]), KratosUser(self._answer, ADA)


def by_kratos(answer: KratosSession | AuthenticationError | None) -> SignInByKratos:
    return SignInByKratos(Backend(answer), "https://kratos.example/")


def operator(sign_in: SignIn, of: HTTPConnection | None = None) -> Operator | None:
    return asyncio.run(sign_in.operator(of or connection()))


def test_the_roles_of_an_identity_are_those_in_its_public_metadata() -> None:
    found = operator(by_kratos(session({ROLES_FIELD: ["operator"]})))
    assert found == Operator(ADA, frozenset({Role.VIEWER, Role.OPERATOR}))


def test_a_second_factor_is_known_by_the_sessions_level() -> None:
    found = operator(by_kratos(session({ROLES_FIELD: ["privacy"]}, "aal2")))
    assert found is not None
    assert found.second_factor


@pytest.mark.parametrize(
    "metadata",
    [None, {}, {ROLES_FIELD: []}, {ROLES_FIELD: "operator"}, {ROLES_FIELD: ["root"]}, []],
)
def test_an_identity_without_a_role_is_nobody(metadata: Any) -> None:
    assert operator(by_kratos(session(metadata))) is None


def test_who_has_no_session_or_owes_a_second_factor_signs_in_at_kratos() -> None:
    for sign_in in (by_kratos(None), by_kratos(SecondFactorRequired(None))):
        assert operator(sign_in) is None
        assert sign_in.page(connection()) == (
            "https://kratos.example/self-service/login/browser"
            "?return_to=http%3A%2F%2Fconsole.example%2Fidentity"
        )


def test_kratos_being_away_makes_nobody_an_operator() -> None:
    with pytest.raises(NoAnswer):
        operator(by_kratos(KratosAway(1)))


PROXY = SignInByProxy([ip_network("10.0.0.0/24")], "X-User", "X-Roles", "X-Second")
FROM_PROXY = {"X-User": "ada", "X-Roles": "operator, privacy", "X-Second": "true"}


def test_the_proxys_headers_say_who_it_is() -> None:
    expected = Operator("ada", frozenset(Role), second_factor=True)
    assert operator(PROXY, connection(FROM_PROXY)) == expected


@pytest.mark.parametrize("peer", ["10.0.1.7", "127.0.0.1", "::1", "not an address"])
def test_the_same_headers_from_elsewhere_say_nothing(peer: str) -> None:
    assert operator(PROXY, connection(FROM_PROXY, peer)) is None


@pytest.mark.parametrize(
    "headers",
    [{}, {"X-User": "ada"}, {"X-Roles": "operator"}, {**FROM_PROXY, "X-User": ""}],
    ids=["none", "no roles", "no name", "empty name"],
)
def test_a_proxy_that_says_too_little_signs_in_nobody(headers: dict[str, str]) -> None:
    assert operator(PROXY, connection(headers)) is None


def test_a_header_that_came_twice_does_not_count() -> None:
    twice = connection(FROM_PROXY)
    twice.scope["headers"].append((b"x-user", b"eve"))
    assert operator(PROXY, twice) is None
    roles = connection({"X-User": "eve", "X-Roles": "viewer"})
    roles.scope["headers"].append((b"x-roles", b"privacy"))
    assert operator(PROXY, roles) is None


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


class LinkedConsole:
    """A console that is opened by a link."""

    def __init__(self) -> None:
        self.clock = Clock()
        everything = Operator("ada", frozenset(Role), second_factor=True)
        self.sign_in = SignInByLink(everything, self.clock)
        self.visitor = Visitor(create_console(self.sign_in, [ConsoleRoute("/", lambda _: PAGE)]))

    def new_path(self) -> str:
        return self.sign_in.new_link("http://127.0.0.1:8100").removeprefix("http://127.0.0.1:8100")

    def enter(self, path: str) -> str | None:
        """The session's cookie; None if the link is not accepted."""
        return self.visitor.post(path).cookies.get(COOKIE)

    def opens(self, cookie: str) -> bool:
        answer = self.visitor.get("/", {"cookie": f"{COOKIE}={cookie}"})
        return answer.status_code == HTTPStatus.OK and "inside" in answer.text


@pytest.fixture
def linked() -> LinkedConsole:
    return LinkedConsole()


def test_a_link_is_good_for_one_use(linked: LinkedConsole) -> None:
    path = linked.new_path()
    cookie = linked.enter(path)
    assert cookie is not None
    assert linked.opens(cookie)
    assert linked.enter(path) is None


def test_looking_at_a_link_does_not_use_it(linked: LinkedConsole) -> None:
    path = linked.new_path()
    assert linked.visitor.get(path).status_code == HTTPStatus.OK
    assert linked.enter(path) is not None


def test_the_cookie_is_for_this_site_and_no_script(linked: LinkedConsole) -> None:
    header = linked.visitor.post(linked.new_path()).headers["set-cookie"].lower()
    assert "httponly" in header
    assert "samesite=strict" in header


def test_a_session_begins_with_a_value_that_nobody_chose(linked: LinkedConsole) -> None:
    chosen = {"cookie": f"{COOKIE}=chosen", "sec-fetch-site": "same-origin"}
    answer = linked.visitor.post(linked.new_path(), headers=chosen)
    assert answer.cookies[COOKIE] != "chosen"
    assert not linked.opens("chosen")


def test_an_old_link_is_not_accepted(linked: LinkedConsole) -> None:
    path = linked.new_path()
    linked.clock.now += LINK_SECONDS
    assert linked.enter(path) is None


def test_a_session_ends(linked: LinkedConsole) -> None:
    cookie = linked.enter(linked.new_path()) or ""
    linked.clock.now += SESSION_SECONDS
    assert not linked.opens(cookie)


def test_who_signs_out_is_out(linked: LinkedConsole) -> None:
    cookie = linked.enter(linked.new_path()) or ""
    own = {"cookie": f"{COOKIE}={cookie}", "sec-fetch-site": "same-origin"}
    linked.visitor.post("/sign-out", headers=own)
    assert not linked.opens(cookie)


def test_links_cannot_be_guessed_again_and_again(linked: LinkedConsole) -> None:
    for number in range(MOST_TRIES):
        assert linked.enter(f"/sign-in/wrong-{number}") is None
    path = linked.new_path()
    assert linked.enter(path) is None
    linked.clock.now += TRIES_SECONDS
    assert linked.enter(path) is not None
