"""The highest rate of webhooks that a server takes, found with wrk."""

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.end_to_end.service import KEY
from tests.recorded import Call

PATH = "/kratos/sync-identity"
CONNECTIONS = 64
SCRIPT = Path(__file__).with_name("webhooks.lua")


class WrkNotInstalled(Exception):
    """wrk is not installed: apt-get install wrk (Debian, Ubuntu) or brew install wrk (macOS)."""


def require_wrk() -> str:
    """Give the program. Raises WrkNotInstalled."""
    if (program := shutil.which("wrk")) is None:
        raise WrkNotInstalled(WrkNotInstalled.__doc__)
    return program


def write_bodies(folder: Path, calls: Sequence[Call]) -> Path:
    """Write the calls' bodies into a file, each in a line."""
    file = folder / "bodies"
    file.write_bytes(b"".join(call.body + b"\n" for call in calls))
    return file


def load(address: str, bodies: Path, seconds: int) -> dict[str, Any]:
    """Send webhooks as fast as they are answered; ``rate`` is of those answered with success."""
    command = [
        *(require_wrk(), "--threads", "1", "--connections", str(CONNECTIONS)),
        *("--duration", f"{seconds}s", "--timeout", "10s", "--script", str(SCRIPT), address),
        *("--", PATH, KEY, str(bodies)),
    ]
    done = subprocess.run(command, capture_output=True, check=True, text=True)  # noqa: S603
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    figures["accepted"] = figures["requests"] - figures["refused"]
    figures["rate"] = round(figures["accepted"] / figures["seconds"], 1)
    return figures
