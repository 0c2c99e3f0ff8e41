"""The user of a session, what may be wrong, and the client of `GET /sessions/whoami`."""

import asyncio
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from http import HTTPStatus
from typing import Final, Literal, TypeAlias, TypeVar
from urllib.parse import urlencode, urlsplit
from uuid import UUID

import httpcore
import structlog
from starlette.authentication import AuthenticationError, BaseUser
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, Response

from kratos_sync.application.json_body import NotJson, decode
from kratos_sync.domain.fields import InvalidField
from kratos_sync.domain.json_values import Json
from kratos_sync.domain.session import KratosSession


class KratosUser(BaseUser):
    """The user of a session: `request.user` of an authenticated request."""

    def __init__(self, session: KratosSession, display_name: str) -> None:
        self.session = session
        self._display_name = display_name

    @property
    def is_authenticated(self) -> bool:
        """True: others are Starlette's UnauthenticatedUser."""
        return True

    @property
    def display_name(self) -> str:
        """The name that the application chose; by default the identity's id."""
        return self._display_name

    @property
    def identity(self) -> str:
        """The identity's id as text, for Starlette; the identity itself is `session.identity`."""
        return str(self.session.identity.id)

    @property
    def id(self) -> UUID:
        """The identity's id: the key of `kratos_identities`."""
        return self.session.identity.id

    def __repr__(self) -> str:
        """The id alone: all else is personal."""
        return f"KratosUser(id={self.id!r})"


class SecondFactorRequired(AuthenticationError):
    """There is a session, and a second factor is required first."""

    def __init__(self, redirect_browser_to: str | None) -> None:
        super().__init__("a second factor is required")
        self.redirect_browser_to = redirect_browser_to
        """Where to send a browser for it, if Kratos said."""


class KratosAway(AuthenticationError):
    """The session is unknown: Kratos is unavailable, slow, busy, or gave an unusable answer."""

    def __init__(self, retry_after: int) -> None:
        super().__init__("the session cannot be checked now")
        self.retry_after = retry_after
        """In seconds."""


class SessionFunctionFailed(AuthenticationError):
    """The application's `scopes` or `display_name` failed: what the person may do is unknown."""

    def __init__(self, function: str) -> None:
        super().__init__(f"{function} failed for this session")


def session_error_response(conn: HTTPConnection, error: Exception) -> Response:  # noqa: ARG001
    """For `AuthenticationMiddleware(on_error=…)`: 403, 503, 500, or 401 for any other error.

    The body has the form of Kratos' own errors, and no error's text. (Starlette closes a websocket
    instead.)
    """
    status, message = HTTPStatus.UNAUTHORIZED, "this could not be authorized"
    details: dict[str, Json] = {}
    body: dict[str, Json] = {}
    headers = {"Cache-Control": "no-store"}
    match error:
        case SecondFactorRequired(redirect_browser_to=where):
            status, message = HTTPStatus.FORBIDDEN, "a second factor is required"
            details["id"] = _SECOND_FACTOR
            if where is not None:
                body["redirect_browser_to"] = where
        case KratosAway(retry_after=seconds):
            status, message = HTTPStatus.SERVICE_UNAVAILABLE, "try again later"
            headers["Retry-After"] = str(seconds)
        case SessionFunctionFailed():
            status, message = HTTPStatus.INTERNAL_SERVER_ERROR, "something went wrong"
    body["error"] = {**details, "code": status, "status": status.phrase, "message": message}
    return JSONResponse(body, status, headers)


LONGEST: Final = 8_192
# Characters that a header may carry; browsers send cookies of up to 4 KiB.
_VALID: Final = re.compile(rf"[\x21-\x3a\x3c-\x7e]{{1,{LONGEST}}}")


@dataclass(frozen=True, slots=True)
class SessionCredential:
    """A session's cookie or token."""

    kind: Literal["cookie", "token"]
    value: str = field(repr=False)


def credential_of(
    conn: HTTPConnection, cookie_name: str, *, bearer: bool
) -> SessionCredential | None:
    """The one that Kratos would use: `X-Session-Token`, then the cookie, then a bearer token.

    None if there is none, or if the first of them cannot be one. Of cookies of the same name the
    first counts, as in Kratos.
    """
    if token := conn.headers.get("x-session-token"):
        return _credential("token", token)
    pairs = (pair for header in conn.headers.getlist("cookie") for pair in header.split(";"))
    for name, _, value in (pair.partition("=") for pair in pairs):
        if name.strip() == cookie_name:
            return _credential("cookie", value)
    scheme, _, token = conn.headers.get("authorization", "").partition(" ")
    if bearer and scheme.lower() == "bearer":
        return _credential("token", token)
    return None


def _credential(kind: Literal["cookie", "token"], value: str) -> SessionCredential | None:
    value = value.strip()
    return SessionCredential(kind, value) if _VALID.fullmatch(value) else None


Answer = TypeVar("Answer")

LOGOUT: Final = "/self-service/logout/browser"
LARGEST_ANSWER: Final = 1_048_576
LONGEST_PAUSE: Final = 60
_SECOND_FACTOR: Final = "session_aal2_required"
_SLOW: Final = (TimeoutError, httpcore.TimeoutException)
# An idle connection that the other side closed just now; asking twice does no harm.
_DROPPED: Final = (httpcore.RemoteProtocolError, httpcore.ReadError, httpcore.WriteError)
_NO_ANSWER: Final = (
    OSError,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ConnectionNotAvailable,
)

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class NeedsSecondFactor:
    """There is a session, and Kratos requires a second factor before it shows it."""

    redirect_browser_to: str | None


@dataclass(frozen=True, slots=True)
class Unknown:
    """Kratos gave no answer; it may be asked again after so many seconds."""

    retry_after: int


