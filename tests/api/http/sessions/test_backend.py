"""An application on Starlette knows who calls."""

import asyncio
import json
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from starlette.applications import Starlette
from starlette.authentication import requires
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import Message
from starlette.websockets import WebSocket
from structlog.testing import capture_logs

from kratos_sync.api.http.sessions import (
    KratosSession,
    KratosSessionBackend,
    backend,
    session_error_response,
)
from kratos_sync.api.http.sessions.whoami import KratosAway
from tests.api.http.sessions.kratos_server import (
    COOKIE,
    INACTIVE_TOKEN,
    TOKEN,
    TWO_FACTOR_TOKEN,
    Answer,
    KratosServer,
    session,
)
from tests.waiting import DEADLINE_SECONDS, until

VERIFIED = "479ec915-8030-4988-a623-3e10904c1cd0"
AS_COOKIE = {"Cookie": f"theme=dark; ory_kratos_session={COOKIE}; other=secret"}
AS_TOKEN = {"X-Session-Token": TOKEN}
AS_BEARER = {"Authorization": f"bearer {TOKEN}"}


def scopes(session: KratosSession) -> list[str]:
    public = session.identity.metadata_public
    return ["admin"] if isinstance(public, dict) and public.get("role") == "admin" else []


async def who(request: Request) -> Response:
    user = request.user
    return JSONResponse({"id": user.identity, "name": user.display_name, "is": str(user)})


@requires("admin")
async def admin(request: Request) -> Response:
    return JSONResponse(sorted(request.auth.scopes))


