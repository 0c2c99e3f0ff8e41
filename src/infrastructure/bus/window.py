"""How much of a backlog may be dispatched at a time."""

FIRST_BATCHES = 4
MOST_BATCHES = 100


class Window:
    """The most deliveries of one consumer that may be under lease.

    It grows while the workers run out of work between two looks of the relay, and shrinks when
    leases ran out before they got to it: so what is dispatched is what they finish well within a
    lease, and a backlog waits in the ledger, not in Redis. It is filled up when it is half empty:
    of large claims, what concerns one identity can share a batch.
    """

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self.size = FIRST_BATCHES * batch_size

    def room(self, leased: int) -> int:
        """How many more may be dispatched while so many are under lease and more are due."""
        if leased <= self.size // 4:
            self.size = min(2 * self.size, MOST_BATCHES * self._batch_size)
        return self.size - leased if leased <= self.size // 2 else 0

    def leases_ran_out(self) -> None:
        """Dispatch less from now on."""
        self.size = max(self.size // 4, self._batch_size)
