"""The command line of the service, as installed or with a change made first."""

import sys
from collections.abc import Sequence
from pathlib import Path

from tests.end_to_end.service import KRATOS_SYNC

ROOT = Path(__file__).parents[1]


def program(change: str = "") -> Sequence[str]:
    """What takes kratos-sync's arguments; ``change`` is a call of a function in changes.py."""
    if not change:
        return (KRATOS_SYNC,)
    lines = (
        "import sys",
        f"sys.path.insert(0, {str(ROOT)!r})",
        "from benchmarks import changes",
        f"changes.{change}",
        "from kratos_sync.api.cli import main",
        "main()",
    )
    return (sys.executable, "-c", "\n".join(lines))