@requires("authenticated")
async def talk(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(websocket.user.identity)
    await websocket.close()


class Application:
    """A Starlette application whose sessions are the given Kratos'."""

    def __init__(self, url: str, **options: Any) -> None:
        timeout = timedelta(seconds=DEADLINE_SECONDS)
        options = {"cache_for": timedelta(), "scopes": scopes, "timeout": timeout, **options}
        self.backend = KratosSessionBackend(url, **options)
        self.app = Starlette(
            routes=[
                Route("/who", who),
                Route("/admin", admin),
                Route("/logout", self.logout),
                WebSocketRoute("/talk", talk),
            ],
            middleware=[
                Middleware(
                    AuthenticationMiddleware, backend=self.backend, on_error=session_error_response
                )
            ],
        )

    async def logout(self, request: Request) -> Response:
        self.backend.drop(request)
        return Response()

    def get(self, path: str, headers: Mapping[str, str]) -> httpx.Response:
        return self.get_all([(path, headers)])[0]

    def get_all(
        self, calls: Sequence[tuple[str, Mapping[str, str]]], *, at_once: bool = False
    ) -> list[httpx.Response]:
        async def run() -> list[httpx.Response]:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                asking = [client.get(path, headers=headers) for path, headers in calls]
                try:
                    if at_once:
                        return await asyncio.gather(*asking)
                    return [await each for each in asking]
                finally:
                    await self.backend.aclose()

        return asyncio.run(run())


@pytest.mark.parametrize("proof", [AS_COOKIE, AS_TOKEN, AS_BEARER])
def test_a_request_with_a_session_is_authenticated(
    kratos: KratosServer, proof: dict[str, str]
) -> None:
    answer = Application(kratos.url).get("/who", proof)
    assert answer.json() == {
        "id": VERIFIED,
        "name": VERIFIED,
        "is": f"KratosUser(id={UUID(VERIFIED)!r})",
    }
    assert kratos.paths == ["/sessions/whoami"]


@pytest.mark.parametrize("proof", [AS_COOKIE, AS_TOKEN, AS_BEARER])
def test_nothing_but_the_session_is_passed_on(kratos: KratosServer, proof: dict[str, str]) -> None:
    Application(kratos.url).get("/who", {**proof, "X-Forwarded-For": "192.0.2.1", "X-Secret": "s"})
    (call,) = kratos.calls
    shown = (
        {"cookie": f"ory_kratos_session={COOKIE}"}
        if proof is AS_COOKIE
        else {"x-session-token": TOKEN}
    )
    assert call == {
        "host": kratos.url.removeprefix("http://"),
        "accept": "application/json",
        "accept-encoding": "identity",
        "user-agent": "kratos-sync",
        **shown,
    }


def test_a_session_has_the_fields_of_kratos_answer(kratos: KratosServer) -> None:
    seen = []
    Application(kratos.url, scopes=lambda shown: seen.append(shown) or []).get("/who", AS_COOKIE)
    (shown,) = seen
    assert shown.id == UUID("b6adee81-42d5-4579-a9b7-1a9fc907d603")
    assert shown.identity.traits == {"email": "verified@example.org"}
    assert (shown.aal, shown.methods, shown.is_active) == ("aal1", ("password",), True)
    assert shown.authenticated_at == datetime(2026, 11, 23, 3, 25, 32, 437297, tzinfo=UTC)
    assert shown.expires_at == datetime(2126, 11, 24, 3, 25, 32, 437297, tzinfo=UTC)
    assert "example.org" not in repr(shown)


def test_an_application_may_name_people(kratos: KratosServer) -> None:
    application = Application(kratos.url, display_name=lambda shown: shown.identity.traits["email"])
    assert application.get("/who", AS_COOKIE).json()["name"] == "verified@example.org"


@pytest.mark.parametrize(
    "proof",
    [
        {},
        {"Cookie": "theme=dark; xory_kratos_session=a"},
        {"Cookie": "ory_kratos_session="},
        {"Authorization": "Basic YTpi"},
        {"X-Session-Token": "two words"},
        {"X-Session-Token": "x" * 9_000},
    ],
)
def test_without_a_credential_kratos_is_not_asked(
    kratos: KratosServer, proof: dict[str, str]
) -> None:
    assert Application(kratos.url).get("/who", proof).json()["id"] == ""
    assert kratos.calls == []


@pytest.mark.parametrize("token", ["ory_st_nonsense", INACTIVE_TOKEN])
def test_a_session_that_kratos_does_not_accept_is_unauthenticated(
    kratos: KratosServer, token: str
) -> None:
    application = Application(kratos.url)
    who, admin = application.get_all(
        [("/who", {"X-Session-Token": token}), ("/admin", {"X-Session-Token": token})]
    )
    assert (who.status_code, who.json()["id"]) == (200, "")
    assert admin.status_code == 403


@pytest.mark.parametrize(
    "changes", [{"active": False}, {"identity": {**session()["identity"], "state": "inactive"}}]
)
def test_an_inactive_session_is_unauthenticated(
    kratos: KratosServer, changes: dict[str, Any]
) -> None:
    kratos.answers = [Answer(200, json.dumps(session(**changes)).encode())]
    assert Application(kratos.url).get("/who", AS_TOKEN).json()["id"] == ""


def test_scopes_come_from_the_identity(kratos: KratosServer) -> None:
    application = Application(kratos.url)
    identity = {**session()["identity"], "metadata_public": {"role": "admin"}}
    kratos.answers = [Answer(200, json.dumps(session(identity=identity)).encode())]
    admin, other = application.get_all([("/admin", AS_COOKIE), ("/admin", AS_COOKIE)])
    assert admin.json() == ["admin", "authenticated"]
    assert other.status_code == 403


def test_a_second_factor_that_is_wanted_is_403_with_where_to_go(kratos: KratosServer) -> None:
    answer = Application(kratos.url).get("/who", {"X-Session-Token": TWO_FACTOR_TOKEN})
    assert answer.status_code == 403
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert body["redirect_browser_to"] == (
        "http://127.0.0.1:4433/self-service/login/browser?aal=aal2"
    )
    assert (body["error"]["id"], body["error"]["code"]) == ("session_aal2_required", 403)


def test_an_application_may_want_a_second_factor_where_kratos_does_not(
    kratos: KratosServer,
) -> None:
    application = Application(
        kratos.url, required_aal="aal2", return_to=lambda _: "https://app.test/"
    )
    once = {**session(), "authenticator_assurance_level": "aal1"}
    twice = {**session(), "authenticator_assurance_level": "aal2"}
    kratos.answers = [Answer(200, json.dumps(each).encode()) for each in (once, twice)]
    other = {"X-Session-Token": "another"}
    refused, taken = application.get_all([("/who", AS_COOKIE), ("/who", other)])
    assert refused.status_code == 403
    assert refused.json()["redirect_browser_to"] == (
        f"{kratos.url}/self-service/login/browser?aal=aal2&return_to=https%3A%2F%2Fapp.test%2F"
    )
    assert taken.status_code == 200


def test_the_way_to_the_second_factor_may_lead_back(kratos: KratosServer) -> None:
    application = Application(kratos.url, return_to=lambda conn: f"https://app.test{conn.url.path}")
    answer = application.get("/who", {"X-Session-Token": TWO_FACTOR_TOKEN})
    assert answer.json()["redirect_browser_to"] == (
        "http://127.0.0.1:4433/self-service/login/browser"
        "?aal=aal2&return_to=https%3A%2F%2Fapp.test%2Fwho"
    )


def test_a_browser_is_sent_to_where_it_finds_kratos_and_not_to_where_we_ask(
    kratos: KratosServer,
) -> None:
    application = Application(
        kratos.url, required_aal="aal2", browser_url="https://auth.example.org/kratos/"
    )
    once = {**session(), "authenticator_assurance_level": "aal1"}
    kratos.answers = [Answer(200, json.dumps(once).encode())]
    assert application.get("/who", AS_COOKIE).json()["redirect_browser_to"] == (
        "https://auth.example.org/kratos/self-service/login/browser?aal=aal2"
    )
    assert kratos.paths == ["/sessions/whoami"]


def test_a_second_factor_takes_effect_at_once(kratos: KratosServer) -> None:
    application = Application(kratos.url, required_aal="aal2", cache_for=timedelta(minutes=1))
    kratos.answers = [
        Answer(200, json.dumps({**session(), "authenticator_assurance_level": aal}).encode())
        for aal in ("aal1", "aal2")
    ]
    answers = application.get_all([("/who", AS_COOKIE)] * 3)
    assert [answer.status_code for answer in answers] == [403, 200, 200]
    assert len(kratos.calls) == 2


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("?aal=aal2&flow=&x", "?aal=aal2&flow=&x&"),
        (
            "?aal=aal2&a=%2f%20+;b=1&return_to=&return%5Fto=https%3A%2F%2Fx",
            "?aal=aal2&a=%2f%20+;b=1&",
        ),
        ("?return_to", "?"),
        ("", "?"),
    ],
)
def test_what_else_kratos_put_into_the_way_stays_as_it_is(
    kratos: KratosServer, given: str, kept: str
) -> None:
    where = f"https://auth.example.org/login{given}"
    said = {"error": {"id": "session_aal2_required"}, "redirect_browser_to": where}
    kratos.answers = [Answer(403, json.dumps(said).encode())]
    application = Application(kratos.url, return_to=lambda _: "https://app.test/?a=&b=1")
    assert application.get("/who", AS_COOKIE).json()["redirect_browser_to"] == (
        f"https://auth.example.org/login{kept}return_to=https%3A%2F%2Fapp.test%2F%3Fa%3D%26b%3D1"
    )


