"""`kratos-sync` with the suite's own consumers, bounded memory, and a clock that can jump.

python -m tests.faults.program api|relay|worker …
"""

import os
import resource
import sys
from typing import Any, Final, cast

MEMORY: Final = "FAULTS_MEMORY_BYTES"
"""The variable that says how much address space the process may have."""


def main() -> None:
    """Prepare, then be `kratos-sync`."""
    subscribe()
    if limit := int(os.environ.get(MEMORY, "0")):
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    from kratos_sync.api.cli import main as kratos_sync
    from tests.faults import clock

    serve_effects()
    clock.follow(os.environ)
    sys.argv[0] = "kratos-sync"
    kratos_sync()


def subscribe() -> None:
    """Add the suite's consumers to the table, before anybody reads it."""
    from kratos_sync.application import subscriptions
    from kratos_sync.domain.events import IdentityTraitsChanged, KratosIdentityUpdated
    from tests.faults.consumers import GetIntoTrouble, WriteEffect, WriteFactEffect

    table = cast("dict[Any, Any]", subscriptions.SUBSCRIPTIONS)
    table[KratosIdentityUpdated] += (WriteEffect, GetIntoTrouble)
    table[IdentityTraitsChanged] = (*table.get(IdentityTraitsChanged, ()), WriteFactEffect)
    names = cast("dict[str, Any]", subscriptions.CONSUMERS)
    names.update({c.name: c for c in (WriteEffect, GetIntoTrouble, WriteFactEffect)})


def serve_effects() -> None:
    """Let the container serve the port that the suite's consumers ask for."""
    from dependency_injector import providers

    from kratos_sync.infrastructure.container import Container
    from tests.faults.consumers import Effects
    from tests.faults.effects import PostgresEffects

    Container.consumers.kwargs["in_transaction"].add_kwargs(
        {Effects: providers.Factory(PostgresEffects).provider}
    )


if __name__ == "__main__":
    main()
