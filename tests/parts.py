"""The processes of a `kratos-sync all`."""

import json

import psutil

from kratos_sync.infrastructure.worker.supervisor import SUPERVISED

API, DELIVERY = "api", "delivery"


def part_of(child: psutil.Process) -> str | None:
    """Which part a child of the supervisor is; None while it is being started, or has ended."""
    try:
        return str(json.loads(child.environ()[SUPERVISED])[-1])
    except (KeyError, psutil.Error):
        return None