@pytest.mark.parametrize(
    ("said", "retry_after"),
    [
        (Answer(500, b"{}"), "1"),
        (Answer(502, b"<html>"), "1"),
        (Answer(429, b"{}", {"Retry-After": "7"}), "7"),
        (Answer(503, b"{}", {"Retry-After": "999"}), "60"),
        (Answer(429, b"{}", {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}), "1"),
        (Answer(302, b"", {"Location": "/elsewhere"}), "1"),
        (Answer(404, b"{}"), "1"),
        (Answer(200, b"<html>verified@example.org"), "1"),
        (Answer(200, b"[]"), "1"),
        (Answer(200, json.dumps(session(identity=None)).encode()), "1"),
        (Answer(200, json.dumps(session(id="")).encode()), "1"),
        (Answer(200, json.dumps(session(more="x" * 1_100_000)).encode()), "1"),
        (Answer(401, b"<html>please log in to this proxy"), "1"),
        (Answer(401, b"{}"), "1"),
        (Answer(403, b'{"error": {"id": "something_else"}}'), "1"),
    ],
)
def test_without_an_answer_of_kratos_no_request_passes_as_unauthenticated(
    kratos: KratosServer, said: Answer, retry_after: str
) -> None:
    kratos.answers = [said]
    with capture_logs() as logs:
        answer = Application(kratos.url).get("/who", AS_COOKIE)
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == retry_after
    assert answer.json()["error"]["code"] == 503
    assert [line["event"] for line in logs] == ["kratos_session_unknown"]
    assert not [s for s in (COOKIE, "verified@", "html") if s in str(logs) + answer.text]
    assert kratos.paths == ["/sessions/whoami"]


def test_when_kratos_is_away_it_is_503() -> None:
    with capture_logs() as logs:
        answer = Application("http://127.0.0.1:9").get("/who", AS_TOKEN)
    assert answer.status_code == 503
    assert logs[0]["reason"] == "ConnectError"


def test_when_kratos_is_slow_it_is_503(kratos: KratosServer) -> None:
    kratos.go.clear()
    application = Application(kratos.url, timeout=timedelta(milliseconds=50))
    with capture_logs() as logs:
        answer = application.get("/who", AS_TOKEN)
    assert answer.status_code == 503
    assert logs[0]["reason"] == "it took too long"


