"""A browser, and a console whose operators sign in at a provider of OpenID Connect."""

from http import HTTPStatus
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import urlencode

import httpx

from kratos_sync.api.http.console.app import Call, ConsoleRoute, Page, create_console
from kratos_sync.api.http.console.oidc import CALLBACK, ClaimRules, SignInByOidc
from kratos_sync.api.http.console.openid_provider import Client, OpenIdProvider
from kratos_sync.api.http.console.sessions import COOKIE, Sessions
from tests.api.http.console.provider import CLIENT_ID, CLIENT_SECRET, Provider
from tests.api.http.console.visiting import ADDRESS, OWN, Visitor


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Browser:
    """A visitor with cookies, of which another site's links do not send those that are strict."""

    def __init__(self, visitor: Visitor) -> None:
        self._visitor = visitor
        self.cookies: dict[str, str] = {}
        self._strict: set[str] = set()

    def open(self, path: str, *, from_elsewhere: bool = False, **headers: str) -> httpx.Response:
        sent = {name: self.cookies[name] for name in self.cookies}
        if from_elsewhere:
            sent = {name: sent[name] for name in sent if name not in self._strict}
        site = "cross-site" if from_elsewhere else "same-origin"
        return self._keep(
            self._visitor.get(path, {**headers, "sec-fetch-site": site, "cookie": _header(sent)})
        )

    def send(self, path: str) -> httpx.Response:
        return self._keep(
            self._visitor.post(path, headers={**OWN, "cookie": _header(self.cookies)})
        )

    def _keep(self, answer: httpx.Response) -> httpx.Response:
        for header in answer.headers.get_list("set-cookie"):
            for name, cookie in SimpleCookie(header).items():
                self.cookies.pop(name, None)
                if cookie["max-age"] != "0":
                    self.cookies[name] = cookie.value
                if cookie["samesite"].lower() == "strict":
                    self._strict.add(name)
        return answer


def _header(cookies: dict[str, str]) -> str:
    return "; ".join(f"{name}={value}" for name, value in cookies.items())


class Console:
    """A console whose operators sign in at the provider."""

    def __init__(self, provider: Provider, **client: Any) -> None:
        self.clock = Clock()
        given: dict[str, Any] = {
            "issuer": provider.issuer,
            "client_id": CLIENT_ID,
            "client_secret": CLIENT_SECRET,
            "redirect_uri": f"{ADDRESS}{CALLBACK}",
        }
        secure = client.pop("secure", False)
        sign_in = SignInByOidc(
            OpenIdProvider(Client(**{**given, **client}), self.clock),
            Sessions(secure=secure, clock=self.clock),
            ClaimRules(),
        )
        app = create_console(
            sign_in,
            [ConsoleRoute(path, _who) for path in ("/", "/failures")],
            origin=ADDRESS,
        )
        self.visitor = Visitor(app)

    def browser(self) -> Browser:
        return Browser(self.visitor)


def _who(call: Call) -> Page:
    operator = call.operator
    text = f"{operator.name}, second factor: {operator.second_factor}"
    return Page("error.html", {"status": HTTPStatus.OK, "text": text, "links": {}})


def lead_back(browser: Browser, to: str = "/") -> str:
    """Begin a sign-in, and return the path that the provider leads back to."""
    begun = browser.open(f"/sign-in/start?{urlencode({'to': to})}")
    assert begun.status_code == HTTPStatus.SEE_OTHER
    answer = httpx.get(begun.headers["location"], verify=False)
    location = str(answer.headers["location"])
    assert location.startswith(f"{ADDRESS}{CALLBACK}?")
    return location.removeprefix(ADDRESS)


def sign_in(browser: Browser, to: str = "/") -> httpx.Response:
    """Sign in as far as the provider lets one; return what the console says then."""
    return browser.open(lead_back(browser, to), from_elsewhere=True)


def is_signed_in(browser: Browser) -> bool:
    return browser.open("/").status_code == HTTPStatus.OK


def assert_refused(browser: Browser, answer: httpx.Response, status: int = 403) -> None:
    """A page says so, with nothing of what was sent in it, and there is no session."""
    assert answer.status_code == status
    assert 'role="alert"' in answer.text
    assert "Traceback" not in answer.text
    assert COOKIE not in browser.cookies
    assert not is_signed_in(browser)
