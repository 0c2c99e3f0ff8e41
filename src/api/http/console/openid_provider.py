"""A provider of OpenID Connect: where people sign in, and whom its ID tokens name.

Authlib speaks the protocol, and joserfc checks signatures. What they leave to the caller is here:
which algorithms count, whose token it is, what is fetched and for how long it is kept.
"""

import asyncio
import secrets
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final, Generic, TypeVar, cast
from urllib.parse import quote_plus

import httpx2
from authlib.integrations.httpx_client import AsyncOAuth2Client, OAuthError
from authlib.oidc.core import CodeIDToken
from authlib.oidc.discovery import OpenIDProviderMetadata, get_well_known_url
from joserfc import jwt
from joserfc.errors import BadSignatureError, ClaimError, InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet
from joserfc.jws import JWSRegistry

from kratos_sync.api.http.console.sessions import digest

ANSWER_SECONDS: Final = 10.0
"""For one answer of the provider, from the connection to its last byte."""
LARGEST_ANSWER: Final = 256 * 1024
KEPT_SECONDS: Final = 3_600.0
"""For so long the provider's description and keys are used without asking again."""
AWAY_SECONDS: Final = 5.0
"""After a failure the provider is not asked for so long."""
LEEWAY_SECONDS: Final = 60
"""By which the provider's clock may differ from this one."""
ALGORITHMS: Final = (
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
)
"""Those with public keys, whatever the provider offers: it may offer `none`."""
# What a provider may answer by RFC 6749 and OpenID Connect Core; anything else may be personal.
ERRORS: Final = frozenset(
    {
        "access_denied",
        "account_selection_required",
        "consent_required",
        "interaction_required",
        "invalid_client",
        "invalid_grant",
        "invalid_request",
        "invalid_scope",
        "login_required",
        "server_error",
        "temporarily_unavailable",
        "unauthorized_client",
        "unsupported_grant_type",
        "unsupported_response_type",
    }
)

Claims = Mapping[str, object]
T = TypeVar("T")


class ProviderAway(Exception):
    """The provider gives no answer, or none that can be used; the text quotes nothing of it."""


class SignInRefused(Exception):
    """The provider, or what it sent, signs in nobody; the text quotes nothing of it."""


class NoKeyFits(SignInRefused):
    """None of the provider's keys has signed the ID token."""


@dataclass(frozen=True, slots=True)
class Client:
    """The console as the provider knows it."""

    issuer: str
    client_id: str
    client_secret: str = field(repr=False)
    redirect_uri: str
    scope: str = "openid"
    acr_values: tuple[str, ...] = ()
    """What is asked of the sign-in, the most wanted first."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A sign-in that was begun: where it goes on, and what only its browser may know."""

    url: str
    state: str = field(repr=False)
    secret: str = field(repr=False)
    """The nonce is its digest, so that nobody can make one up for somebody else's ID token."""
    verifier: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Endpoints:
    authorization: str
    token: str
    keys: str
    takes_basic: bool


