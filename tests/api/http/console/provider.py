"""A provider of OpenID Connect over real HTTP, which can be told to misbehave."""

import asyncio
import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import cache
from html import escape
from typing import Any
from urllib.parse import unquote_plus, urlencode

import uvicorn
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from tests.ports import free_port
from tests.waiting import DEADLINE_SECONDS, until

CLIENT_ID = "console"
CLIENT_SECRET = "s3cret/with:signs+and%"
Key = RSAKey | ECKey
Claims = dict[str, Any]
Change = Callable[[Claims], Claims]


def changed(**claims: Any) -> Change:
    """An ID token with these claims instead of its own."""
    return lambda given: {**given, **claims}


def without(name: str) -> Change:
    """An ID token without this claim."""
    return lambda given: {key: value for key, value in given.items() if key != name}


def new_key(kid: str | None = None) -> RSAKey:
    """A key as a provider signs with."""
    return RSAKey.generate_key(2048, {"use": "sig", **({"kid": kid} if kid else {})}, auto_kid=True)


@cache
def first_key() -> RSAKey:
    """The key of all providers: to make one takes as long as a test."""
    return new_key("first")


class Provider:
    """Signs in whoever comes, with `claims`. The other attributes are what a test may change."""

    def __init__(self, host: str, port: int) -> None:
        self.port = port
        self.issuer = f"http://{host}:{port}"
        self.claims: Claims = {"sub": "ada", "kratos_sync_roles": ["operator", "privacy"]}
        self.key: Key = first_key()
        self.published: list[Key] = [self.key]
        self.algorithm = "RS256"
        self.kid: str | None = "first"
        self.change = changed()
        self.sign: Callable[[Claims], str] = self.signed
        self.metadata: dict[str, Any] = {}
        self.disorder: object = None
        self.checks_verifier = True
        self.error: str | None = None
        self.instead: Response | None = None
        self.wrap: Callable[[Response], Response] = lambda answer: answer
        self.go = threading.Event()
        self.go.set()
        self.asked: list[str] = []
        self.authorized: list[dict[str, str]] = []
        self._codes: dict[str, dict[str, str]] = {}

    def signed(self, claims: Claims) -> str:
        """An ID token as `key` signs it."""
        header = {"alg": self.algorithm, **({"kid": self.kid} if self.kid else {})}
        return jwt.encode(header, claims, self.key, algorithms=[self.algorithm])

    def unsigned(self, claims: Claims) -> str:
        """An ID token without a signature."""
        return f"{_encoded({'alg': 'none', 'kid': self.kid})}.{_encoded(claims)}."

    def rotate(self, kid: str | None = "second") -> None:
        """Sign with another key, and publish that alone."""
        self.key, self.kid = new_key(kid), kid
        self.published = [self.key]

    def routes(self) -> list[Route]:
        return [
            Route("/.well-known/openid-configuration", self._answering(self._metadata)),
            Route("/keys", self._answering(self._keys)),
            Route("/keys-in-disorder", self._answering(self._keys_in_disorder)),
            Route("/authorize", self._authorize),
            Route("/let-in", self._let_in, methods=["POST"]),
            Route("/links", self._links),
            Route("/token", self._answering(self._token), methods=["POST"]),
        ]

    def _answering(
        self, answer: Callable[[dict[str, str], str], Response]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            self.asked.append(request.url.path)
            form = {name: str(value) for name, value in (await request.form()).items()}
            await asyncio.to_thread(self.go.wait, DEADLINE_SECONDS)
            if self.instead is not None:
                return self.instead
            return self.wrap(answer(form, request.headers.get("authorization", "")))

        return endpoint

    def _metadata(self, _form: dict[str, str], _authorization: str) -> Response:
        found = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize?theme=dark",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
            "id_token_signing_alg_values_supported": ["RS256", "ES256", "HS256", "none"],
        }
        return JSONResponse({**found, **self.metadata})

    def _keys(self, _form: dict[str, str], _authorization: str) -> Response:
        return JSONResponse(KeySet(list(self.published)).as_dict(private=False))

    def _keys_in_disorder(self, _form: dict[str, str], _authorization: str) -> Response:
        return JSONResponse(self.disorder)

    async def _authorize(self, request: Request) -> Response:
        """Send whoever is no browser back at once, and ask a browser for a click."""
        self.authorized.append(dict(request.query_params))
        if "text/html" not in request.headers.get("accept", ""):
            return self._back(dict(request.query_params))
        url = escape(f"/let-in?{request.url.query}")
        return _page(f'<form method="post" action="{url}"><button>Let me in</button></form>')

    async def _let_in(self, request: Request) -> Response:
        return self._back(dict(request.query_params))

    async def _links(self, request: Request) -> Response:
        return _page(f'<a href="{escape(request.query_params["to"])}">To the console</a>')

    def _back(self, asked: dict[str, str]) -> Response:
        assert asked["response_type"] == "code"
        assert asked["code_challenge_method"] == "S256"
        answer = {"state": asked["state"]}
        if self.error is not None:
            answer["error"] = self.error
        else:
            answer["code"] = secrets.token_urlsafe(16)
            self._codes[answer["code"]] = asked
        return RedirectResponse(f"{asked['redirect_uri']}?{urlencode(answer)}", 302)

    def _token(self, form: dict[str, str], authorization: str) -> Response:
        asked = self._codes.pop(form.get("code", ""), None)
        if _client(form, authorization) != (CLIENT_ID, CLIENT_SECRET):
            return JSONResponse({"error": "invalid_client"}, 401)
        if (
            asked is None
            or form["grant_type"] != "authorization_code"
            or form["redirect_uri"] != asked["redirect_uri"]
            or (self.checks_verifier and not _fits(form["code_verifier"], asked["code_challenge"]))
        ):
            return JSONResponse({"error": "invalid_grant"}, 400)
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": CLIENT_ID,
            "iat": now,
            "exp": now + 300,
            "nonce": asked["nonce"],
            **self.claims,
        }
        token = {"access_token": "an-access-token", "token_type": "Bearer", "expires_in": 300}
        id_token = self.sign(self.change(claims))
        return JSONResponse({**token, **({"id_token": id_token} if id_token else {})})


def _page(body: str) -> Response:
    return HTMLResponse(f'<!doctype html><link rel="icon" href="data:,">{body}')


def _encoded(value: Claims) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def _client(form: dict[str, str], authorization: str) -> tuple[str, str]:
    if authorization:
        name, _, password = (
            base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
        )
        return unquote_plus(name), unquote_plus(password)
    return form.get("client_id", ""), form.get("client_secret", "")


def _fits(verifier: str, challenge: str) -> bool:
    """As RFC 7636 has it."""
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=") == challenge


@contextmanager
def providing(port: int | None = None, host: str = "127.0.0.1") -> Iterator[Provider]:
    """A provider that runs; for a browser one at `localhost` is another site than 127.0.0.1."""
    provider = Provider(host, port or free_port())
    server = uvicorn.Server(
        uvicorn.Config(
            Starlette(routes=list(provider.routes())),
            host="127.0.0.1",
            port=provider.port,
            lifespan="off",
            log_config=None,
            timeout_graceful_shutdown=1,
        )
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        until(lambda: server.started)
        yield provider
    finally:
        provider.go.set()
        server.should_exit = True
        thread.join(DEADLINE_SECONDS)
    assert not thread.is_alive()
