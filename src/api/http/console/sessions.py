"""Sessions of the console's own, and a limit for wrong tries to begin one."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from http import HTTPStatus
from time import monotonic
from typing import Final

from starlette.requests import HTTPConnection, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from kratos_sync.api.http.console.access import Operator

SESSION_SECONDS: Final = 8 * 3_600.0
IDLE_SECONDS: Final = 30 * 60.0
MOST_SESSIONS: Final = 100
COOKIE: Final = "kratos_sync_console"
TRIES_SECONDS: Final = 60.0
"""Wrong tries are counted for so long."""


@dataclass(slots=True)
class _Session:
    operator: Operator
    ends: float
    used: float


class Sessions:
    """Who is signed in, in memory: all sessions end with the process.

    A session ends `lasts` seconds after it began, or `idle` seconds after it was last used. What a
    page asks for by itself, through htmx, is no use. Of more than MOST_SESSIONS the one that was
    unused for longest ends.
    """

    def __init__(
        self,
        *,
        secure: bool = False,
        lasts: float = SESSION_SECONDS,
        idle: float = SESSION_SECONDS,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """`secure` is whether browsers find the console by https."""
        self.secure = secure
        self._lasts = lasts
        self._idle = idle
        self._clock = clock
        self._sessions: dict[str, _Session] = {}
        self.cookie = self.cookie_name(COOKIE)

    def cookie_name(self, name: str) -> str:
        """The name of a cookie of the console; by https one that no other host can set."""
        return f"__Host-{name}" if self.secure else name

    def begin(self, operator: Operator, request: Request, response: Response) -> None:
        """Sign the operator in, by a cookie of the response that no other site makes use of.

        A session that the request carries ends.
        """
        self._sessions.pop(self._key(request), None)
        while len(self._sessions) >= MOST_SESSIONS:
            del self._sessions[min(self._sessions, key=lambda key: self._sessions[key].used)]
        token, now = secrets.token_urlsafe(32), self._clock()
        self._sessions[digest(token)] = _Session(operator, now + self._lasts, now)
        response.set_cookie(
            self.cookie,
            token,
            max_age=round(self._lasts),
            secure=self.secure,
            httponly=True,
            samesite="strict",
        )

    def operator(self, connection: HTTPConnection) -> Operator | None:
        """Whose session the request carries; None if it carries none, or one that has ended."""
        key, now = self._key(connection), self._clock()
        session = self._sessions.get(key)
        if session is None:
            return None
        if now >= min(session.ends, session.used + self._idle):
            del self._sessions[key]
            return None
        if "hx-request" not in connection.headers:
            session.used = now
        return session.operator

    def sign_out_route(self) -> BaseRoute:
        """`POST /sign-out` ends the session, and leads to the page where people sign in."""

        async def sign_out(request: Request) -> Response:
            self._sessions.pop(self._key(request), None)
            response = RedirectResponse("/sign-in", HTTPStatus.SEE_OTHER)
            response.delete_cookie(
                self.cookie, secure=self.secure, httponly=True, samesite="strict"
            )
            return response

        return Route("/sign-out", sign_out, methods=["POST"])

    def _key(self, connection: HTTPConnection) -> str:
        return digest(connection.cookies.get(self.cookie, ""))


class WrongTries:
    """After `most` wrong tries within TRIES_SECONDS, none is accepted for the rest of it."""

    def __init__(self, most: int, clock: Callable[[], float] = monotonic) -> None:
        self._most = most
        self._clock = clock
        self._times: list[float] = []

    def are_too_many(self) -> bool:
        """Whether no try is accepted now."""
        now = self._clock()
        self._times = [at for at in self._times if now - at < TRIES_SECONDS]
        return len(self._times) >= self._most

    def add(self) -> None:
        """Count one."""
        self._times.append(self._clock())


def digest(token: str) -> str:
    """What is kept of a token, so that looking it up takes the same time whatever is sent."""
    return sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
