"""The ways to sign in: who is an operator, with which roles, and who is nobody."""

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from ipaddress import ip_network
from typing import Any

import pytest
from starlette.authentication import AuthCredentials, AuthenticationError
from starlette.requests import HTTPConnection

from kratos_sync.api.http.console.access import NoRole, Operator, Role
from kratos_sync.api.http.console.app import ConsoleRoute, Page, create_console
from kratos_sync.api.http.console.sessions import (
    COOKIE,
    SESSION_SECONDS,
    TRIES_SECONDS,
    Sessions,
)
from kratos_sync.api.http.console.sign_in import (
    LINK_SECONDS,
    MOST_TRIES,
    NEXT_LINK_SECONDS,
    ROLES_FIELD,
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
LOGOUT = "https://kratos.example/self-service/logout?token=of-no-worth"
PAGE = Page("error.html", {"status": HTTPStatus.OK, "text": "inside", "links": {}})


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


class KratosAnswer:
    """Kratos' answer, whoever asks."""

    def __init__(self, answer: KratosSession | AuthenticationError | None) -> None:
        self._answer = answer
        self.dropped = 0

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, KratosUser] | None:
        if isinstance(self._answer, AuthenticationError):
            raise self._answer
        if self._answer is None:
            return None
        return AuthCredentials(["authenticated"]), KratosUser(self._answer, ADA)

    async def logout_url(self, conn: HTTPConnection, return_to: str | None = None) -> str | None:
        if isinstance(self._answer, AuthenticationError):
            raise self._answer
        return f"{LOGOUT}&return_to={return_to}" if self._answer else None

    def drop(self, conn: HTTPConnection) -> None:
        self.dropped += 1


def by_kratos(
    answer: KratosSession | AuthenticationError | None, origin: str | None = None
) -> SignInByKratos:
    return SignInByKratos(KratosAnswer(answer), "https://kratos.example/", origin=origin)


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
def test_an_identity_without_a_role_is_no_operator(metadata: Any) -> None:
    with pytest.raises(NoRole):
        operator(by_kratos(session(metadata)))


@pytest.mark.parametrize(
    ("origin", "back"),
    [
        (None, "http%3A%2F%2Fconsole.example%2Fidentity"),
        ("https://outside.example", "https%3A%2F%2Foutside.example%2Fidentity"),
    ],
)
def test_who_has_no_session_signs_in_at_kratos_and_comes_back(
    origin: str | None, back: str
) -> None:
    sign_in = by_kratos(None, origin)
    assert operator(sign_in) is None
    login = "https://kratos.example/self-service/login/browser"
    assert sign_in.page(connection()) == f"{login}?return_to={back}"
    assert sign_in.second_factor_page(connection()) == f"{login}?aal=aal2&return_to={back}"


def test_who_needs_a_second_factor_is_led_to_it() -> None:
    answer = visitor_of(by_kratos(SecondFactorRequired(None))).get("/")
    assert answer.status_code == HTTPStatus.FORBIDDEN
    assert "/self-service/login/browser?aal=aal2&amp;return_to=" in answer.text
    assert "Sign in with a second factor" in answer.text


def test_kratos_being_away_makes_nobody_an_operator() -> None:
    with pytest.raises(NoAnswer):
        operator(by_kratos(KratosAway(1)))


def visitor_of(sign_in: SignIn) -> Visitor:
    return Visitor(create_console(sign_in, [ConsoleRoute("/", lambda _: PAGE)]))


def test_who_signs_out_is_sent_to_the_logout_of_kratos_and_back_to_the_console() -> None:
    sessions = KratosAnswer(session({ROLES_FIELD: ["viewer"]}))
    visitor = visitor_of(SignInByKratos(sessions, "https://kratos.example/"))
    assert 'action="/sign-out"' in visitor.get("/").text
    answer = visitor.post("/sign-out")
    where = f"{LOGOUT}&amp;return_to=http://127.0.0.1:8100/"
    assert f'content="0; url={where}"' in answer.text
    assert f'href="{where}"' in answer.text
    assert sessions.dropped == 1


def test_who_has_no_session_is_signed_out_already() -> None:
    answer = visitor_of(by_kratos(None)).post("/sign-out")
    assert (answer.status_code, answer.headers["location"]) == (HTTPStatus.SEE_OTHER, "/")


