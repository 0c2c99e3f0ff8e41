"""Asking Kratos whose session it is: `GET /sessions/whoami`."""

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeAlias
from urllib.parse import urlsplit

import httpcore
import structlog

from api.sessions.credentials import SessionCredential
from api.sessions.session import KratosSession
from application.json_body import NotJson, decode
from domain.fields import InvalidField
from domain.json_values import Json

LARGEST_ANSWER: Final = 1_048_576
LONGEST_PAUSE: Final = 60
_OK: Final = 200
_UNAUTHORIZED: Final = 401
_FORBIDDEN: Final = 403
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
    """There is a session, and Kratos wants more of the person before it tells whose."""

    redirect_browser_to: str | None


@dataclass(frozen=True, slots=True)
class Unknown:
    """Kratos did not say; it may be asked again after so many seconds."""

    retry_after: int


WhoamiAnswer: TypeAlias = KratosSession | NeedsSecondFactor | Unknown | None
"""None: there is no such session, or the identity is inactive."""


class _UnusableAnswer(Exception):
    """An answer came that tells nothing; the message has no part of it."""


def base_url(url: str) -> str:
    """Kratos' public URL without a slash at its end; raises ValueError for what is none."""
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
        """Raises ValueError for what is no plain http or https URL."""
        self._url = f"{base_url(kratos_public_url)}/sessions/whoami"
        self._cookie_name = cookie_name
        self._timeout = timeout.total_seconds()
        # The pool loses a connection for good when somebody who waits in it for one is cancelled
        # just as it comes: whoever waits, waits here.
        self._free = asyncio.Semaphore(connections)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=ssl_context, max_connections=connections, keepalive_expiry=20
        )

    async def ask(self, credential: SessionCredential, sent: Callable[[], None]) -> WhoamiAnswer:
        """What Kratos says of a cookie or a token, which is all that it is sent; raises nothing.

        `sent` is called when it is about to be asked; the timeout includes the wait until then.
        """
        try:
            async with asyncio.timeout(self._timeout), self._free:
                sent()
                try:
                    return await self._ask(credential)
                except _DROPPED:
                    return await self._ask(credential)
        except _SLOW:
            reason = "it took too long"
        except _NO_ANSWER as error:
            reason = type(error).__name__
        except _UnusableAnswer as error:
            reason = str(error)
        _log.warning("kratos_session_unknown", reason=reason)
        return Unknown(retry_after=1)

    async def aclose(self) -> None:
        """Let go of the connections."""
        await self._pool.aclose()

    async def _ask(self, credential: SessionCredential) -> WhoamiAnswer:
        headers = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "kratos-sync",
            **self._proof(credential),
        }
        async with self._pool.stream("GET", self._url, headers=list(headers.items())) as response:
            if response.status not in (_OK, _UNAUTHORIZED, _FORBIDDEN):
                return _not_now(response)
            return _read(response.status, await _body(response))

    def _proof(self, credential: SessionCredential) -> dict[str, str]:
        if credential.kind == "cookie":
            return {"Cookie": f"{self._cookie_name}={credential.value}"}
        return {"X-Session-Token": credential.value}


async def _body(response: httpcore.Response) -> Json:
    body = bytearray()
    async for chunk in response.aiter_stream():
        body += chunk
        if len(body) > LARGEST_ANSWER:
            raise _UnusableAnswer("its answer is too large")
    try:
        return decode(bytes(body)).value
    except NotJson:
        raise _UnusableAnswer(f"its answer with status {response.status} is not JSON") from None


def _read(status: int, body: Json) -> WhoamiAnswer:
    if not isinstance(body, dict):
        raise _UnusableAnswer(f"its answer with status {status} is no object")
    if status == _OK:
        try:
            session = KratosSession.from_kratos(body)
        except InvalidField as error:
            raise _UnusableAnswer(f"its session is none: {error}") from None
        return session if session.is_active else None
    refusal = body.get("error")
    if not isinstance(refusal, dict):  # a gateway's, perhaps: it knows nothing of sessions
        raise _UnusableAnswer(f"its answer with status {status} is not in its form")
    if status == _UNAUTHORIZED:
        return None
    if refusal.get("id") != _SECOND_FACTOR:
        raise _UnusableAnswer("it forbids the question")
    where = body.get("redirect_browser_to")
    return NeedsSecondFactor(where if isinstance(where, str) else None)


def _not_now(response: httpcore.Response) -> Unknown:
    _log.warning("kratos_session_unknown", reason=f"status {response.status}")
    headers = {name.lower(): text for name, text in response.headers}
    pause = headers.get(b"retry-after", b"")
    seconds = int(pause) if pause.isdigit() and len(pause) < LONGEST_PAUSE else 1
    return Unknown(retry_after=min(max(seconds, 1), LONGEST_PAUSE))
