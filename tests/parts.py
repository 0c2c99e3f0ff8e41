"""The processes of a `kratos-sync all`."""

import psutil

API, DELIVERY = "api", "delivery"


def part_of(child: psutil.Process) -> str | None:
    """Which part a child of the supervisor is; None while it is being started, or has ended."""
    try:
        prefix, _, part = child.name().partition("kratos-")
    except psutil.Error:
        return None
    return part if not prefix and part in {API, DELIVERY} else None
