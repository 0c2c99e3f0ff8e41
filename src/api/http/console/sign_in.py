"""Ways to sign in: a session of Kratos, a proxy in front, or a link that was printed.

OpenID Connect is in `oidc`.
"""

import secrets
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from http import HTTPStatus
from ipaddress import IPv4Network, IPv6Network, ip_address
from time import monotonic
from typing import Final, Protocol
from urllib.parse import urlencode

import structlog
from starlette.authentication import AuthCredentials, BaseUser
from starlette.requests import HTTPConnection, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from kratos_sync.api.http.console.access import Operator, SecondFactorNeeded
from kratos_sync.api.http.console.rendering import Templates
from kratos_sync.api.http.console.sessions import Sessions, WrongTries, digest
from kratos_sync.api.http.sessions.whoami import KratosAway, KratosUser, SecondFactorRequired
from kratos_sync.domain.session import KratosSession

ROLES_FIELD: Final = "kratos_sync_roles"
"""The list of roles in an identity's `metadata_public`, which administrators alone can write."""
LINK_SECONDS: Final = 15 * 60.0
MOST_TRIES: Final = 10
"""After so many wrong links within a minute, no link is accepted for the rest of it."""
NEXT_LINK_SECONDS: Final = 5.0
"""The shortest time from one link to the next."""

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()


class NoAnswer(Exception):
    """Who keeps the operators' sessions does not answer."""


class SignIn(Protocol):
    """A way to find out who sends a request."""

    can_sign_out: bool
    """Whether it has a page `/sign-out` for a form without fields."""

    def routes(self, templates: Templates) -> Sequence[BaseRoute]:
        """Pages of its own, which anybody may open."""

    async def operator(self, connection: HTTPConnection) -> Operator | None:
        """The operator who sends it; None if nobody is signed in.

        Raises NoAnswer, NoRole and SecondFactorNeeded.
        """

    def page(self, connection: HTTPConnection) -> str | None:
        """The URL of the page where people sign in; None if there is none to offer."""

    def second_factor_page(self, connection: HTTPConnection) -> str | None:
        """The URL of the page where who is signed in gives a second factor, likewise."""


def roles_in_metadata(session: KratosSession) -> Iterable[object]:
    """The roles that an administrator gave an identity."""
    metadata = session.identity.metadata_public
    roles = metadata.get(ROLES_FIELD) if isinstance(metadata, Mapping) else None
    return roles if isinstance(roles, list) else ()


class KratosSessions(Protocol):
    """Knows whose session a request carries, as `KratosSessionBackend` does."""

    async def authenticate(
        self, conn: HTTPConnection
    ) -> tuple[AuthCredentials, BaseUser] | None: ...

    async def logout_url(
        self, conn: HTTPConnection, return_to: str | None = None
    ) -> str | None: ...

    def drop(self, conn: HTTPConnection) -> None: ...


class SignInByKratos:
    """Operators are identities of Kratos: each request carries its session."""

    can_sign_out = True

    def __init__(
        self,
        backend: KratosSessions,
        browser_url: str,
        roles: Callable[[KratosSession], Iterable[object]] = roles_in_metadata,
        *,
        origin: str | None = None,
    ) -> None:
        """`browser_url` is Kratos' public API as browsers find it, `origin` the console."""
        self._backend = backend
        self._login = f"{browser_url.rstrip('/')}/self-service/login/browser"
        self._roles = roles
        self._origin = origin

    def routes(self, templates: Templates) -> Sequence[BaseRoute]:
        async def leave(request: Request) -> Response:
            front = self._address(request, "/")
            try:
                where = await self._backend.logout_url(request, front)
            except KratosAway:
                return templates.error(request, None, HTTPStatus.SERVICE_UNAVAILABLE, AWAY)
            self._backend.drop(request)
            if where is None:
                return RedirectResponse("/", HTTPStatus.SEE_OTHER)
            # By a page: the policy keeps the answer to a form from leading elsewhere.
            return templates.page(request, None, "sign_out.html", {"where": where})

        return [Route("/sign-out", leave, methods=["POST"])]

    async def operator(self, connection: HTTPConnection) -> Operator | None:
        try:
            found = await self._backend.authenticate(connection)
        except SecondFactorRequired as error:
            raise SecondFactorNeeded from error
        except KratosAway as error:
            raise NoAnswer from error
        if found is None or not isinstance(user := found[1], KratosUser):
            return None
        return Operator.with_roles(
            str(user.id),
            self._roles(user.session),
            second_factor=user.session.aal == "aal2",
        )

    def page(self, connection: HTTPConnection) -> str | None:
        return f"{self._login}?{urlencode({'return_to': self._address(connection)})}"

    def second_factor_page(self, connection: HTTPConnection) -> str | None:
        back = {"aal": "aal2", "return_to": self._address(connection)}
        return f"{self._login}?{urlencode(back)}"

    def _address(self, connection: HTTPConnection, path: str | None = None) -> str:
        """A page of the console as browsers find it: this one, or another."""
        url = connection.url.replace(path=path or connection.url.path, query="", fragment="")
        return str(url) if self._origin is None else f"{self._origin}{url.path}"


