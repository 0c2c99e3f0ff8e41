"""What settings may be, each refused in a sentence that quotes nothing of it."""

import re
from collections.abc import Callable
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode
from redis.connection import parse_url

from infrastructure.connecting import parse_database_url

SHORTEST_KEY: Final = 16
# HTTP's own, those that every call of Kratos has anyway, and those that proxies set or remove.
TAKEN_HEADERS: Final = re.compile(
    r"(accept|access-control|content|if|ory-webhook|proxy|sec|x-forwarded)(-.*)?|host|connection"
    r"|keep-alive|transfer-encoding|te|trailer|upgrade|expect|date|via|forwarded|x-real-ip|cookie"
    r"|set-cookie|user-agent|referer|origin|range|cache-control|pragma|max-forwards|from"
    r"|traceparent|tracestate|baggage|x-request-id|x-kratos-hook",
    re.IGNORECASE,
)


def _url_of(parse: Callable[[str], object], *schemes: str) -> AfterValidator:
    def check(url: SecretStr) -> SecretStr:
        if url.get_secret_value().partition("://")[0] not in schemes:
            raise ValueError(f"must be a URL that starts with {' or '.join(schemes)}")
        try:
            parse(url.get_secret_value())
        except Exception:  # noqa: BLE001  # whatever it is, it may quote a piece of the password
            raise ValueError("is no URL: in a password, is every @ : / escaped?") from None
        return url

    return AfterValidator(check)


def _parse_broker_url(url: str) -> object:
    if not url.startswith("amqp"):
        return parse_url(url)  # type: ignore[no-untyped-call]  # redis has no types here
    from pika import URLParameters

    return URLParameters(url)


def _parse_http_url(url: str) -> object:
    parts = urlsplit(url)
    if not re.fullmatch(r"[!-~]+", url) or not parts.hostname or parts.query or parts.fragment:
        raise ValueError
    return parts.port  # raises, where it is no number


def _sendable(token: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[!-~]+", token.get_secret_value()):
        raise ValueError("must be printable ASCII without spaces")
    return token


def _long_enough(key: SecretStr) -> SecretStr:
    if len(key.get_secret_value()) < SHORTEST_KEY:
        raise ValueError(f"a key has at least {SHORTEST_KEY} characters")
    return key


def _not_taken(header: str) -> str:
    if TAKEN_HEADERS.fullmatch(header):
        raise ValueError("this header has a meaning of its own: choose another, as X-Api-Key")
    return header


class Apart:
    """In place of an admin URL in `.env` whose token is in the environment, or the reverse."""


def _not_apart(given: object) -> object:
    if isinstance(given, Apart):
        raise ValueError(  # noqa: TRY004  # pydantic's
            "KRATOS_ADMIN_URL and KRATOS_ADMIN_TOKEN must both be in the environment, or both in"
            " .env: who writes one of them must not choose where the other's token goes"
        )
    return given


def _split(keys: object) -> object:
    return tuple(k.strip() for k in keys.split(",") if k.strip()) if isinstance(keys, str) else keys


DatabaseUrl = Annotated[SecretStr, _url_of(parse_database_url, "postgresql", "postgres")]
BrokerUrl = Annotated[
    SecretStr, _url_of(_parse_broker_url, "redis", "rediss", "unix", "amqp", "amqps")
]


HttpUrl = Annotated[SecretStr, _url_of(_parse_http_url, "http", "https")]
Token = Annotated[SecretStr, AfterValidator(_sendable)]
ApiKey = Annotated[SecretStr, AfterValidator(_long_enough)]
KeyHeader = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$"), AfterValidator(_not_taken)]
NotApart = BeforeValidator(_not_apart)


def or_none(word: str) -> BeforeValidator:
    return BeforeValidator(lambda given: None if given == word else given)


Days = Annotated[Annotated[int, Field(ge=1, le=36_500)] | None, or_none("forever")]
Hours = Annotated[Annotated[int, Field(ge=1, le=720)] | None, or_none("never")]
ApiKeys = Annotated[tuple[ApiKey, ...], NoDecode, BeforeValidator(_split)]
