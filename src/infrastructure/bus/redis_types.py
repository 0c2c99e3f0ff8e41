"""What kinds of keys are in our part of a Redis; what is of another kind is moved aside."""

from collections.abc import Iterable
from typing import Final, cast

import redis
import structlog

ASIDE: Final = ":wrong-type"
"""What is behind the name of a key that was moved, once for each name."""

# In one step: whoever else does the same makes a right one in its place.
MOVE: Final = """
local found = redis.call("type", KEYS[1]).ok
if found == ARGV[1] or found == "none" then
    return false
end
redis.call("rename", KEYS[1], KEYS[2])
return found
"""

log = structlog.get_logger()


def is_wrong_type(error: Exception) -> bool:
    """Whether a command, or one of a script, met a key of another kind than it wants."""
    return isinstance(error, redis.ResponseError) and "WRONGTYPE" in str(error)


def move_wrong_types_aside(
    client: redis.Redis, namespace: str, queues: Iterable[str], worker: str
) -> None:
    """Rename every key of ours that has a wrong type, so that a right one can be in its place.

    Raises redis.RedisError.
    """
    heartbeats = f"{namespace}:__heartbeats__"
    _move(client, heartbeats, "zset")
    ids = cast("list[bytes]", client.zrange(heartbeats, 0, -1))
    workers = {worker, *(each.decode(errors="replace") for each in ids)}
    for queue in queues:
        _move(client, f"{namespace}:{queue}", "list")
        _move(client, f"{namespace}:{queue}.msgs", "hash")
        for each in workers:
            _move(client, f"{namespace}:__acks__.{each}.{queue}", "set")


def _move(client: redis.Redis, key: str, wanted: str) -> None:
    found = client.eval(MOVE, 2, key, f"{key}{ASIDE}", wanted)
    if isinstance(found, bytes):
        log.warning("wrong_type_moved_aside", key=key, type=found.decode(), wanted=wanted)
