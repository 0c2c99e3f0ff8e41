"""The application that the service runs for: its consumers, and what they need."""

import re
import types
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Generic, Union, get_args, get_origin

from typing_extensions import TypeVar

from kratos_sync.application.consumer import Consumer
from kratos_sync.application.ports.policies import is_rate
from kratos_sync.domain.events import EVENTS, DomainEvent
from kratos_sync.domain.session import KratosSession, no_scopes

Table = Mapping[type[DomainEvent], Sequence[type[Consumer[Any]]]]
"""The consumers that are subscribed to each kind of event."""

Port = TypeVar("Port")
Given = TypeVar("Given")
Given_contra = TypeVar("Given_contra", contravariant=True)
Settings = TypeVar("Settings", default=None)
Transaction = TypeVar("Transaction", default=object)
Amount = TypeVar("Amount", int, timedelta)

CONSUMER_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9._-]{0,99}")
"""Names of consumers are names of queues too."""


class InvalidApplication(Exception):
    """An application that cannot run; says why in one sentence."""


@dataclass(frozen=True, slots=True)
class Adapter(Generic[Given_contra]):
    """What serves a port: made by ``make`` from the settings, or from a batch's transaction."""

    port: Callable[..., object]
    make: Callable[[Given_contra], object]


class ServedPort(Generic[Port]):
    """A port that is to be served."""

    def __init__(self, port: Callable[..., Port]) -> None:
        self._port = port

    def by(self, make: Callable[[Given], Port]) -> Adapter[Given]:
        """Serve it by what is made; a type checker rejects what is not the port."""
        return Adapter(self._port, make)


def serve(port: Callable[..., Port]) -> ServedPort[Port]:
    """Serve a port, a protocol or class that constructors of consumers ask for."""
    # Two calls, for in one mypy would find a common base of the port and what is made.
    return ServedPort(port)


@dataclass(frozen=True, kw_only=True)
class Application(Generic[Settings, Transaction]):
    """Consumers outside of this service, and what they need.

    ``adapters`` are made once a process with an instance of ``settings``, a class of
    pydantic-settings that reads the environment and `.env` as the service's own does; without one
    they are made with None. ``adapters_in_transaction`` are made once a batch with its transaction,
    in which they write exactly once. ``migrations`` is the package and folder of Alembic revisions,
    such as ``acme_sync:migrations``; their tables live in a schema named like the package.
    ``parse_handler`` is a subclass of KratosIdentityParseHandler, or a partial of one.
    ``session_scopes`` are the scopes of a session, for a KratosSessionBackend.
    """

    subscriptions: Table
    adapters: Sequence[Adapter[Settings]] = ()
    adapters_in_transaction: Sequence[Adapter[Transaction]] = ()
    settings: type[Settings] | None = None
    migrations: str | None = None
    parse_handler: Callable[..., object] | None = None
    session_scopes: Callable[[KratosSession], Iterable[str]] = no_scopes


class Subscriptions:
    """Which consumers are subscribed to which events, of all tables together.

    Raises InvalidApplication for what cannot be delivered.
    """

    def __init__(self, *tables: Table) -> None:
        self._events: dict[str, list[str]] = {}
        self.consumers: dict[str, type[Consumer[Any]]] = {}
        """Each consumer by its name."""
        for event, consumers in ((e, c) for table in tables for e, c in table.items()):
            if EVENTS.get(getattr(event, "name", "")) is not event:
                raise InvalidApplication(f"{_named(event)} is no event of this release")
            for consumer in consumers:
                self._subscribe(event, consumer)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Each event's name with the name of a consumer that is subscribed to it."""
        for consumer, events in self._events.items():
            for event in events:
                yield event, consumer

    def events_of(self, consumer: str) -> tuple[str, ...]:
        """The names of the events that a consumer is subscribed to."""
        return tuple(self._events.get(consumer, ()))

    def consumers_of(self, event: str) -> tuple[str, ...]:
        """The names of the consumers that are subscribed to an event."""
        return tuple(consumer for name, consumer in self if name == event)

    def _subscribe(self, event: type[DomainEvent], consumer: type[Consumer[Any]]) -> None:
        _check(consumer)
        if self.consumers.setdefault(consumer.name, consumer) is not consumer:
            raise InvalidApplication(f"two consumers have the name {consumer.name}")
        events = self._events.setdefault(consumer.name, [])
        if event.name in events:
            raise InvalidApplication(f"{consumer.name} is subscribed to {event.__name__} twice")
        declared = _declared(consumer)
        if declared and not issubclass(event, declared):
            accepted = " | ".join(each.__name__ for each in declared)
            raise InvalidApplication(
                f"{consumer.name} is subscribed to {event.__name__}, and is a Consumer[{accepted}]"
            )
        events.append(event.name)


def _check(consumer: type[Consumer[Any]]) -> None:
    """Raise InvalidApplication for a consumer that cannot run, or whose policy never ends."""
    if Consumer not in getattr(consumer, "__mro__", ()):
        raise InvalidApplication(f"{_named(consumer)} is no subclass of Consumer")
    name = getattr(consumer, "name", None)
    if not isinstance(name, str) or not CONSUMER_NAME.fullmatch(name):
        raise InvalidApplication(
            f"{consumer.__name__} needs a name of letters, digits, dots, hyphens and underscores"
        )
    if consumer.consume is Consumer.consume:
        raise InvalidApplication(f"{name} has no method consume")
    has_first_backoff = _is_at_least(consumer.first_backoff, timedelta())
    limits = {
        "batch_size": _is_at_least(consumer.batch_size, 1),
        "max_attempts": _is_at_least(consumer.max_attempts, 1),
        "first_backoff": has_first_backoff,
        "longest_backoff": _is_at_least(
            consumer.longest_backoff, consumer.first_backoff if has_first_backoff else timedelta()
        ),
        "gives_up_on": _are_errors(consumer.gives_up_on),
        "time_limit": _is_at_least(consumer.time_limit, timedelta.resolution),
        "rate": consumer.rate is None or is_rate(consumer.rate),
        "concurrency": consumer.concurrency is None or _is_at_least(consumer.concurrency, 1),
    }
    if wrong := [attribute for attribute, is_right in limits.items() if not is_right]:
        raise InvalidApplication(f"{name} has a wrong {' and '.join(wrong)}")
    if consumer.skips_dead_letters and not consumer.ordered:
        raise InvalidApplication(f"{name} has skips_dead_letters, and is not ordered")


def _is_at_least(given: object, least: Amount) -> bool:
    """Whether it is of that type, and not less."""
    return isinstance(given, type(least)) and given >= least


def _are_errors(given: object) -> bool:
    return isinstance(given, Collection) and all(
        isinstance(each, type) and issubclass(each, BaseException) for each in given
    )


def _declared(consumer: type[Consumer[Any]]) -> tuple[type[DomainEvent], ...]:
    """The events in `Consumer[...]`; none if the class does not say."""
    for kind in consumer.__mro__:
        for base in getattr(kind, "__orig_bases__", ()):
            if get_origin(base) is Consumer:
                (event,) = get_args(base)
                each = get_args(event) if get_origin(event) in {Union, types.UnionType} else [event]
                return tuple(kind for kind in each if isinstance(kind, type))
    return ()


def _named(given: object) -> str:
    return getattr(given, "__name__", None) or repr(given)[:100]
