"""Signing in by OpenID Connect: at a provider, and then by a session of the console's own."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from urllib.parse import quote, unquote, urlencode

import structlog
from starlette.requests import HTTPConnection, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from kratos_sync.api.http.console.access import NO_ROLE, NoRole, Operator
from kratos_sync.api.http.console.openid_provider import (
    Begun,
    Claims,
    OpenIdProvider,
    ProviderAway,
    SignInRefused,
    known_error,
)
from kratos_sync.api.http.console.rendering import Templates
from kratos_sync.api.http.console.sessions import Sessions, WrongTries

CALLBACK: Final = "/sign-in/callback"
BEGUN_COOKIE: Final = "kratos_sync_sign_in."
"""With the state after it: a cookie for each sign-in that was begun in the browser."""
BEGUN_SECONDS: Final = 600
MOST_TRIES: Final = 60
"""After so many refusals of the provider within a minute, it is not asked for the rest of it."""
LONGEST_NAME: Final = 200
"""As the audit trail keeps it."""
KINDS_OF_FACTORS: Final = (
    frozenset({"pwd", "pin", "kba"}),
    frozenset({"otp", "sms", "tel", "hwk", "swk", "sc", "pop"}),
    frozenset({"face", "fpt", "iris", "retina", "vbm"}),
)
"""Values of `amr` by RFC 8176: what one knows, has, and is."""
OWN_PATH: Final = re.compile(r"/(?![/\\])[!-~]{0,500}")

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ClaimRules:
    """Which claims say who an operator is. A name with dots may lead into a claim's objects."""

    name: str = "sub"
    roles: str = "kratos_sync_roles"
    second_factor_acr: frozenset[str] = frozenset()
    """The values of `acr` that say that there was a second factor."""

    def operator(self, claims: Claims) -> Operator:
        """The operator. Raises NoRole, and SignInRefused if there is no usable name."""
        name = claim(claims, self.name)
        if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= LONGEST_NAME:
            raise SignInRefused(f"the claim {self.name} is no name")
        roles = claim(claims, self.roles)
        acr = claims.get("acr")
        has_acr = isinstance(acr, str) and acr in self.second_factor_acr
        return Operator.with_roles(
            name,
            roles if isinstance(roles, list) else (),
            second_factor=has_acr or has_two_factors(claims.get("amr")),
        )


def claim(claims: Claims, path: str) -> object:
    """The claim of this name, or what its parts lead to; None if there is none."""
    if path in claims:
        return claims[path]
    found: object = claims
    for part in path.split("."):
        if not isinstance(found, Mapping):
            return None
        found = found.get(part)
    return found


def has_two_factors(amr: object) -> bool:
    """Whether these authentication methods are `mfa`, or factors of more than one kind."""
    methods = {each for each in amr if isinstance(each, str)} if isinstance(amr, list) else set()
    kinds = sum(not kind.isdisjoint(methods) for kind in KINDS_OF_FACTORS)
    return "mfa" in methods or kinds > 1