def test_nobody_is_signed_out_while_kratos_is_away_and_the_page_says_so() -> None:
    answer = visitor_of(by_kratos(KratosAway(1))).post("/sign-out")
    assert answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE
    assert "Kratos does not answer" in answer.text


@pytest.mark.parametrize("headers", [{}, {"sec-fetch-site": "cross-site"}])
def test_no_other_site_signs_anybody_out(headers: dict[str, str]) -> None:
    sessions = KratosAnswer(session({ROLES_FIELD: ["viewer"]}))
    visitor = visitor_of(SignInByKratos(sessions, "https://kratos.example/"))
    assert visitor.post("/sign-out", headers=headers).status_code == HTTPStatus.FORBIDDEN
    assert sessions.dropped == 0


def test_behind_a_proxy_the_console_offers_no_sign_out() -> None:
    visitor = Visitor(create_console(PROXY, [ConsoleRoute("/", lambda _: PAGE)]), "10.0.0.7")
    page = visitor.get("/", FROM_PROXY).text
    assert "inside" in page
    assert "sign-out" not in page


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
    [{}, {"X-Roles": "operator"}, {**FROM_PROXY, "X-User": ""}],
    ids=["none", "no name", "empty name"],
)
def test_a_proxy_that_says_too_little_signs_in_nobody(headers: dict[str, str]) -> None:
    assert operator(PROXY, connection(headers)) is None


def test_a_header_that_came_twice_does_not_count() -> None:
    twice = connection(FROM_PROXY)
    twice.scope["headers"].append((b"x-user", b"eve"))
    assert operator(PROXY, twice) is None
    roles = connection({"X-User": "eve", "X-Roles": "viewer"})
    roles.scope["headers"].append((b"x-roles", b"privacy"))
    with pytest.raises(NoRole):
        operator(PROXY, roles)


@pytest.mark.parametrize("headers", [{"X-User": "ada"}, {"X-User": "ada", "X-Roles": "root"}])
def test_whom_the_proxy_gives_no_role_is_no_operator(headers: dict[str, str]) -> None:
    with pytest.raises(NoRole):
        operator(PROXY, connection(headers))


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


class LinkedConsole:
    """A console that is opened by a link."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.printed: list[str] = []
        everything = Operator("ada", frozenset(Role), second_factor=True)
        sessions, show = Sessions(clock=self.clock), self.printed.append
        address = "http://127.0.0.1:8100"
        self.sign_in = SignInByLink(everything, sessions, address, show, self.clock)
        self.visitor = visitor_of(self.sign_in)

    def new_path(self) -> str:
        self.clock.now += NEXT_LINK_SECONDS
        assert self.sign_in.print_link()
        return self.printed[-1].removeprefix("http://127.0.0.1:8100")

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


def test_a_link_that_was_used_leads_to_where_another_is_printed(linked: LinkedConsole) -> None:
    used = linked.new_path()
    linked.enter(used)
    page = linked.visitor.post(used)
    assert page.status_code == HTTPStatus.FORBIDDEN
    assert "was used already" in page.text
    linked.clock.now += NEXT_LINK_SECONDS
    answer = linked.visitor.post("/sign-in")
    assert "A new link was printed" in answer.text
    assert len(linked.printed) == 2
    path = linked.printed[-1].removeprefix("http://127.0.0.1:8100")
    assert path not in answer.text
    assert linked.enter(path) is not None


def test_links_are_printed_one_after_another_with_a_pause(linked: LinkedConsole) -> None:
    linked.new_path()
    assert "a moment ago" in linked.visitor.post("/sign-in").text
    assert len(linked.printed) == 1


def test_no_other_site_has_a_link_printed(linked: LinkedConsole) -> None:
    cross = {"sec-fetch-site": "cross-site"}
    assert linked.visitor.post("/sign-in", headers=cross).status_code == HTTPStatus.FORBIDDEN
    assert linked.printed == []


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
    assert 'action="/sign-out"' in linked.visitor.get("/", own).text
    linked.visitor.post("/sign-out", headers=own)
    assert not linked.opens(cookie)


def test_links_cannot_be_guessed_again_and_again(linked: LinkedConsole) -> None:
    for number in range(MOST_TRIES):
        assert linked.enter(f"/sign-in/wrong-{number}") is None
    path = linked.new_path()
    assert linked.enter(path) is None
    linked.clock.now += TRIES_SECONDS
    assert linked.enter(path) is not None
