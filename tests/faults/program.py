"""`kratos-sync` with the suite's own consumers, bounded memory, and a clock that can jump.

python -m tests.faults.program api|relay|worker|all …
"""

import json
import os
import resource
import sys
from typing import Final

from kratos_sync.infrastructure.worker.supervisor import SUPERVISED

MEMORY: Final = "FAULTS_MEMORY_BYTES"
"""The variable that says how much address space the process may have."""
PARTS: Final = "FAULTS_PARTS"
"""The variable with what each part of `kratos-sync all` has in its environment, as JSON."""


def main() -> None:
    """Prepare, then be `kratos-sync`."""
    os.environ["KRATOS_SYNC_APP"] = "tests.faults.application:app"
    if supervised := os.environ.get(SUPERVISED):
        parts = json.loads(os.environ.get(PARTS, "{}"))
        os.environ.update(parts.get(json.loads(supervised)[-1], {}))
    if limit := int(os.environ.get(MEMORY, "0")):
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    from kratos_sync.api.cli import main as kratos_sync
    from tests.faults import clock

    clock.follow(os.environ)
    sys.argv[0] = "kratos-sync"
    kratos_sync()


if __name__ == "__main__":
    main()
