"""The hosts of a BROKER_URL of RabbitMQ: one or several, with TLS, and the type of its queues."""

import random
import ssl
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit

import pika

from kratos_sync.infrastructure import keepalive
from kratos_sync.infrastructure.bus.urls import BadBrokerUrl

HEARTBEAT_SECONDS: Final = 5
UNACKNOWLEDGED: Final = timedelta(seconds=6)
"""A host that acknowledges no heartbeat for so long has gone."""
QUEUE_TYPES: Final = ("classic", "quorum")
CERTIFICATES: Final = ("cacertfile", "certfile", "keyfile")
"""Parameters of a URL with files for TLS, as RabbitMQ's own clients call them."""


@dataclass(frozen=True)
class RabbitmqHosts:
    """Where to connect to; each connection tries the hosts in an order of its own.

    So load is spread over them, and nobody stays with one that accepts connections and no messages.
    """

    urls: tuple[str, ...]
    """One for each host, as pika takes them."""
    queue_type: str | None
    """The type that queues must have; None for the server's default, or whatever they have."""
    certificates: dict[str, str]

    def parameters(
        self, name: str, seconds: float, blocked_seconds: float
    ) -> list[pika.URLParameters]:
        """Parameters of one connection of this name, with limits to its waits for each host.

        Raises OSError if a file for TLS cannot be read.
        """
        context = self._context() if self.certificates else None
        return [
            _limited(url, name, seconds, blocked_seconds, context)
            for url in random.sample(self.urls, len(self.urls))
        ]

    def _context(self) -> ssl.SSLContext:
        files = self.certificates
        context = ssl.create_default_context(cafile=files.get("cacertfile"))
        if "certfile" in files:
            context.load_cert_chain(files["certfile"], files.get("keyfile"))
        return context


def parse(url: str) -> RabbitmqHosts:
    """Read ``amqp://user:password@a:5672,b:5672/vhost?queue_type=quorum`` and the like.

    Queues are quorum queues where there are several hosts. Raises ValueError.
    """
    parts = urlsplit(url)
    user, at, hosts = parts.netloc.rpartition("@")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    files: dict[str, str] = {name: query.pop(name) for name in CERTIFICATES if name in query}
    if files and parts.scheme != "amqps":
        raise BadBrokerUrl("has files for TLS, and is no amqps URL")
    names = hosts.split(",")
    queue_type = query.pop("queue_type", "quorum" if len(names) > 1 else None)
    if queue_type not in {None, *QUEUE_TYPES}:
        raise BadBrokerUrl(f"has a queue_type other than {' and '.join(QUEUE_TYPES)}")
    urls = tuple(
        parts._replace(netloc=f"{user}{at}{name}", query=urlencode(query)).geturl()
        for name in names
    )
    for each in urls:
        pika.URLParameters(each)
    return RabbitmqHosts(urls, queue_type, files)


def _limited(
    url: str, name: str, seconds: float, blocked_seconds: float, context: ssl.SSLContext | None
) -> pika.URLParameters:
    parameters = pika.URLParameters(url)
    parameters.connection_attempts = 1
    parameters.socket_timeout = parameters.stack_timeout = seconds
    parameters.blocked_connection_timeout = blocked_seconds
    parameters.heartbeat = HEARTBEAT_SECONDS
    parameters.tcp_options = keepalive.named_options(UNACKNOWLEDGED)
    parameters.client_properties = {"connection_name": name}
    if context is not None:
        parameters.ssl_options = pika.SSLOptions(context)
    return parameters
