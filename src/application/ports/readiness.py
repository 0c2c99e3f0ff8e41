"""Finding out whether something that the service cannot do without is there."""

from typing import Protocol


class ReadinessCheck(Protocol):
    """A look at one thing, such as the database, that bounds its own time."""

    @property
    def name(self) -> str:
        """What is looked at, in a word that a stranger may read."""

    def check(self) -> None:
        """Return if it is there; raise anything if not."""
