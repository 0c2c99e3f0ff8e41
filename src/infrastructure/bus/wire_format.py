"""The message format at the broker: a version, one consumer, and the ids of some events.

Version 1, the keyword arguments of the one actor ``deliver`` in Dramatiq's own message format:

    {"version": 1, "consumer": "SyncKratosIdentity", "event_ids": ["0199…", "0199…"]}

Nothing else goes to the broker: no personal data, no count of attempts. The consumer's name is also
the name of its queue. A release drops a version that it cannot read, and the deliveries are sent
again when their lease runs out. So change the version in two steps: first read the new one, and one
release later write it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from dramatiq import Broker, DecodeError, Message
from dramatiq.errors import ActorNotFound

from kratos_sync.application.application import CONSUMER_NAME

VERSION = 1
ACTOR = "deliver"
# More than any batch has.
MOST_EVENT_IDS = 10_000
MOST_BYTES: Final = 1 << 20
"""More than the largest batch takes; a longer message is not even decoded."""
OPTIONS: Final = {"redis_message_id"}
"""Dramatiq's options that our messages have."""


class UnreadableMessage(Exception):
    """The message is not in a wire format that this release reads."""


@dataclass(frozen=True, slots=True)
class Pointer:
    """Some deliveries of one consumer."""

    consumer: str
    event_ids: tuple[UUID, ...]


def write(consumer: str, event_ids: Sequence[UUID | str]) -> dict[str, object]:
    """Make the message's arguments."""
    return {
        "version": VERSION,
        "consumer": consumer,
        "event_ids": [str(event_id) for event_id in event_ids],
    }


def messages(consumer: str, batches: Iterable[Sequence[UUID | str]]) -> list["Message[None]"]:
    """Make a message for each batch of events."""
    return [
        Message(
            queue_name=consumer, actor_name=ACTOR, args=(), kwargs=write(consumer, ids), options={}
        )
        for ids in batches
    ]


def read(args: Sequence[object], arguments: Mapping[str, object]) -> Pointer:
    """Check and read a message's arguments. Raises UnreadableMessage."""
    consumer, event_ids = arguments.get("consumer"), arguments.get("event_ids")
    version = arguments.get("version")
    if args or type(version) is not int or version != VERSION:
        raise UnreadableMessage("of another version")
    if not isinstance(consumer, str) or not CONSUMER_NAME.fullmatch(consumer):
        raise UnreadableMessage("it names no consumer")
    if not isinstance(event_ids, list) or not 0 < len(event_ids) <= MOST_EVENT_IDS:
        raise UnreadableMessage(f"it does not name between 1 and {MOST_EVENT_IDS} events")
    try:
        return Pointer(consumer, tuple(dict.fromkeys(map(_uuid, event_ids))))
    except ValueError:
        raise UnreadableMessage("an event id is no UUID") from None


def _uuid(value: object) -> UUID:
    # UUID() accepts more than strings, and fails on them in many ways.
    return UUID(value if isinstance(value, str) else "")


def read_message(broker: Broker, queue_name: str, data: bytes | None) -> Message[Any] | None:
    """Decode a message that our actor may be called with; None for garbage."""
    if data is None or len(data) > MOST_BYTES:
        return None
    try:
        message: Message[Any] = Message.decode(data)
        broker.get_actor(message.actor_name)
    except (DecodeError, ActorNotFound, TypeError):
        return None
    # A worker's thread dies of arguments that it cannot call, unknown queues and other options.
    ours = (
        message.queue_name == queue_name
        and type(message.kwargs) is dict
        and "self" not in message.kwargs
        and type(message.options) is dict
        and message.options.keys() <= OPTIONS
    )
    return message if ours else None
