"""Clients for BROKER_URL: of one Redis, or of the primary that Sentinels know."""

import re
from copy import copy
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool

from kratos_sync.infrastructure import keepalive
from kratos_sync.infrastructure.bus import urls
from kratos_sync.infrastructure.bus.urls import BadBrokerUrl

SENTINEL_PORT: Final = 26379
SENTINEL_SECONDS: Final = 1.0
"""The longest that one Sentinel is waited for, before the next is asked."""
CONNECT_SECONDS: Final = 2.0
"""The longest that a primary is waited for: the Sentinels may name another one meanwhile."""
SENTINEL_USER: Final = {"sentinel_username": "username", "sentinel_password": "password"}
_CODE: Final = re.compile(r"(?:^|caused error: )([A-Z]{3,20})\b")
"""Of an error that redis-py has no type for, such as NOREPLICAS or MISCONF."""
NO_PRIMARY: Final = "no Sentinel answers and knows a working primary of this service"


class Sentinels(NamedTuple):
    """The addresses of Sentinels, and the name by which they know a primary."""

    addresses: tuple[tuple[str, int], ...]
    service: str
    options: dict[str, Any]


class SharedSentinel(Sentinel):
    """Sentinels that threads may ask at the same time.

    redis-py moves the one that answered to the front of its list by a swap: two at once may leave
    one of them twice in the list, and another one not at all.
    """

    def discover_master(self, service_name: str) -> tuple[str, int]:
        asked = copy(self)
        asked.sentinels = list(self.sentinels)
        address: tuple[str, int] = super(SharedSentinel, asked).discover_master(service_name)  # type: ignore[no-untyped-call]  # redis has no types here
        self.sentinels = asked.sentinels
        return address


def parse(url: str) -> tuple[dict[str, Any], Sentinels | None]:
    """Return redis-py's options of connections to the server, and its Sentinels if it has any.

    ``redis+sentinel://user:password@a:26379,b:26379/service/0`` names Sentinels, and with
    ``rediss+sentinel`` these and the servers speak TLS. User and password are the servers';
    ``sentinel_username`` and ``sentinel_password`` are parameters. Raises ValueError.
    """
    scheme, is_of_sentinels, rest = url.partition("+sentinel://")
    if not is_of_sentinels:
        return parse_url(url), None  # type: ignore[no-untyped-call]  # redis has no types here
    parts = urlsplit(f"//{rest}")
    user, at, hosts = parts.netloc.rpartition("@")
    service, _, database = parts.path.strip("/").partition("/")
    if not service:
        raise BadBrokerUrl("names no service of the Sentinels, as in redis+sentinel://a,b/mymaster")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    own = {name: query.pop(each) for each, name in SENTINEL_USER.items() if each in query}
    server = f"{scheme}://{user}{at}server/{database}?{urlencode(query)}"
    options: dict[str, Any] = parse_url(server)  # type: ignore[no-untyped-call]  # redis has no types here
    del options["host"]
    options.pop("connection_class", None)
    tls = {name: value for name, value in options.items() if name.startswith("ssl_")}
    if scheme == "rediss":
        tls["ssl"] = options["ssl"] = True
    return options, Sentinels(tuple(map(_address, hosts.split(","))), service, {**own, **tls})


def client(url: str, seconds: float, retries: int) -> redis.Redis:
    """Make a client that waits so long for an answer; it connects when it is first used.

    After a failover, one of Sentinels connects to the new primary. Raises ValueError for a URL
    that is none, or has a parameter that redis-py does not know.
    """
    options, sentinels = parse(url)
    options |= {"health_check_interval": 30, **_limits(seconds, retries)}
    options["decode_responses"] = False  # messages may be anything
    # Else a subscription to a host that has gone would be kept for a quarter of an hour.
    kept = {"socket_keepalive_options": keepalive.socket_options()}
    if "path" not in options:
        options |= kept
    if sentinels is None:
        pool = redis.ConnectionPool(**options)
    else:
        options["socket_connect_timeout"] = min(seconds, CONNECT_SECONDS)
        own = {**sentinels.options, **_limits(SENTINEL_SECONDS, 0), **kept}
        known = SharedSentinel(sentinels.addresses, sentinel_kwargs=own)  # type: ignore[no-untyped-call]  # redis has no types here
        pool = SentinelConnectionPool(sentinels.service, known, **options)  # type: ignore[no-untyped-call]  # redis has no types here
    try:
        pool.make_connection()  # opens nothing
    except (TypeError, redis.RedisError):
        raise BadBrokerUrl("has a parameter that redis-py does not know") from None
    return redis.Redis.from_pool(pool)


def brief(made: redis.Redis, seconds: float) -> redis.Redis:
    """Make another client for the same server, that waits so long and tries once."""
    pool = made.connection_pool
    options = {**pool.connection_kwargs, **_limits(seconds, 0)}
    options["connection_class"] = pool.connection_class
    if not isinstance(pool, SentinelConnectionPool):
        return redis.Redis.from_pool(redis.ConnectionPool(**options))
    del options["connection_pool"]
    known, service = pool.sentinel_manager, pool.service_name
    return redis.Redis.from_pool(SentinelConnectionPool(service, known, **options))  # type: ignore[no-untyped-call]  # redis has no types here


def close(made: redis.Redis) -> None:
    """Close its connections, also those to Sentinels."""
    made.close()
    if isinstance(made.connection_pool, SentinelConnectionPool):
        made.connection_pool.sentinel_manager.close()


def primary(made: redis.Redis) -> object:
    """The address of the primary that the Sentinels named last; None without Sentinels."""
    return getattr(made.connection_pool, "master_address", None)


def reason(error: redis.RedisError) -> str:
    """Why a call failed, in words that hold nothing of the URL."""
    if isinstance(error, MasterNotFoundError):
        return NO_PRIMARY
    code = _CODE.search(str(error)) if type(error) is redis.ResponseError else None
    return f"{code[1]}, says Redis" if code else urls.reason(error)


def _address(host: str) -> tuple[str, int]:
    parts = urlsplit(f"//{host}")
    if not parts.hostname:
        raise BadBrokerUrl("names no Sentinel")
    return parts.hostname, parts.port or SENTINEL_PORT


def _limits(seconds: float, retries: int) -> dict[str, Any]:
    return {
        "socket_timeout": seconds,
        "socket_connect_timeout": seconds,
        "retry": Retry(NoBackoff(), retries),
    }