def test_a_connection_that_was_just_closed_is_no_reason_to_fail(kratos: KratosServer) -> None:
    gone = Answer(200, b"", hangs_up=True)
    kratos.answers = [gone]
    assert Application(kratos.url).get("/who", AS_TOKEN).json()["id"] == VERIFIED
    kratos.answers = [gone, gone]
    assert Application(kratos.url).get("/who", AS_TOKEN).status_code == 503


def test_a_cookie_that_kratos_sets_is_not_sent_with_the_next_persons_question(
    kratos: KratosServer,
) -> None:
    shown = json.dumps(session()).encode()
    cookie = {"Set-Cookie": f"ory_kratos_session={COOKIE}; Path=/"}
    kratos.answers = [Answer(200, shown, cookie)]
    Application(kratos.url).get_all([("/who", AS_TOKEN), ("/who", {"X-Session-Token": "other"})])
    assert [call.get("cookie") for call in kratos.calls] == [None, None]


def test_no_proxy_is_read_from_the_environment(
    kratos: KratosServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    assert Application(kratos.url).get("/who", AS_TOKEN).json()["id"] == VERIFIED


def test_the_token_counts_before_the_cookie_and_the_bearer_token_last(kratos: KratosServer) -> None:
    application = Application(kratos.url)
    application.get_all(
        [
            ("/who", {**AS_COOKIE, "X-Session-Token": "mine", "Authorization": "Bearer b"}),
            ("/who", {**AS_COOKIE, "Authorization": "Bearer b"}),
        ]
    )
    assert [(c.get("x-session-token"), c.get("cookie")) for c in kratos.calls] == [
        ("mine", None),
        (None, f"ory_kratos_session={COOKIE}"),
    ]


def test_bearer_tokens_of_the_applications_own_stay_with_it(kratos: KratosServer) -> None:
    Application(kratos.url, bearer=False).get("/who", AS_BEARER)
    assert kratos.calls == []


def test_the_cookie_may_have_another_name(kratos: KratosServer) -> None:
    cookies = "ory_kratos_session=a; ory_session_slug=first=; ory_session_slug=second"
    Application(kratos.url, cookie_name="ory_session_slug").get("/who", {"Cookie": cookies})
    assert kratos.calls[0]["cookie"] == "ory_session_slug=first="


def test_a_session_is_cached_until_it_is_dropped(kratos: KratosServer) -> None:
    application = Application(kratos.url, cache_for=timedelta(minutes=1))
    visits = [("/who", AS_COOKIE), ("/who", AS_COOKIE), ("/logout", AS_COOKIE), ("/who", AS_COOKIE)]
    answers = application.get_all(visits)
    assert [answer.status_code for answer in answers] == [200] * 4
    assert len(kratos.calls) == 2


def logout_url(url: str, headers: Mapping[str, str], return_to: str | None = None) -> str | None:
    """Where the backend sends a browser with these headers to end its session."""

    async def ask() -> str | None:
        asked = KratosSessionBackend(url)
        raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        try:
            return await asked.logout_url(
                HTTPConnection({"type": "http", "headers": raw}), return_to
            )
        finally:
            await asked.aclose()

    return asyncio.run(ask())


def test_a_browser_logs_out_where_kratos_says_for_its_cookie(kratos: KratosServer) -> None:
    where = "https://kratos.example/self-service/logout?token=of-no-worth"
    kratos.answers = [Answer(200, json.dumps({"logout_url": where}).encode())]
    assert logout_url(kratos.url, AS_COOKIE, "https://acme.example/?a=1") == where
    assert kratos.paths == [
        "/self-service/logout/browser?return_to=https%3A%2F%2Facme.example%2F%3Fa%3D1"
    ]
    assert kratos.calls[0]["cookie"] == f"ory_kratos_session={COOKIE}"


def test_without_a_cookie_there_is_nothing_that_a_browser_could_log_out(
    kratos: KratosServer,
) -> None:
    assert logout_url(kratos.url, {}) is None
    assert logout_url(kratos.url, AS_TOKEN) is None
    assert kratos.paths == []


def test_a_session_that_has_ended_needs_no_logout(kratos: KratosServer) -> None:
    assert logout_url(kratos.url, {"Cookie": "ory_kratos_session=ended"}) is None


@pytest.mark.parametrize("body", [b"{}", b"[]", b'{"logout_url": 1}', b"<html>"])
def test_an_answer_without_a_url_to_log_out_is_none(kratos: KratosServer, body: bytes) -> None:
    kratos.answers = [Answer(200, body)]
    with pytest.raises(KratosAway):
        logout_url(kratos.url, AS_COOKIE)


def test_an_unknown_session_is_looked_up_again(kratos: KratosServer) -> None:
    application = Application(kratos.url, cache_for=timedelta(minutes=1))
    application.get_all([("/who", {"X-Session-Token": "soon"})] * 2)
    assert len(kratos.calls) == 2


def test_requests_of_one_person_at_one_time_share_a_question(kratos: KratosServer) -> None:
    application = Application(kratos.url)
    calls = [("/who", AS_COOKIE)] * 8 + [("/who", AS_TOKEN)] * 8
    answers = application.get_all(calls, at_once=True)
    assert {answer.json()["id"] for answer in answers} == {VERIFIED}
    assert len(kratos.calls) == 2


def test_when_too_many_questions_are_under_way_it_is_503(kratos: KratosServer) -> None:
    application = Application(kratos.url, max_questions=1)
    calls = [("/who", {"X-Session-Token": f"token{n}"}) for n in range(3)]
    answers = application.get_all(calls, at_once=True)
    assert sorted(answer.status_code for answer in answers) == [200, 503, 503]
    assert len(kratos.calls) == 1


def test_many_strangers_at_once_wait_for_their_answer(kratos: KratosServer) -> None:
    kratos.go.clear()
    asked = KratosSessionBackend(kratos.url, connections=4, timeout=timedelta(minutes=4))
    tokens = [b"token%d" % number for number in range(600)]

    async def everybody_comes() -> list[object]:
        try:
            return await asyncio.gather(*(asked.authenticate(with_token(each)) for each in tokens))
        finally:
            await asked.aclose()

    def answer_when_every_connection_is_taken() -> None:
        until(lambda: len(kratos.calls) == 4)
        kratos.go.set()

    answering = threading.Thread(target=answer_when_every_connection_is_taken)
    answering.start()
    assert asyncio.run(everybody_comes()) == [None] * len(tokens)
    answering.join()
    assert len(kratos.calls) == len(tokens)


def with_token(token: bytes) -> HTTPConnection:
    return HTTPConnection({"type": "http", "headers": [(b"x-session-token", token)]})


@pytest.mark.parametrize(
    ("proof", "said"),
    [
        (AS_COOKIE, ["websocket.accept", "websocket.send", "websocket.close"]),
        ({}, ["websocket.close"]),
        ({"X-Session-Token": TWO_FACTOR_TOKEN}, ["websocket.close"]),
    ],
)
def test_websockets_are_authenticated_too(
    kratos: KratosServer, proof: dict[str, str], said: list[str]
) -> None:
    sent = asyncio.run(_talk(Application(kratos.url), proof))
    assert [message["type"] for message in sent] == said
    assert [each["text"] for each in sent if each["type"] == "websocket.send"] in ([VERIFIED], [])


async def _talk(application: Application, proof: Mapping[str, str]) -> list[Message]:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(name.lower().encode(), text.encode()) for name, text in proof.items()]
    scope = {"type": "websocket", "path": "/talk", "headers": headers, "query_string": b""}
    await application.app(scope, receive, send)
    await application.backend.aclose()
    return sent


