"""A pipe by which processes notice that the tests which started them were killed."""

import os

from kratos_sync.infrastructure.worker.child_processes import PARENT_PIPE


class ParentPipe:
    """A pipe whose reading end processes inherit; they end by themselves once it is closed."""

    def __init__(self) -> None:
        self.inherited, self._ours = os.pipe()

    @property
    def environment(self) -> dict[str, str]:
        """What lets a process watch the end that it inherits."""
        return {PARENT_PIPE: str(self.inherited)}

    def close(self) -> None:
        """Close both ends: whatever still runs ends."""
        os.close(self._ours)
        os.close(self.inherited)
