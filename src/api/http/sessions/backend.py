"""Starlette's authentication backend for Kratos' sessions."""

import ssl
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Final, Literal, TypeVar
from urllib.parse import unquote_plus, urlencode, urlsplit, urlunsplit

import structlog
from starlette.authentication import AuthCredentials, AuthenticationBackend
from starlette.requests import HTTPConnection

from kratos_sync.api.http.sessions.lookup import SessionCache, SessionLookup
from kratos_sync.api.http.sessions.whoami import (
    KratosAway,
    KratosUser,
    NeedsSecondFactor,
    SecondFactorRequired,
    SessionFunctionFailed,
    Unknown,
    Whoami,
    base_url,
    credential_of,
)
from kratos_sync.application.errors import summary
from kratos_sync.domain.session import KratosSession, no_scopes

Answer = TypeVar("Answer")

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()

AUTHENTICATED: Final = "authenticated"
SECOND_FACTOR: Final = "/self-service/login/browser?aal=aal2"


class KratosSessionBackend(AuthenticationBackend):
    """Authenticates requests by the session cookie or token that they carry.

    The first of these counts, as in Kratos: the header `X-Session-Token`, the cookie,
    `Authorization: Bearer`. Kratos receives that one and nothing else of the request. Without a
    session, with one that has ended, or with an inactive identity, the user is unauthenticated.
    One backend serves one event loop.
    """

    def __init__(
        self,
        kratos_public_url: str,
        *,
        browser_url: str | None = None,
        cookie_name: str = "ory_kratos_session",
        bearer: bool = True,
        required_aal: Literal["aal1", "aal2"] = "aal1",
        scopes: Callable[[KratosSession], Iterable[str]] = no_scopes,
        display_name: Callable[[KratosSession], str] = lambda session: str(session.identity.id),
        return_to: Callable[[HTTPConnection], str | None] = lambda _: None,
        cache_for: timedelta = timedelta(seconds=5),
        cache_entries: int = 10_000,
        timeout: timedelta = timedelta(seconds=5),
        connections: int = 20,
        max_questions: int = 10_000,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """Use the public API of Kratos at this URL; raises ValueError if it is no such URL.

        :param browser_url: Kratos' URL for browsers (its `serve.public.base_url`), where that is
            another, as in a network of containers.
        :param cookie_name: Ory Network's is `ory_session_<slug>`.
        :param bearer: False where bearer tokens are the application's own, which Kratos must not
            receive.
        :param required_aal: aal2 requires a second factor, whatever Kratos' own
            `whoami.required_aal` is.
        :param scopes: the scopes for `requires`, by traits or metadata; "authenticated" is added.
            It is called for each request, on the event loop, and must not block; so is
            `display_name`.
        :param return_to: where Kratos sends a browser after its second factor.
        :param cache_for: how long a logout, or a change of the identity, may go unnoticed.
        :param timeout: for an answer, with the wait for one of the `connections`.
        :param max_questions: the sessions that Kratos is asked about at a time, including those
            that wait for a connection; one more raises KratosAway at once.
        """
        whoami = Whoami(
            kratos_public_url,
            cookie_name,
            timeout=timeout,
            connections=connections,
            ssl_context=ssl_context,
        )
        self._whoami = whoami
        self._second_factor = f"{base_url(browser_url or kratos_public_url)}{SECOND_FACTOR}"
        cache = SessionCache(cache_for, cache_entries)
        self._lookup = SessionLookup(whoami, cache, max_questions, required_aal)
        self._cookie_name = cookie_name
        self._bearer = bearer
        self._scopes = scopes
        self._display_name = display_name
        self._return_to = return_to

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, KratosUser] | None:
        """The user and their scopes; None if there is no session.

        Raises SecondFactorRequired, KratosAway, or SessionFunctionFailed.
        """
        credential = credential_of(conn, self._cookie_name, bearer=self._bearer)
        if credential is None:
            return None
        match await self._lookup.find(credential):
            case None:
                return None
            case NeedsSecondFactor(where):
                raise SecondFactorRequired(_with_return_to(where, self._return_to(conn)))
            case Unknown(retry_after):
                raise KratosAway(retry_after)
            case session if not self._lookup.is_enough(session):
                raise SecondFactorRequired(
                    _with_return_to(self._second_factor, self._return_to(conn))
                )
            case session:
                name = _asked("display_name", lambda: _text(self._display_name(session)))
                scopes = _asked("scopes", lambda: _texts(self._scopes(session)))
                return AuthCredentials([AUTHENTICATED, *scopes]), KratosUser(session, name)

    async def logout_url(self, conn: HTTPConnection, return_to: str | None = None) -> str | None:
        """Where a browser is to go to end the request's session; None if there is none.

        `return_to` is where Kratos sends it afterwards: one of its `allowed_return_urls`. Only the
        session of a cookie ends so. Raises KratosAway.
        """
        credential = credential_of(conn, self._cookie_name, bearer=self._bearer)
        if credential is None or credential.kind != "cookie":
            return None
        match await self._whoami.logout_url(credential, return_to):
            case Unknown(retry_after):
                raise KratosAway(retry_after)
            case where:
                return where

    def drop(self, conn: HTTPConnection) -> None:
        """Drop the request's session from the cache: call it at a logout.

        Other processes have caches of their own, for `cache_for`.
        """
        credential = credential_of(conn, self._cookie_name, bearer=self._bearer)
        if credential is not None:
            self.drop_token(credential.value)

    def drop_token(self, token: str) -> None:
        """Drop the session of this token, or of the cookie with this value, from the cache."""
        self._lookup.drop(token)

    async def aclose(self) -> None:
        """Close the connections, at the end of the application's lifespan."""
        await self._whoami.aclose()


def _asked(function: str, ask: Callable[[], Answer]) -> Answer:
    """What one of the application's functions returns; raises SessionFunctionFailed.

    The error that it raised may quote a person's data, so it is neither logged nor chained.
    """
    try:
        return ask()
    except Exception as error:  # noqa: BLE001  # whatever it is: nobody is let in by halves
        _log.error("session_function_failed", function=function, **summary(error))
    raise SessionFunctionFailed(function)


def _text(given: object) -> str:
    if not isinstance(given, str):
        raise TypeError("it is no text")
    return given


def _texts(given: Iterable[object]) -> list[str]:
    if isinstance(given, str):  # its letters would be scopes
        raise TypeError("it is a text")
    return [_text(each) for each in given]


def _with_return_to(where: str | None, return_to: str | None) -> str | None:
    if where is None or return_to is None:
        return where
    try:
        url = urlsplit(where)
    except ValueError:
        return where
    # Everything else in the URL stays as it is, to the letter.
    given = url.query.split("&") if url.query else []
    kept = [each for each in given if unquote_plus(each.partition("=")[0]) != "return_to"]
    query = "&".join([*kept, urlencode({"return_to": return_to})])
    return urlunsplit(url._replace(query=query))
