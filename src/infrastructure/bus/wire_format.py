"""What a message on the broker says: version, one consumer, and the ids of some events.

Version 1, the keyword arguments of the one actor ``deliver`` in Dramatiq's own message format:

    {"version": 1, "consumer": "SyncKratosIdentity", "event_ids": ["0199…", "0199…"]}

Nothing else ever goes to the broker: no personal data, no count of attempts. The consumer's name
is also the name of its queue. A version that a release cannot read is dropped by it; the lease of
these deliveries runs out, and they are sent again. So change it in two steps: first read the new
version, and one release later write it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from dramatiq import Broker, DecodeError, Message
from dramatiq.errors import ActorNotFound

VERSION = 1
ACTOR = "deliver"
# More than any batch holds; a message with more is not ours.
MOST_EVENT_IDS = 10_000
# What a name may look like: one that is not known is logged.
CONSUMER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,99}")


class UnreadableMessage(Exception):
    """The message is not in a wire format that this release reads."""


@dataclass(frozen=True, slots=True)
class Pointer:
    """Some deliveries of one consumer."""

    consumer: str
    event_ids: tuple[UUID, ...]


def write(consumer: str, event_ids: Sequence[UUID | str]) -> dict[str, object]:
    """Give the message's arguments."""
    return {
        "version": VERSION,
        "consumer": consumer,
        "event_ids": [str(event_id) for event_id in event_ids],
    }


def read(args: Sequence[object], arguments: Mapping[str, object]) -> Pointer:
    """Read a message's arguments, whoever wrote them. Raises UnreadableMessage."""
    consumer, event_ids = arguments.get("consumer"), arguments.get("event_ids")
    version = arguments.get("version")
    if args or type(version) is not int or version != VERSION:
        raise UnreadableMessage("of another version")
    if not isinstance(consumer, str) or not CONSUMER.fullmatch(consumer):
        raise UnreadableMessage("it names no consumer")
    if not isinstance(event_ids, list) or not 0 < len(event_ids) <= MOST_EVENT_IDS:
        raise UnreadableMessage(f"it does not name between 1 and {MOST_EVENT_IDS} events")
    try:
        return Pointer(consumer, tuple(dict.fromkeys(map(_uuid, event_ids))))
    except ValueError:
        raise UnreadableMessage("an event id is no UUID") from None


def _uuid(value: object) -> UUID:
    # UUID() takes much more than a string, and fails on it in as many ways.
    return UUID(value if isinstance(value, str) else "")


MOST_BYTES: Final = 1 << 20
"""More than the largest batch takes; what is longer is not even decoded."""
OPTIONS: Final = {"redis_message_id"}
"""All that a message of ours has of what Dramatiq calls options."""


def read_message(broker: Broker, queue_name: str, data: bytes | None) -> Message[Any] | None:
    """Give the message if it is one that our actor may be called with; None for garbage."""
    if data is None or len(data) > MOST_BYTES:
        return None
    try:
        message: Message[Any] = Message.decode(data)
        broker.get_actor(message.actor_name)
    except (DecodeError, ActorNotFound, TypeError):
        return None
    # A worker thread dies of what it cannot call, of a queue that it does not know, and of options
    # that are not what Dramatiq thinks.
    ours = (
        message.queue_name == queue_name
        and type(message.kwargs) is dict
        and "self" not in message.kwargs
        and type(message.options) is dict
        and message.options.keys() <= OPTIONS
    )
    return message if ours else None
