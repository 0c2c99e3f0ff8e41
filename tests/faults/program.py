"""`kratos-sync` with the suite's own consumers, bounded memory, and a clock that can jump.

python -m tests.faults.program api|relay|worker|all …
"""

import json
import os
import resource
import sys
from typing import Final

from kratos_sync.infrastructure.worker import supervisor

MEMORY: Final = "FAULTS_MEMORY_BYTES"
"""The variable that says how much address space the process may have."""
PARTS: Final = "FAULTS_PARTS"
"""The variable with what each part of `kratos-sync all` has in its environment, as JSON."""


SUPERVISING: Final = frozenset({"worker", "all"})
"""Commands whose children do the work."""


def main() -> None:
    """Be `kratos-sync`, in each process that works with what its environment wants."""
    os.environ["KRATOS_SYNC_APP"] = "tests.faults.application:app"
    supervise = supervisor.supervise

    def supervise_prepared(*parts: str) -> supervisor.Supervised:
        child = supervise(*parts)
        prepare(child.part)
        return child

    supervisor.supervise = supervise_prepared
    if sys.argv[1] not in SUPERVISING:
        prepare()
    from kratos_sync.api.cli import main as kratos_sync

    sys.argv[0] = "kratos-sync"
    kratos_sync()


def prepare(part: str = "") -> None:
    """Take on the part's environment, the bounds of memory, and the clock."""
    from tests.faults import clock

    os.environ.update(json.loads(os.environ.get(PARTS, "{}")).get(part, {}))
    if limit := int(os.environ.get(MEMORY, "0")):
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    clock.follow(os.environ)


if __name__ == "__main__":
    main()
