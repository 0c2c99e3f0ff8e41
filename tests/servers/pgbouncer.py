"""A real PgBouncer in transaction mode, with the settings that the documentation shows."""

import os
import pwd
import re
import shutil
import socket
import subprocess
from configparser import ConfigParser
from contextlib import ExitStack, suppress
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGTERM
from typing import Final

from sqlalchemy import make_url

from kratos_sync.infrastructure.embedded.postgres import _let_pass
from kratos_sync.infrastructure.embedded.server import EmbeddedServer
from tests.ports import free_port

SETTINGS: Final = Path(__file__).parents[2] / "deploy/pgbouncer/pgbouncer.ini"
LEAST: Final = (1, 22)
"""The oldest version that keeps clients' prepared statements apart, and forgets them when asked."""


def program() -> str | None:
    """The newest PgBouncer here, if it is new enough."""
    for found in (os.environ.get("TEST_PGBOUNCER"), shutil.which("pgbouncer")):
        if found and version_of(found) >= LEAST:
            return found
    return None


def version_of(found: str) -> tuple[int, ...]:
    """Such as (1, 24, 1)."""
    said = subprocess.run([found, "--version"], capture_output=True, check=True, timeout=10).stdout
    number = re.search(rb"PgBouncer (\d+)\.(\d+)\.(\d+)", said)
    assert number is not None
    return tuple(int(each) for each in number.groups())


class Pgbouncer(EmbeddedServer):
    """Leads to any database of a PostgreSQL, as the user who is named in the URL."""

    name = "PgBouncer"
    stop_signals = (SIGINT, SIGTERM, SIGKILL)

    def __init__(self, directory: Path, servers_url: str, **settings: str) -> None:
        """``settings`` are set on top of the documented ones."""
        super().__init__(directory)
        url = make_url(servers_url)
        host = str(url.query.get("host") or url.host)
        self._server = f"host={host} port={url.query.get('port') or url.port}"
        self.port = free_port()
        self._settings = settings

    def leading_to(self, url: str) -> str:
        """The URL of a database by way of this pooler."""
        through = make_url(url).set(host="127.0.0.1", port=self.port, query={})
        return through.render_as_string(hide_password=False)

    def _prepare(self, undo: ExitStack) -> list[str]:
        found = program()
        assert found is not None
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
        self._pid_file().unlink(missing_ok=True)
        users = self._directory / "users.txt"
        users.write_text('"postgres" ""\n')
        settings = ConfigParser(interpolation=None)
        settings.read_string(SETTINGS.read_text())
        settings["databases"] = {"*": self._server}
        own = {
            "listen_port": str(self.port),
            "unix_socket_dir": "",
            "auth_type": "trust",
            "auth_file": str(users),
            "pidfile": str(self._pid_file()),
            **self._settings,
        }
        settings["pgbouncer"].update(own)
        file = self._directory / "pgbouncer.ini"
        with file.open("w") as written:
            settings.write(written)
        if (identity := self._identity()) is not None:
            os.chown(self._directory, *identity)
            for folder in self._directory.parents:
                _let_pass(folder)
        return [found, str(file)]

    def _pid_file(self) -> Path:
        return self._directory / "pgbouncer.pid"

    def _is_ready(self) -> bool:
        with (
            suppress(OSError),
            socket.create_connection(("127.0.0.1", self.port), timeout=1),
        ):
            return True
        return False

    def _identity(self) -> tuple[int, int] | None:
        if os.geteuid() != 0:
            return None
        nobody = pwd.getpwnam("nobody")
        return nobody.pw_uid, nobody.pw_gid
