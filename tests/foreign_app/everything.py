"""A consumer that is subscribed to every event, and receives those of an identity in order."""

from kratos_sync import Consumer, DomainEvent


class NoticeEverything(Consumer[DomainEvent]):
    """Notices every event, and does nothing about it."""

    name, ordered = "NoticeEverything", True

    def consume(self, event: DomainEvent) -> None:
        pass
