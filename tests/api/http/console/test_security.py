"""What the console answers whatever its pages are: headers, origins, bounds, roles."""

from collections.abc import AsyncIterator, Callable
from http import HTTPStatus

import pytest

from kratos_sync.api.http.console.access import NO_ROLE, NoRole, Operator, Role
from kratos_sync.api.http.console.app import (
    Call,
    ConsoleRoute,
    NotFound,
    Page,
    See,
    WrongInput,
    create_console,
)
from kratos_sync.api.http.console.security import LARGEST_BODY, POLICY
from kratos_sync.api.http.console.sign_in import NoAnswer
from kratos_sync.application.ports.event_bus import LedgerUnavailable
from tests.api.http.console.visiting import OWN, VIEWER, SignedIn, Visitor

PAGE = Page(
    "error.html", {"status": HTTPStatus.OK, "text": "<script>alert(1)</script>", "links": {}}
)


def console(
    answer: Callable[[Call], Page | See] = lambda _: PAGE,
    operator: Operator | Exception | None = VIEWER,
    role: Role = Role.VIEWER,
    origin: str | None = None,
) -> Visitor:
    routes = [
        ConsoleRoute("/", answer, role),
        ConsoleRoute("/change", lambda _: See("/audit/1"), role, "POST"),
    ]
    return Visitor(create_console(SignedIn(operator), routes, origin=origin))


@pytest.mark.parametrize("path", ["/", "/nowhere", "/static/0/nothing.js"])
def test_every_answer_has_the_strict_policy(path: str) -> None:
    answer = console().get(path)
    assert answer.headers["content-security-policy"] == POLICY
    assert "unsafe" not in POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["cache-control"] == "no-store"


def test_a_page_that_does_not_exist_has_the_navigation_of_who_is_signed_in() -> None:
    answer = console().get("/nowhere")
    assert answer.status_code == HTTPStatus.NOT_FOUND
    assert '<nav aria-label="Pages">' in answer.text
    assert "<nav" not in console(operator=None).get("/nowhere").text


def test_what_a_stranger_wrote_is_escaped() -> None:
    text = console().get("/").text
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_static_files_are_cached_for_ever_under_the_name_of_their_content() -> None:
    client = console()
    url = client.get("/").text.partition('href="/static/')[2].partition('"')[0]
    answer = client.get(f"/static/{url}")
    assert answer.status_code == HTTPStatus.OK
    assert "immutable" in answer.headers["cache-control"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"sec-fetch-site": "cross-site", "origin": "http://127.0.0.1:8100"},
        {"origin": "http://evil.example"},
        {"origin": "http://127.0.0.1:8101"},
        {"origin": "https://127.0.0.1:8100"},
        {"origin": "null"},
    ],
)
def test_a_form_of_another_page_changes_nothing(headers: dict[str, str]) -> None:
    answer = console().post("/change", {"a": "1"}, headers=headers)
    assert answer.status_code == HTTPStatus.FORBIDDEN


@pytest.mark.parametrize("headers", [OWN, {"origin": "http://127.0.0.1:8100"}])
def test_a_form_of_an_own_page_is_carried_out(headers: dict[str, str]) -> None:
    answer = console().post("/change", {"a": "1"}, headers=headers)
    assert (answer.status_code, answer.headers["location"]) == (HTTPStatus.SEE_OTHER, "/audit/1")


def test_behind_a_proxy_its_address_is_the_own_one() -> None:
    client = console(origin="https://console.example")
    own = client.post("/change", {"a": "1"}, headers={"origin": "https://console.example"})
    other = client.post("/change", {"a": "1"}, headers={"origin": "http://127.0.0.1:8100"})
    assert (own.status_code, other.status_code) == (HTTPStatus.SEE_OTHER, HTTPStatus.FORBIDDEN)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_other_methods_are_refused(method: str) -> None:
    answer = console().request(method, "/change", headers=OWN)
    assert answer.status_code == HTTPStatus.METHOD_NOT_ALLOWED


def test_a_form_that_is_too_large_is_refused() -> None:
    answer = console().post("/change", {"a": "x" * LARGEST_BODY})
    assert answer.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE


def test_a_form_without_a_length_is_refused() -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"a=1"

    answer = console().request("POST", "/change", content=body(), headers=OWN)
    assert answer.status_code == HTTPStatus.LENGTH_REQUIRED


def test_who_is_not_signed_in_is_sent_to_sign_in() -> None:
    client = console(operator=None)
    page = client.get("/")
    assert page.status_code == HTTPStatus.SEE_OTHER
    assert page.headers["location"] == "https://sign-in.example/"
    update = client.get("/", headers={"hx-request": "true"})
    assert update.status_code == HTTPStatus.UNAUTHORIZED
    assert update.headers["hx-refresh"] == "true"
    change = client.post("/change", {"a": "1"})
    assert change.status_code == HTTPStatus.UNAUTHORIZED


@pytest.mark.parametrize("role", [Role.OPERATOR, Role.PRIVACY])
def test_a_page_needs_its_role(role: Role) -> None:
    answer = console(role=role).get("/")
    assert answer.status_code == HTTPStatus.FORBIDDEN
    assert f"needs the role {role}" in answer.text


@pytest.mark.parametrize(
    ("error", "status", "shown"),
    [
        (NotFound("There is no such thing."), HTTPStatus.NOT_FOUND, "There is no such thing."),
        (WrongInput("Say why."), HTTPStatus.BAD_REQUEST, "Say why."),
        (LedgerUnavailable("secret@db"), HTTPStatus.SERVICE_UNAVAILABLE, "PostgreSQL does not"),
        (ValueError("ada@example.org"), HTTPStatus.INTERNAL_SERVER_ERROR, "The page failed."),
    ],
)
def test_an_error_is_explained_and_quotes_nothing(
    error: Exception, status: HTTPStatus, shown: str
) -> None:
    def fail(_call: Call) -> Page:
        raise error

    answer = console(fail).get("/")
    assert answer.status_code == status
    assert shown in answer.text
    assert "secret@db" not in answer.text
    assert "ada@example.org" not in answer.text
    assert answer.headers["content-security-policy"] == POLICY


def test_who_signs_in_being_away_is_said() -> None:
    answer = console(operator=NoAnswer()).get("/")
    assert answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE


def test_who_has_no_role_is_told_so_and_not_sent_to_sign_in_again() -> None:
    answer = console(operator=NoRole()).get("/")
    assert answer.status_code == HTTPStatus.FORBIDDEN
    assert NO_ROLE in answer.text


@pytest.mark.parametrize("can_sign_out", [True, False])
def test_who_has_no_role_can_sign_out_to_come_back_as_somebody_else(can_sign_out: bool) -> None:
    signed_in = SignedIn(NoRole())
    signed_in.can_sign_out = can_sign_out
    routes = [ConsoleRoute("/", lambda _: Page("error.html"))]
    page = Visitor(create_console(signed_in, routes)).get("/").text
    assert ('action="/sign-out"' in page) is can_sign_out


def test_an_operator_without_a_known_role_is_none() -> None:
    with pytest.raises(NoRole):
        Operator.with_roles("eve", ["admin", "root", None, 1], second_factor=False)
    found = Operator.with_roles("olga", ["operator"], second_factor=True)
    assert found == Operator("olga", frozenset({Role.VIEWER, Role.OPERATOR}), second_factor=True)