class OpenIdProvider:
    """The provider of this issuer. It reads no proxy from the environment, and no redirect."""

    def __init__(self, client: Client, clock: Callable[[], float] = monotonic) -> None:
        self._client = client
        self._tls = ssl.create_default_context()
        self._endpoints = _Kept(self._fetch_endpoints, clock)
        self._keys = _Kept(self._fetch_keys, clock)

    async def begin(self) -> Begun:
        """Begin a sign-in. Raises ProviderAway."""
        endpoints = await self._endpoints.get()
        state, secret, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        with _explained():
            async with self._session() as session:
                url, _ = session.create_authorization_url(
                    endpoints.authorization,
                    state=state,
                    nonce=digest(secret),
                    code_verifier=verifier,
                    acr_values=" ".join(self._client.acr_values) or None,
                )
        return Begun(url, state, secret, verifier)

    async def claims(self, code: str, *, secret: str, verifier: str) -> Claims:
        """The claims of the ID token that this code is good for.

        `secret` and `verifier` are those of the sign-in. Raises ProviderAway and SignInRefused.
        """
        endpoints = await self._endpoints.get()
        token = await self._redeem(endpoints, code, verifier)
        keys, nonce = await self._keys.get(), digest(secret)
        try:
            return self._checked(token, keys, nonce)
        except NoKeyFits:  # it may have changed its keys
            return self._checked(token, await self._keys.get(other_than=keys), nonce)

    async def _redeem(self, endpoints: _Endpoints, code: str, verifier: str) -> Mapping[str, Any]:
        client = self._client
        # Encoded as RFC 6749, 2.3.1 has it, which Authlib's own method leaves out.
        basic = (quote_plus(client.client_id), quote_plus(client.client_secret))
        with _explained():
            async with asyncio.timeout(ANSWER_SECONDS), self._session() as session:
                token: Mapping[str, Any] = await session.fetch_token(
                    endpoints.token,
                    grant_type="authorization_code",
                    code=code,
                    code_verifier=verifier,
                    auth=basic if endpoints.takes_basic else None,
                )
        return token

    def _checked(self, token: Mapping[str, Any], keys: KeySet, nonce: str) -> Claims:
        id_token = token.get("id_token")
        if not isinstance(id_token, str):
            raise SignInRefused("there is no ID token")
        # Authlib compares the audience only if it is told to.
        expected = {
            "iss": {"essential": True, "value": self._client.issuer},
            "aud": {"essential": True, "value": self._client.client_id},
        }
        known = {
            "client_id": self._client.client_id,
            "nonce": nonce,
            "access_token": token.get("access_token"),
        }
        with _explained():
            registry = JWSRegistry(algorithms=ALGORITHMS, strict_check_header=False)
            decoded = jwt.decode(id_token, keys, registry=registry)
            claims = CodeIDToken(decoded.claims, decoded.header, expected, known)
            claims.validate(leeway=LEEWAY_SECONDS)
        return claims

    async def _fetch_endpoints(self) -> _Endpoints:
        found = await self._fetch(get_well_known_url(self._client.issuer, external=True))
        with _explained():
            metadata = OpenIDProviderMetadata(found)
            metadata.validate_issuer()
            metadata.validate_authorization_endpoint()
            metadata.validate_token_endpoint()
            metadata.validate_jwks_uri()  # type: ignore[no-untyped-call]  # its stub has no types
            if found["issuer"] != self._client.issuer:
                raise ProviderAway("its issuer is not CONSOLE_OIDC_ISSUER")
            methods = found.get("token_endpoint_auth_methods_supported")
            return _Endpoints(
                found["authorization_endpoint"],
                found["token_endpoint"],
                found["jwks_uri"],
                methods is None or "client_secret_basic" in methods,
            )

    async def _fetch_keys(self) -> KeySet:
        found = await self._fetch((await self._endpoints.get()).keys)
        try:
            return KeySet.import_key_set(cast("Any", found))
        except Exception as error:  # noqa: BLE001  # whatever an odd key makes the library raise
            raise ProviderAway(f"its keys cannot be read: {type(error).__name__}") from None

    async def _fetch(self, url: str) -> dict[str, Any]:
        with _explained():
            async with asyncio.timeout(ANSWER_SECONDS), self._session() as session:
                answer: httpx2.Response = await session.request("GET", url, withhold_token=True)
                answer.raise_for_status()
                found = answer.json()
        if not isinstance(found, dict):
            raise ProviderAway("its answer is no JSON object")
        return found

    def _session(self) -> AsyncOAuth2Client:
        return AsyncOAuth2Client(
            self._client.client_id,
            self._client.client_secret,
            token_endpoint_auth_method="client_secret_post",  # noqa: S106  # a method's name
            scope=self._client.scope,
            redirect_uri=self._client.redirect_uri,
            code_challenge_method="S256",
            headers={"accept-encoding": "identity", "user-agent": "kratos-sync"},
            timeout=ANSWER_SECONDS,
            trust_env=False,
            transport=_BoundedTransport(verify=self._tls),
        )


@contextmanager
def _explained() -> Iterator[None]:
    """Turn whatever a library raises into ProviderAway or SignInRefused, without its text."""
    try:
        yield
    except (ProviderAway, SignInRefused):
        raise
    except OAuthError as error:
        raise SignInRefused(f"the provider answers {known_error(error.error)}") from None
    except (InvalidKeyIdError, BadSignatureError):
        raise NoKeyFits("none of the provider's keys has signed the ID token") from None
    except ClaimError as error:
        raise SignInRefused(f"the ID token's {error.claim} is wrong: {error.error}") from None
    except JoseError as error:
        raise SignInRefused(f"the ID token is wrong: {error.error}") from None
    except httpx2.HTTPStatusError as error:
        raise ProviderAway(f"its answer has the status {error.response.status_code}") from None
    except Exception as error:  # noqa: BLE001  # whatever an answer makes a library raise
        raise ProviderAway(type(error).__name__) from None


def known_error(code: str | None) -> str:
    """An error that a provider gave, if it is one of those that the standards name."""
    return code if code in ERRORS else "an error of its own"


class _Kept(Generic[T]):
    """What the provider publishes: fetched by one for all, kept for an hour; a failure shortly."""

    def __init__(self, fetch: Callable[[], Awaitable[T]], clock: Callable[[], float]) -> None:
        self._fetch = fetch
        self._clock = clock
        self._lock = asyncio.Lock()
        self._found: T | ProviderAway = ProviderAway()
        self._until = -1.0

    async def get(self, *, other_than: T | None = None) -> T:
        """Return it, fetched again if it is the other one. Raises ProviderAway."""
        async with self._lock:
            if self._clock() >= self._until or self._found is other_than:
                try:
                    self._found, lasts = await self._fetch(), KEPT_SECONDS
                except ProviderAway as error:
                    self._found, lasts = error, AWAY_SECONDS
                self._until = self._clock() + lasts
            if isinstance(self._found, ProviderAway):
                raise ProviderAway(*self._found.args)
            return self._found


class _BoundedTransport(httpx2.AsyncHTTPTransport):
    """Reads no answer that is larger than LARGEST_ANSWER, or that would be when unpacked."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await super().handle_async_request(request)
        stream = cast("httpx2.AsyncByteStream", response.stream)
        packed = "content-encoding" in response.headers
        response.stream = _Bounded(stream, 0 if packed else LARGEST_ANSWER)
        return response


class _Bounded(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream, most: int) -> None:
        self._stream = stream
        self._most = most

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for part in self._stream:
            size += len(part)
            if size > self._most:
                raise ProviderAway("its answer is too large")
            yield part

    async def aclose(self) -> None:
        await self._stream.aclose()
