"""Messages from the broker are input: what is not ours is dropped before anybody calls it."""

from typing import Any, Final

from dramatiq import Broker, DecodeError, Message
from dramatiq.errors import ActorNotFound

MOST_BYTES: Final = 1 << 20
"""More than the largest batch takes; what is longer is not even decoded."""
OPTIONS: Final = {"redis_message_id"}
"""All that a message of ours has of what Dramatiq calls options."""


def read(broker: Broker, queue_name: str, data: bytes | None) -> Message[Any] | None:
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
