"""What proves a session: one cookie or one token, and nothing else of a request."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

from starlette.requests import HTTPConnection

LONGEST: Final = 8_192
# What a header may carry; browsers send no longer cookies than 4 KiB.
_FIT: Final = re.compile(rf"[\x21-\x3a\x3c-\x7e]{{1,{LONGEST}}}")


@dataclass(frozen=True, slots=True)
class SessionCredential:
    """A session's cookie or token."""

    kind: Literal["cookie", "token"]
    value: str = field(repr=False)


def credential_of(
    conn: HTTPConnection, cookie_name: str, *, bearer: bool
) -> SessionCredential | None:
    """The one that Kratos would look at: `X-Session-Token`, then the cookie, then a bearer token.

    None if there is none, or if what is first of them cannot be one. Of cookies of the same name
    the first counts, as in Kratos.
    """
    if token := conn.headers.get("x-session-token"):
        return _fit("token", token)
    for name, value in _cookies(conn):
        if name == cookie_name:
            return _fit("cookie", value)
    scheme, _, token = conn.headers.get("authorization", "").partition(" ")
    if bearer and scheme.lower() == "bearer":
        return _fit("token", token)
    return None


def _cookies(conn: HTTPConnection) -> Iterator[tuple[str, str]]:
    for header in conn.headers.getlist("cookie"):
        for pair in header.split(";"):
            name, _, value = pair.partition("=")
            yield name.strip(), value.strip()


def _fit(kind: Literal["cookie", "token"], value: str) -> SessionCredential | None:
    value = value.strip()
    return SessionCredential(kind, value) if _FIT.fullmatch(value) else None
