"""How soon a connection counts as lost when the other host has gone without a word.

TCP alone waits for a quarter of an hour for what it sent to be acknowledged, and for ever if
nothing was sent.
"""

import socket
from collections.abc import Mapping
from datetime import timedelta
from typing import Final

IDLE_SECONDS: Final = 5
"""An idle connection is probed after so long,"""
INTERVAL_SECONDS: Final = 3
"""again after so long,"""
PROBES: Final = 2
"""and lost after so many."""
UNACKNOWLEDGED: Final = timedelta(seconds=10)
"""The same for what was sent and is not acknowledged."""


def socket_options() -> Mapping[int, int]:
    """These limits as options of a TCP socket, as far as this platform has them."""
    options = {
        "TCP_KEEPIDLE": IDLE_SECONDS,
        "TCP_KEEPINTVL": INTERVAL_SECONDS,
        "TCP_KEEPCNT": PROBES,
        "TCP_USER_TIMEOUT": round(UNACKNOWLEDGED / timedelta(milliseconds=1)),
    }
    return {
        getattr(socket, name): value for name, value in options.items() if hasattr(socket, name)
    }
