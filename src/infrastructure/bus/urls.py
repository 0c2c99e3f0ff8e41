"""BROKER_URL: its forms, and what is wrong with one. Loads a client only for what needs one."""

import ssl
from typing import Final
from urllib.parse import urlsplit

from kratos_sync.application.errors import with_causes

IN_MEMORY: Final = "memory://"
"""The URL of a broker in the memory of the process that uses it."""
SCHEMES: Final = (
    "redis",
    "rediss",
    "unix",
    "redis+sentinel",
    "rediss+sentinel",
    "amqp",
    "amqps",
    "memory",
)


class BadBrokerUrl(ValueError):
    """What is wrong with a URL, in words that hold nothing of it."""


def check(url: str) -> None:
    """Raise ValueError for a URL that no broker can be made for; connects to nothing."""
    scheme = url.partition("://")[0]
    if "#" in url:  # what follows it would be dropped, and half a password be taken for a port
        raise ValueError
    if scheme == "memory":
        if url != IN_MEMORY:
            raise ValueError
    elif scheme in {"amqp", "amqps"}:
        from kratos_sync.infrastructure.bus import rabbitmq_hosts

        rabbitmq_hosts.parse(url)
    elif "?" not in url and "+" not in scheme:  # the api and most commands never load redis
        _ = urlsplit(url).port  # raises
    else:
        from kratos_sync.infrastructure.bus import redis_clients

        redis_clients.client(url, seconds=1, retries=0)


def reason(error: BaseException) -> str:
    """Why a call failed, in words that hold nothing of the URL."""
    for cause in with_causes(error, suppressed=True):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is refused: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return f"no TLS: {cause.reason or type(cause).__name__}"
        if isinstance(cause, FileNotFoundError):
            return "a file of BROKER_URL is missing"
    return type(error).__name__
