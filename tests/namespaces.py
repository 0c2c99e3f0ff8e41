"""Network namespaces: hosts of their own, as far as sockets can see."""

import ctypes
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from signal import SIGKILL
from typing import Final

import psutil

from tests.waiting import until

CLONE_NEWNET: Final = 0x40000000
IP_SECONDS: Final = 10
MOUNTED: Final = Path("/run/netns")
_OURS: Final = re.compile(r"ks(\d+)-\d+-")
_numbers: Final = count()


def why_not() -> str | None:
    """Why none can be made here, if so."""
    if os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("setpriv") is None:
        return "network namespaces need root, ip and setpriv"
    trial = Namespace("trial")
    try:
        trial.add()
    except subprocess.CalledProcessError:
        return "network namespaces cannot be made here"
    trial.remove()
    return None


class Namespace:
    """A network namespace, whose name no other run uses."""

    def __init__(self, host: str) -> None:
        self.name = f"ks{os.getpid()}-{next(_numbers)}-{host}"

    def add(self) -> None:
        """Add it, with nothing but a loopback interface."""
        ip("netns", "add", self.name)
        self.ip("link", "set", "lo", "up")

    def remove(self) -> None:
        """Remove it. Processes in it go on, and reach nobody but themselves."""
        ip("netns", "del", self.name)

    def ip(self, *words: str) -> str:
        """Run `ip` on it, and give what it prints."""
        return ip("-n", self.name, *words)

    def ip_all(self, lines: Iterable[str]) -> None:
        """Run many commands of `ip` on it at once."""
        _run("ip", "-n", self.name, "-batch", "-", given="\n".join(lines))

    def await_port(self, port: str) -> None:
        """Wait until its bridge forwards what comes at a port: Linux notices a carrier later."""
        until(lambda: "state forwarding" in self.ip("-details", "link", "show", port))

    def command(self, command: list[str]) -> list[str]:
        """The command that runs another one there."""
        return [str(shutil.which("ip")), "netns", "exec", self.name, *command]

    def run(self, command: list[str], user: int, group: int) -> list[str]:
        """The same as another user."""
        as_user = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups"]
        return self.command([*as_user, *command])

    def enter(self) -> None:
        """Let the sockets that this thread makes from now on be there."""
        with (MOUNTED / self.name).open("rb") as there:
            _set_namespace(there.fileno())

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Let the sockets that this thread makes meanwhile be there."""
        with Path("/proc/thread-self/ns/net").open("rb") as before:
            self.enter()
            try:
                yield
            finally:
                _set_namespace(before.fileno())


def ip(*words: str) -> str:
    """Run `ip`, and give what it prints. Raises subprocess.CalledProcessError."""
    return _run("ip", *words)


def remove_left() -> None:
    """Remove the namespaces that runs left which were killed, with all that runs there."""
    for name in MOUNTED.iterdir() if MOUNTED.is_dir() else ():
        left = _OURS.match(name.name)
        if left is None or psutil.pid_exists(int(left[1])):
            continue
        with suppress(subprocess.CalledProcessError):  # another run may be doing the same
            for pid in ip("netns", "pids", name.name).split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), SIGKILL)
            ip("netns", "del", name.name)


def _run(*command: str, given: str | None = None) -> str:
    return subprocess.run(
        command, input=given, capture_output=True, check=True, text=True, timeout=IP_SECONDS
    ).stdout


def _set_namespace(descriptor: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