class SignInByProxy:
    """A proxy in front signs operators in, and says so in headers.

    They count from the proxy's addresses alone, and only if they came once: a repeated one may be
    the visitor's beside the proxy's. Roles are separated by commas.
    """

    can_sign_out = False

    def __init__(
        self,
        addresses: Collection[IPv4Network | IPv6Network],
        name_header: str,
        roles_header: str,
        second_factor_header: str,
    ) -> None:
        self._addresses = addresses
        self._name_header = name_header
        self._roles_header = roles_header
        self._second_factor_header = second_factor_header

    def routes(self, templates: Templates) -> Sequence[BaseRoute]:  # noqa: ARG002
        return ()

    async def operator(self, connection: HTTPConnection) -> Operator | None:
        if connection.client is None or not self._is_proxy(connection.client.host):
            return None
        name = _only(connection, self._name_header)
        if not name or not name.isprintable():
            return None
        roles = (_only(connection, self._roles_header) or "").split(",")
        second_factor = _only(connection, self._second_factor_header) == "true"
        return Operator.with_roles(name, map(str.strip, roles), second_factor=second_factor)

    def page(self, connection: HTTPConnection) -> str | None:  # noqa: ARG002
        return None

    def second_factor_page(self, connection: HTTPConnection) -> str | None:  # noqa: ARG002
        return None

    def _is_proxy(self, host: str) -> bool:
        try:
            address = ip_address(host)
        except ValueError:
            return False
        return any(address in network for network in self._addresses)


class SignInByLink:
    """Whoever opens a link that was printed is the operator: for `kratos-sync dev`.

    A link is good for one use within a quarter of an hour, and ends with the process. Anybody may
    have another link printed: only who sees where it is printed can use it.
    """

    can_sign_out = True

    def __init__(
        self,
        operator: Operator,
        sessions: Sessions,
        address: str,
        show: Callable[[str], None],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """`address` is the console's, `show` prints a link to it."""
        self._operator = operator
        self._sessions = sessions
        self._address = address.rstrip("/")
        self._show = show
        self._clock = clock
        self._links: dict[str, float] = {}
        self._wrong_tries = WrongTries(MOST_TRIES, clock)
        self._next_link = clock()

    def print_link(self) -> bool:
        """Print a new link; False if one was printed a moment ago."""
        now = self._clock()
        if now < self._next_link:
            return False
        self._next_link = now + NEXT_LINK_SECONDS
        token = secrets.token_urlsafe(32)
        valid = {link: ends for link, ends in self._links.items() if now < ends}
        self._links = {**valid, digest(token): now + LINK_SECONDS}
        self._show(f"{self._address}/sign-in/{token}")
        return True

    def routes(self, templates: Templates) -> Sequence[BaseRoute]:
        def page(request: Request, status: HTTPStatus = HTTPStatus.OK, **context: str) -> Response:
            return templates.page(request, None, "sign_in.html", context, status)

        async def ask(request: Request) -> Response:
            # A button, because whatever looks at links before people do opens them.
            return page(request, **request.path_params)

        async def print_another(request: Request) -> Response:
            return page(request, text=PRINTED if self.print_link() else PRINTED_BEFORE)

        async def enter(request: Request) -> Response:
            if not self._accepts(request.path_params["token"]):
                return page(request, HTTPStatus.FORBIDDEN, text=LINK_ENDED)
            response = RedirectResponse("/", HTTPStatus.SEE_OTHER)
            self._sessions.begin(self._operator, request, response)
            return response

        return [
            Route("/sign-in", ask, methods=["GET"]),
            Route("/sign-in", print_another, methods=["POST"]),
            Route("/sign-in/{token}", ask, methods=["GET"]),
            Route("/sign-in/{token}", enter, methods=["POST"]),
            self._sessions.sign_out_route(),
        ]

    async def operator(self, connection: HTTPConnection) -> Operator | None:
        return self._sessions.operator(connection)

    def page(self, connection: HTTPConnection) -> str | None:  # noqa: ARG002
        return "/sign-in"

    def second_factor_page(self, connection: HTTPConnection) -> str | None:  # noqa: ARG002
        return None

    def _accepts(self, token: str) -> bool:
        if self._wrong_tries.are_too_many():
            _log.warning("console_sign_in_refused", reason="too many wrong links")
            return False
        ends = self._links.pop(digest(token), None)
        if ends is None or self._clock() >= ends:
            self._wrong_tries.add()
            return False
        return True


AWAY: Final = "Kratos does not answer, so that your session cannot be ended. Try again in a moment."
LINK_ENDED: Final = "This link was used already, or is older than a quarter of an hour."
PRINTED: Final = "A new link was printed."
PRINTED_BEFORE: Final = "A link was printed a moment ago."


def _only(connection: HTTPConnection, header: str) -> str | None:
    values = connection.headers.getlist(header)
    return values[0] if len(values) == 1 else None
