"""Servers that want a password, which go away and come back, and what they wrote meanwhile."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import redis
from sqlalchemy import make_url

from kratos_sync.infrastructure.embedded import EmbeddedPostgres
from tests.infrastructure.bus.servers import ReturningValkey
from tests.ports import free_port
from tests.waiting import DEADLINE_SECONDS

ACCESS = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"


class GuardedPostgres(EmbeddedPostgres):
    """A PostgreSQL on the loopback interface; what it logged is kept when it goes away."""

    def __init__(self, directory: Path) -> None:
        self._port = str(free_port())
        self._access = directory / "hba"
        self._logged = ""
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self._port,
            "hba_file": str(self._access),
        }
        super().__init__(directory, settings)

    def _prepare(self, undo: ExitStack) -> list[str]:
        self._access.write_text(ACCESS)
        command = super()._prepare(undo)
        url = make_url(self.url).update_query_dict({"port": self._port})
        self.url = url.render_as_string(hide_password=False)
        return command

    def url_for(self, user: str, password: str, database: str) -> str:
        """Where a role reaches a database by password."""
        return f"postgresql://{user}:{quote(password, safe='')}@127.0.0.1:{self._port}/{database}"

    def execute(self, statement: str, *parameters: object, database: str = "postgres") -> list[Any]:
        """Run a statement as superuser."""
        url = make_url(self.url).set(database=database).render_as_string(hide_password=False)
        with psycopg.connect(url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), parameters or None)
            return cursor.fetchall() if cursor.description else []

    @contextmanager
    def away(self) -> Iterator[None]:
        """Be stopped for a while."""
        self._logged = self.logged()
        self.__exit__(None, None, None)
        self.log.unlink()
        try:
            yield
        finally:
            self.__enter__()

    def logged(self) -> str:
        """All that the server itself has logged."""
        return self._logged + (self.log.read_text() if self.log.exists() else "")


class GuardedValkey(ReturningValkey):
    """A Valkey that wants a password."""

    def __init__(self, directory: Path, password: str) -> None:
        super().__init__(directory)
        self._password = password

    def start(self) -> None:
        """Listen, and want the password at once."""
        self.__enter__()
        with redis.Redis.from_url(self.url) as client:
            client.config_set("requirepass", self._password)

    def url_with(self, password: str) -> str:
        """Where it is reached by that password."""
        return self.url.replace("://", f"://:{quote(password, safe='')}@")

    def client(self, password: str | None = None) -> redis.Redis:
        """A client that knows the password."""
        return redis.Redis.from_url(self.url_with(password or self._password), socket_timeout=10)

    @contextmanager
    def away(self) -> Iterator[None]:
        """Be stopped for a while."""
        self.go_away()
        try:
            yield
        finally:
            self.start()

    @contextmanager
    def wanting(self, other_password: str) -> Iterator[None]:
        """Refuse everybody, as after a change of password that somebody does not know of."""
        with self.client() as client:
            client.config_set("requirepass", other_password)
            client.client_kill_filter(_type="normal", skipme=True)
            client.client_kill_filter(_type="pubsub")
        yield
        with self.client(other_password) as client:
            client.config_set("requirepass", self._password)

    def written(self) -> bytes:
        """Every command that ever changed something here, and the server's own log."""
        files = [*self._directory.rglob("*.aof"), *self._directory.rglob("*.rdb"), self.log]
        return b"".join(file.read_bytes() for file in files)

    def held(self) -> dict[str, bytes]:
        """Everything that stands here now."""
        with self.client() as client:
            return {repr(key): key + b" " + _value(client, key) for key in client.scan_iter()}


def _value(client: redis.Redis, key: bytes) -> bytes:
    read = {
        b"string": client.get,
        b"hash": client.hgetall,
        b"list": lambda name: client.lrange(name, 0, -1),
        b"set": client.smembers,
        b"zset": lambda name: client.zrange(name, 0, -1, withscores=True),
    }
    kind: bytes = client.type(key)
    if kind == b"none":
        return b""
    return _joined(read[kind](key))


def _joined(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, dict):
        value = value.items()
    if isinstance(value, list | tuple | set) or hasattr(value, "__iter__"):
        return b" ".join(map(_joined, value))
    return str(value).encode()


class Monitor:
    """Receives by MONITOR what a Valkey is sent; connects again after an outage."""

    def __init__(self, valkey: GuardedValkey) -> None:
        self._valkey = valkey
        self._stopped = threading.Event()
        self._lines = bytearray()
        self._thread = threading.Thread(target=self._listen, daemon=True)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen meanwhile."""
        self._thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            self._thread.join(DEADLINE_SECONDS)

    def lines(self) -> bytes:
        """All of it, without what spells bytes that are no ASCII."""
        return bytes(self._lines)

    def _listen(self) -> None:
        while not self._stopped.is_set():
            with suppress(redis.RedisError, OSError), self._valkey.client() as client:
                connection = client.connection_pool.get_connection()
                connection.send_command("MONITOR")
                while not self._stopped.is_set():
                    if connection.can_read(timeout=0.2):
                        self._lines += connection.read_response() + b"\n"
            self._stopped.wait(0.1)
