"""What protects the console in a browser: a strict policy, and changes from its own pages alone."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS: Final[Mapping[str, str]] = {
    "content-security-policy": POLICY,
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
STATIC_CACHE: Final = "public, max-age=31536000, immutable"
"""Static files have their content's digest in their names."""
READING: Final = frozenset({"GET", "HEAD"})
LARGEST_BODY: Final = 512 * 1024
"""Of a form, in bytes: a Kratos configuration is the largest that is pasted."""

LONGEST_PATH: Final = 200
"""No page's is longer, and a number with more digits is none that Python reads."""


class Guard:
    """Adds the security headers, bounds bodies, and refuses changes that come from elsewhere.

    A browser says with `Sec-Fetch-Site`, or an older one with `Origin`, which page sends a form.
    A request that says neither is refused too. `origin` is where people open the console, if that
    is another address than the one in the `Host` header.
    """

    def __init__(self, app: ASGIApp, origin: str | None = None) -> None:
        self._app = app
        self._origin = origin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refused: PlainTextResponse | None = PlainTextResponse("Not Found.", HTTPStatus.NOT_FOUND)
        if len(scope["path"]) <= LONGEST_PATH:
            refused = self._refused(scope, Headers(scope=scope))
        app = self._app if refused is None else refused
        await app(scope, _bounded(receive), send_guarded)

    def _refused(self, scope: Scope, headers: Headers) -> PlainTextResponse | None:
        if scope["method"] in READING:
            return None
        if scope["method"] != "POST":
            return PlainTextResponse("Only GET and POST.", HTTPStatus.METHOD_NOT_ALLOWED)
        if not self._is_own(scope, headers):
            return PlainTextResponse(
                "This form was not sent by a page of the console.", HTTPStatus.FORBIDDEN
            )
        length = headers.get("content-length", "")
        if not length.isdecimal():
            return PlainTextResponse("A length is needed.", HTTPStatus.LENGTH_REQUIRED)
        if len(length) > len(str(LARGEST_BODY)) or int(length) > LARGEST_BODY:
            return PlainTextResponse("The form is too large.", HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        return None

    def _is_own(self, scope: Scope, headers: Headers) -> bool:
        if (site := headers.get("sec-fetch-site")) is not None:
            return site == "same-origin"
        origin = headers.get("origin")
        if origin is None:
            return False
        own = self._origin or f"{scope['scheme']}://{headers.get('host', '')}"
        return urlsplit(origin)[:2] == urlsplit(own)[:2]


def _bounded(receive: Receive) -> Receive:
    """Receive no more than LARGEST_BODY bytes, whatever length was announced."""
    received = 0

    async def bounded() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > LARGEST_BODY:
            return {"type": "http.disconnect"}
        return message

    return bounded