WhoamiAnswer: TypeAlias = KratosSession | NeedsSecondFactor | Unknown | None
"""None: there is no such session, or the identity is inactive."""


class _UnusableAnswer(Exception):
    """The answer cannot be used; the message has no part of it."""


def base_url(url: str) -> str:
    """Kratos' public URL without a slash at its end; raises ValueError if it is none."""
    parts = urlsplit(url)
    extras = parts.username or parts.password or parts.query or parts.fragment
    if parts.scheme not in ("http", "https") or not parts.hostname or extras:
        raise ValueError("Kratos' public URL is http(s)://host[:port][/path], and no more")
    return url.rstrip("/")


class Whoami:
    """Kratos' public API, for one event loop.

    It reads no proxy from the environment, follows no redirect and keeps no cookie.
    """

    def __init__(
        self,
        kratos_public_url: str,
        cookie_name: str,
        *,
        timeout: timedelta,
        connections: int,
        ssl_context: ssl.SSLContext | None,
    ) -> None:
        """Raises ValueError if the URL is no plain http or https URL."""
        self._url = base_url(kratos_public_url)
        self._cookie_name = cookie_name
        self._timeout = timeout.total_seconds()
        # The pool leaks a connection when a task that waits for one is cancelled just as it comes,
        # so tasks wait here.
        self._free = asyncio.Semaphore(connections)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=ssl_context, max_connections=connections, keepalive_expiry=20
        )

    async def ask(self, credential: SessionCredential, sent: Callable[[], None]) -> WhoamiAnswer:
        """Return Kratos' answer for a cookie or a token; errors are Unknown.

        `sent` is called just before the request; the timeout includes the wait until then.
        """
        return await self._ask("/sessions/whoami", credential, _session_in, sent)

    async def logout_url(
        self, credential: SessionCredential, return_to: str | None
    ) -> str | Unknown | None:
        """Return where a browser ends its session; None if there is none. Errors are Unknown."""
        query = "" if return_to is None else f"?{urlencode({'return_to': return_to})}"
        return await self._ask(f"{LOGOUT}{query}", credential, _logout_url_in, lambda: None)

    async def aclose(self) -> None:
        await self._pool.aclose()

    async def _ask(
        self,
        path: str,
        credential: SessionCredential,
        read: Callable[[int, Json], Answer],
        sent: Callable[[], None],
    ) -> Answer | Unknown:
        try:
            async with asyncio.timeout(self._timeout), self._free:
                sent()
                try:
                    return await self._get(path, credential, read)
                except _DROPPED:
                    return await self._get(path, credential, read)
        except _SLOW:
            reason = "it took too long"
        except _NO_ANSWER as error:
            reason = type(error).__name__
        except _UnusableAnswer as error:
            reason = str(error)
        _log.warning("kratos_session_unknown", reason=reason)
        return Unknown(retry_after=1)

    async def _get(
        self, path: str, credential: SessionCredential, read: Callable[[int, Json], Answer]
    ) -> Answer | Unknown:
        headers = [
            ("Accept", "application/json"),
            ("Accept-Encoding", "identity"),
            ("User-Agent", "kratos-sync"),
            ("Cookie", f"{self._cookie_name}={credential.value}")
            if credential.kind == "cookie"
            else ("X-Session-Token", credential.value),
        ]
        async with self._pool.stream("GET", self._url + path, headers=headers) as response:
            if response.status not in (
                HTTPStatus.OK,
                HTTPStatus.UNAUTHORIZED,
                HTTPStatus.FORBIDDEN,
            ):
                return _try_later(response)
            return read(response.status, await _body_of(response))


async def _body_of(response: httpcore.Response) -> Json:
    body = bytearray()
    async for chunk in response.aiter_stream():
        body += chunk
        if len(body) > LARGEST_ANSWER:
            raise _UnusableAnswer("its answer is too large")
    try:
        return decode(bytes(body)).value
    except NotJson:
        raise _UnusableAnswer(f"its answer with status {response.status} is not JSON") from None


def _session_in(status: int, body: Json) -> WhoamiAnswer:
    if not isinstance(body, dict):
        raise _UnusableAnswer(f"its answer with status {status} is no object")
    if status == HTTPStatus.OK:
        try:
            session = KratosSession.from_kratos(body)
        except InvalidField as error:
            raise _UnusableAnswer(f"its session is none: {error}") from None
        return session if session.is_active else None
    refusal = body.get("error")
    if not isinstance(refusal, dict):  # a gateway's, perhaps: it knows nothing of sessions
        raise _UnusableAnswer(f"its answer with status {status} is not in its form")
    if status == HTTPStatus.UNAUTHORIZED:
        return None
    if refusal.get("id") != _SECOND_FACTOR:
        raise _UnusableAnswer("it forbids the question")
    where = body.get("redirect_browser_to")
    return NeedsSecondFactor(where if isinstance(where, str) else None)


def _logout_url_in(status: int, body: Json) -> str | None:
    if status == HTTPStatus.UNAUTHORIZED:
        return None
    where = body.get("logout_url") if isinstance(body, dict) else None
    if status != HTTPStatus.OK or not isinstance(where, str):
        raise _UnusableAnswer(f"its answer with status {status} has no URL to log out")
    return where


def _try_later(response: httpcore.Response) -> Unknown:
    _log.warning("kratos_session_unknown", reason=f"status {response.status}")
    headers = {name.lower(): text for name, text in response.headers}
    pause = headers.get(b"retry-after", b"")
    seconds = int(pause) if pause.isdigit() and len(pause) < LONGEST_PAUSE else 1
    return Unknown(retry_after=min(max(seconds, 1), LONGEST_PAUSE))