class SignInByOidc:
    """Operators sign in at a provider of OpenID Connect, by the code flow with PKCE.

    What a sign-in needs until the browser is back from the provider is in a cookie of that browser,
    which is sent on the way back (`SameSite=Lax`) and used once. The session's is `Strict`: a
    browser does not send it along when another site leads here. So a page of the console's own
    leads on from there.
    """

    can_sign_out = True

    def __init__(self, provider: OpenIdProvider, sessions: Sessions, rules: ClaimRules) -> None:
        self._provider = provider
        self._sessions = sessions
        self._rules = rules
        self._wrong_tries = WrongTries(MOST_TRIES)

    def routes(self, templates: Templates) -> Sequence[BaseRoute]:
        pages = _Pages(templates)

        async def ask(request: Request) -> Response:
            to = own_path(request.query_params.get("to"))
            if request.headers.get("sec-fetch-site") == "cross-site":
                return pages.lead_on(request, to)  # there may be a session
            return pages.ask(request, to)

        async def start(request: Request) -> Response:
            to = own_path(request.query_params.get("to"))
            try:
                begun = await self._provider.begin()
            except ProviderAway as error:
                return pages.away(request, error)
            response = RedirectResponse(begun.url, HTTPStatus.SEE_OTHER)
            self._remember(begun, to, response)
            return response

        async def callback(request: Request) -> Response:
            cookie = self._begun_cookie(request.query_params.get("state", ""))
            begun = request.cookies.get(cookie, "").split(".")
            if len(begun) != BEGUN_PARTS:
                return pages.refused(request, NOT_BEGUN)
            secret, verifier, to = begun
            response = await self._finish(request, pages, secret, verifier, own_path(unquote(to)))
            response.delete_cookie(
                cookie, secure=self._sessions.secure, httponly=True, samesite="lax"
            )
            return response

        return [
            Route("/sign-in", ask, methods=["GET"]),
            Route("/sign-in/start", start, methods=["GET"]),
            Route(CALLBACK, callback, methods=["GET"]),
            self._sessions.sign_out_route(),
        ]

    async def operator(self, connection: HTTPConnection) -> Operator | None:
        return self._sessions.operator(connection)

    def page(self, connection: HTTPConnection) -> str | None:
        here = connection.url.path
        if connection.url.query:
            here = f"{here}?{connection.url.query}"
        return f"/sign-in?{urlencode({'to': here})}"

    def second_factor_page(self, connection: HTTPConnection) -> str | None:
        return self.page(connection)

    def _begun_cookie(self, state: str) -> str:
        return self._sessions.cookie_name(BEGUN_COOKIE + state)

    def _remember(self, begun: Begun, to: str, response: Response) -> None:
        response.set_cookie(
            self._begun_cookie(begun.state),
            ".".join((begun.secret, begun.verifier, quote(to, safe="").replace(".", "%2E"))),
            max_age=BEGUN_SECONDS,
            secure=self._sessions.secure,
            httponly=True,
            samesite="lax",
        )

    async def _finish(
        self, request: Request, pages: "_Pages", secret: str, verifier: str, to: str
    ) -> Response:
        code, error = map(request.query_params.get, ("code", "error"))
        if not code or error is not None:
            return pages.refused(request, REFUSED, f"the provider answers {known_error(error)}")
        if self._wrong_tries.are_too_many():
            return pages.ask(request, "/", TOO_MANY, HTTPStatus.TOO_MANY_REQUESTS)
        try:
            claims = await self._provider.claims(code, secret=secret, verifier=verifier)
            operator = self._rules.operator(claims)
        except ProviderAway as away:
            return pages.away(request, away)
        except SignInRefused as refusal:
            self._wrong_tries.add()
            return pages.refused(request, REFUSED, str(refusal))
        except NoRole:
            return pages.refused(request, NO_ROLE, "the person has no role")
        response = pages.lead_on(request, to)
        self._sessions.begin(operator, request, response)
        return response


BEGUN_PARTS: Final = 3
NOT_BEGUN: Final = (
    "This sign-in was not begun in this browser, was used already, or is older than ten minutes."
)
REFUSED: Final = "The provider did not sign you in. The console's log names the reason."
TOO_MANY: Final = "Too many sign-ins were refused. Try again in a minute."
AWAY: Final = "The provider that signs operators in does not answer. Try again in a moment."


class _Pages:
    """The pages of a sign-in, which anybody may open."""

    def __init__(self, templates: Templates) -> None:
        self._templates = templates

    def ask(
        self,
        request: Request,
        to: str,
        problem: str | None = None,
        status: HTTPStatus = HTTPStatus.OK,
    ) -> Response:
        context = {"to": to, "problem": problem}
        return self._templates.page(request, None, "sign_in_oidc.html", context, status)

    def lead_on(self, request: Request, to: str) -> Response:
        return self._templates.page(request, None, "lead_on.html", {"to": to})

    def refused(self, request: Request, problem: str, reason: str | None = None) -> Response:
        if reason is not None:
            _log.warning("console_sign_in_refused", reason=reason)
        return self.ask(request, "/", problem, HTTPStatus.FORBIDDEN)

    def away(self, request: Request, error: ProviderAway) -> Response:
        _log.warning("console_provider_away", reason=str(error))
        return self.ask(request, "/", AWAY, HTTPStatus.SERVICE_UNAVAILABLE)


def own_path(path: str | None) -> str:
    """The path, if it is one of the console, and of a page to come to; else that of the first."""
    return path if path is not None and OWN_PATH.fullmatch(path) else "/"
