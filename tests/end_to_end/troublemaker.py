"""`kratos-sync` with a consumer that gets into whatever trouble a person's traits name.

    python troublemaker.py api|relay|worker …

A trouble that ends with "once" comes over a person's first event only; a file named after it stands
for that in the current folder.
"""

import asyncio
import ctypes
import os
import re
import signal
import socket
import sys
import time
from contextlib import suppress
from datetime import date, timedelta
from pathlib import Path
from typing import Final

from kratos_sync.application.application import Application
from kratos_sync.application.consumer import Consumer, RetryLater
from kratos_sync.application.consumers.count_registrations import RegistrationCounts
from kratos_sync.domain.events import KratosIdentityUpdated
from kratos_sync.infrastructure.worker import supervisor

DAY_OF_EFFECTS: Final = date(1970, 1, 1)


class GetIntoTrouble(Consumer[KratosIdentityUpdated]):
    """Counts each event that went well, on a day long past."""

    name = "GetIntoTrouble"
    max_attempts = 3
    first_backoff = timedelta(milliseconds=200)
    time_limit = timedelta(seconds=1.5)
    gives_up_on = (LookupError,)

    def __init__(self, counts: RegistrationCounts) -> None:
        self._counts = counts

    def consume(self, event: KratosIdentityUpdated) -> None:
        """Count, and then get into trouble."""
        self._counts.add_one(DAY_OF_EFFECTS)
        get_into(trouble_of(event))


class AwaitTrouble(Consumer[KratosIdentityUpdated]):
    """Async: it gets into what is named ``await-…``, and blocks the event loop by it."""

    name = "AwaitTrouble"
    first_backoff = timedelta(milliseconds=200)
    time_limit = timedelta(seconds=1.5)

    async def consume(self, event: KratosIdentityUpdated) -> None:
        """Await something, and then get into trouble."""
        await asyncio.sleep(0)
        get_into(trouble_of(event, "await-"))


def trouble_of(event: KratosIdentityUpdated, prefix: str = "") -> str:
    """The trouble that is left for this event; nothing if it came over it once."""
    trouble = str((event.identity.traits or {}).get("trouble", ""))
    kind, _, once = trouble.partition(" ")
    if not kind.startswith(prefix) or (kind.startswith("await-") and not prefix):
        return ""
    if once:
        seen = Path(f"trouble-{event.id}")
        if seen.exists():
            return ""
        seen.touch()
    return kind.removeprefix(prefix)


def get_into(kind: str) -> None:
    if kind:
        TROUBLES[kind]()


def _spin() -> None:
    while True:
        pass


def _swallow() -> None:
    while True:
        with suppress(BaseException):
            _spin()


def _wait_for_a_socket() -> None:
    ours, _theirs = socket.socketpair()
    ours.recv(1)


def _hold_the_interpreter() -> None:
    re.match(r"(a+)+$", "a" * 60 + "b")


def _raise(error: Exception) -> None:
    raise error


TROUBLES: Final = {
    "spin": _spin,
    "swallow": _swallow,
    "sleep": lambda: time.sleep(3_600),
    "socket": _wait_for_a_socket,
    "hold": _hold_the_interpreter,
    "exit": lambda: os._exit(3),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "segfault": lambda: ctypes.string_at(0),
    "raise": lambda: _raise(ValueError("no 42 for 'Ada'")),
    "final": lambda: _raise(KeyError("nobody")),
    "later": lambda: _raise(RetryLater(timedelta(seconds=1))),
}


app = Application(subscriptions={KratosIdentityUpdated: [GetIntoTrouble, AwaitTrouble]})


def main() -> None:
    """Subscribe, and be `kratos-sync` with short time limits."""
    os.environ["KRATOS_SYNC_APP"] = "troublemaker:app"
    supervisor.LIVED_WELL_SECONDS = 0.0
    if "METRICS_PORT" in os.environ:
        from kratos_sync.api.cli import reconcile
        from kratos_sync.infrastructure.observability import ledger_exporter

        reconcile.POLL_SECONDS = ledger_exporter.READ_SECONDS = 1.0
    if sys.argv[1] in {"all", "worker"}:
        from kratos_sync.application.pipeline import concurrently
        from kratos_sync.infrastructure.worker import process, watchdog

        concurrently.GRACE_SECONDS = 0.3
        watchdog.CUT_AFTER, watchdog.HUNG_AFTER = 0.5, 1.5
        process.POLL_MILLISECONDS = 100
    from kratos_sync.api.cli import main as kratos_sync

    kratos_sync()


if __name__ == "__main__":
    main()
