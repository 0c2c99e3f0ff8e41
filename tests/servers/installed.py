"""PostgreSQL, PgBouncer and Redis where the system's packages are installed."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from kratos_sync.infrastructure.embedded import EmbeddedPostgres, EmbeddedValkey
from tests.servers import pgbouncer

DEBIAN: Final = Path("/usr/lib/postgresql")


def postgres() -> Path | None:
    """The oldest PostgreSQL here."""
    found = sorted(DEBIAN.glob("*/bin/postgres"), key=lambda each: int(each.parts[-3]))
    return found[0] if found else None


class InstalledPostgres(EmbeddedPostgres):
    """The oldest PostgreSQL that is installed here, in place of the wheel's."""

    locale = ("--locale=C.UTF-8",)

    def _program(self) -> Path:
        found = postgres()
        assert found is not None
        return found


class InstalledRedis(EmbeddedValkey):
    """The Redis that is installed here, in place of the wheel's Valkey."""

    name = "Redis"

    def _program(self) -> Path:
        return Path(str(shutil.which("redis-server")))


def _no_postgres() -> str | None:
    return None if postgres() else "PostgreSQL is not installed here (apt-get install postgresql)"


def _no_redis() -> str | None:
    if shutil.which("redis-server"):
        return None
    return "Redis is not installed here (apt-get install redis-server)"


def _no_pgbouncer() -> str | None:
    if pgbouncer.program():
        return None
    least = ".".join(map(str, pgbouncer.LEAST))
    return f"no PgBouncer of version {least} or newer is here; TEST_PGBOUNCER may name one"


MISSING: Final[Mapping[str, Callable[[], str | None]]] = {
    "postgresql": _no_postgres,
    "pgbouncer": _no_pgbouncer,
    "redis": _no_redis,
    "clusters": lambda: None,
}
"""Why a server cannot be used here, by its name."""
