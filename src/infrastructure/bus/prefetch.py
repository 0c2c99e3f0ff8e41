"""How many messages of one queue a worker may hold."""

from dataclasses import dataclass
from typing import Generic, TypeVar

Key = TypeVar("Key")


@dataclass(frozen=True, slots=True)
class Share(Generic[Key]):
    """A queue's share of a worker: what its threads have in hand, and how much that may be.

    The same ``in_hand`` goes from a consumer that lost its connection to the one that follows.
    """

    queue_name: str
    most: int
    in_hand: set[Key]

    @property
    def room(self) -> int:
        """How many messages more may be taken."""
        return max(self.most - len(self.in_hand), 0)


def bounded(prefetch: int) -> int:
    """Turn the two for each thread that Dramatiq asks for into one for each thread but one.

    So a consumer that hangs never takes all threads of a worker from the others. One message is a
    whole batch, and those that waited here would be missed by a worker next door.
    """
    return max(prefetch // 2 - 1, 1)
