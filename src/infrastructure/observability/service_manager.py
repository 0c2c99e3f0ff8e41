"""What systemd passes on to a process, and what it wants to know: sd_listen_fds and sd_notify."""

import os
import socket
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Final

READY: Final = "READY=1"
WATCHDOG: Final = "WATCHDOG=1"
STOPPING: Final = "STOPPING=1"


FIRST_DESCRIPTOR: Final = 3


def listening_socket(environment: MutableMapping[str, str]) -> socket.socket | None:
    """The first socket that systemd listens on for this process, by a unit `….socket`, if any.

    It stays open when the process ends: calls wait in it for the one that is started next.
    """
    process = environment.pop("LISTEN_PID", "")
    number = environment.pop("LISTEN_FDS", "")
    environment.pop("LISTEN_FDNAMES", None)
    if process != str(os.getpid()) or not number.isdecimal() or int(number) < 1:
        return None
    os.set_inheritable(FIRST_DESCRIPTOR, False)
    return socket.socket(fileno=FIRST_DESCRIPTOR)


class ServiceManager:
    """systemd, if it started this process by a unit of `Type=notify`; otherwise nothing is sent.

    ``watchdog_seconds`` is the most that may pass between two WATCHDOG; None where it asks for
    none.
    """

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        """Take what systemd passed on: no child process may take itself for the service."""
        address = environment.pop("NOTIFY_SOCKET", "")
        microseconds = environment.pop("WATCHDOG_USEC", "")
        environment.pop("WATCHDOG_PID", None)
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_seconds = int(microseconds) / 1e6 if microseconds.isdecimal() else None

    def send(self, state: str) -> None:
        """Send a state; what cannot be sent at once is not sent."""
        if self._address:
            with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending:
                sending.setblocking(False)
                sending.sendto(state.encode(), self._address)
