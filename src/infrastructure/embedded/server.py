"""What both embedded servers share: one owner, a clean end, and finding an orphaned server."""

import fcntl
import os
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib import metadata
from pathlib import Path
from signal import Signals
from typing import ClassVar, Self

START_SECONDS = 30.0
STOP_SECONDS = 3.0
"""For each of a server's stop signals, before the next and harder one."""
POLL_SECONDS = 0.02
ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C"}
"""A server's whole environment: no PGPORT or PGDATA of the person who starts it."""


class EmbeddedServerError(Exception):
    """An embedded server is not available; the message is one line for a person."""


class ServerNotInstalled(EmbeddedServerError):
    """The wheel with the server is not installed, or there is none for this platform."""


class DirectoryInUse(EmbeddedServerError):
    """Another process runs a server in this directory."""


class ServerFailed(EmbeddedServerError):
    """The server did not start, or does not stop."""


class EmbeddedServer(ABC):
    """A server whose data stays in a directory: started on entering, stopped on leaving.

    A directory has one owner at a time. A server left running by an owner that was killed is
    stopped before a new one starts on its data. Entering raises EmbeddedServerError.
    """

    name: ClassVar[str]
    stop_signals: ClassVar[tuple[Signals, ...]]
    url: str
    """Where it listens; there once it has started."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory.absolute()
        self._process: subprocess.Popen[bytes] | None = None
        self._undo = ExitStack()

    @property
    def log(self) -> Path:
        """What the server wrote since its last start."""
        return self._directory / "log"

    @property
    def pid(self) -> int | None:
        """The server's process; None if it is not known to run."""
        if self._process is not None:
            return self._process.pid
        with suppress(OSError, ValueError, IndexError):
            return int(self._pid_file().read_text().split()[0])
        return None

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            try:
                self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                undo.enter_context(owned(self._directory, self.name))
                undo.callback(self._end)
                self._end()
                self._start(self._prepare(undo))
            except OSError as error:
                raise ServerFailed(f"{self.name} in {self._directory}: {error}") from error
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    @abstractmethod
    def _prepare(self, undo: ExitStack) -> list[str]:
        """Prepare what the server needs, set ``url``, and give the command that runs it."""

    @abstractmethod
    def _pid_file(self) -> Path:
        """The file in which the server itself writes its process id."""

    @abstractmethod
    def _is_ready(self) -> bool:
        """Whether the server that was just started answers."""

    def _identity(self) -> tuple[int, int] | None:
        """The user and group to run as; None for those of this process."""
        return None

    def _start(self, command: list[str]) -> None:
        user, group = self._identity() or (None, None)
        with self._server_lock().open("a") as lock, self.log.open("wb") as log:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The server inherits the locked file, and the kernel frees the lock when it ends: so an
            # orphan is distinguished from another process that has its pid now.
            self._process = subprocess.Popen(  # noqa: S603
                command,
                cwd=self._directory,
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=[lock.fileno()],
                user=user,
                group=group,
                extra_groups=None if user is None else [],
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                lines = self.log.read_text(errors="replace").split("\n")
                written = [line for line in lines if line.strip()] or ["its log is empty"]
                why = next((line for line in written if "FATAL" in line), written[-1])
                raise ServerFailed(f"{self.name} did not start: {why} (see {self.log})")
            time.sleep(POLL_SECONDS)

    def _end(self) -> None:
        for signal in self.stop_signals:
            deadline = time.monotonic() + STOP_SECONDS
            is_sent = False
            while (running := self._is_running()) and time.monotonic() < deadline:
                if not is_sent and (pid := self.pid) is not None:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal)
                    is_sent = True
                time.sleep(POLL_SECONDS)
            if not running:
                break
        else:
            raise ServerFailed(f"{self.name} in {self._directory} does not stop (pid {self.pid}).")
        if self._process is not None:
            self._process.wait(STOP_SECONDS)
            self._process = None

    def _is_running(self) -> bool:
        with self._server_lock().open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def _server_lock(self) -> Path:
        return self._directory / "server.lock"


@contextmanager
def owned(directory: Path, runs: str) -> Iterator[None]:
    """Reserve a directory for this process, which ``runs`` something there.

    Raises DirectoryInUse.
    """
    with (directory / "owner.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DirectoryInUse(
                f"{directory} is in use: another process runs {runs} there."
            ) from None
        try:
            yield
        finally:
            # Closing is not enough: a fork may hold the file open.
            fcntl.flock(file, fcntl.LOCK_UN)


def program(distribution: str, path: str) -> Path:
    """The program that a wheel installed at a path that ends so. Raises ServerNotInstalled."""
    with suppress(metadata.PackageNotFoundError):
        for file in metadata.files(distribution) or ():
            if file.match(path):
                return Path(str(file.locate()))
    raise ServerNotInstalled(
        f"{distribution} is not installed (the extra kratos-identity-sync[embedded], on platforms "
        "that have it): set DATABASE_URL and BROKER_URL to servers of your own."
    )
