"""`kratos-sync` of a release that does not know `kratos_identity.updated` yet.

python older_release.py worker
"""

from datetime import timedelta
from types import MappingProxyType

from kratos_sync.domain import events


def main() -> None:
    """Run `kratos-sync` without one kind of event, whose deliveries it postpones by a second."""
    unknown = events.KratosIdentityUpdated
    known = {name: kind for name, kind in events.EVENTS.items() if kind is not unknown}
    from kratos_sync.application.pipeline import transaction
    from kratos_sync.infrastructure.ledger import inbox

    transaction.EVENTS = MappingProxyType(known)

    inbox.POSTPONED_FOR = timedelta(seconds=1)
    from kratos_sync.api.cli import main as kratos_sync

    kratos_sync()


if __name__ == "__main__":
    main()