@pytest.mark.parametrize(
    "url",
    [
        "",
        "kratos:4433",
        "ftp://kratos",
        "http://",
        "http://ada:pw@kratos",
        "http://kratos?x=1",
        "http://kratos#x",
    ],
)
def test_a_url_that_is_none_is_refused_without_quoting_it(url: str) -> None:
    with pytest.raises(ValueError, match="public URL") as refused:
        KratosSessionBackend(url)
    assert "pw" not in str(refused.value)
    if url:
        with pytest.raises(ValueError, match="public URL"):
            KratosSessionBackend("http://kratos:4433", browser_url=url)


def test_kratos_may_live_below_a_path(kratos: KratosServer) -> None:
    Application(f"{kratos.url}/.ory/kratos/public/").get("/who", AS_TOKEN)
    assert kratos.paths == ["/.ory/kratos/public/sessions/whoami"]


def test_any_other_error_is_401_without_its_text() -> None:
    answer = session_error_response(None, LookupError("ada@example.org"))  # type: ignore[arg-type]
    assert answer.status_code == 401
    assert b"ada" not in bytes(answer.body)


def test_a_url_of_kratos_that_is_none_is_left_as_it_is() -> None:
    assert backend._with_return_to("http://[bad/", "https://app.example.org/") == "http://[bad/"
