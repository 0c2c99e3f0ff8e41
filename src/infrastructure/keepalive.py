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


def named_options(unacknowledged: timedelta = UNACKNOWLEDGED) -> dict[str, int]:
    """These limits as options of a TCP socket, by their names."""
    return {
        "TCP_KEEPIDLE": IDLE_SECONDS,
        "TCP_KEEPINTVL": INTERVAL_SECONDS,
        "TCP_KEEPCNT": PROBES,
        "TCP_USER_TIMEOUT": round(unacknowledged / timedelta(milliseconds=1)),
    }


def socket_options() -> Mapping[int, int]:
    """The same by their numbers, as far as this platform has them."""
    return {
        getattr(socket, name): value
        for name, value in named_options().items()
        if hasattr(socket, name)
    }
