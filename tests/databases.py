"""Databases of a test's own, on a server that is there."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final, TypeAlias
from uuid import uuid4

import psycopg
from sqlalchemy import make_url

from tests.waiting import until

MigratedDatabase: TypeAlias = Callable[[], AbstractContextManager[str]]
"""Makes a fresh, migrated database: gives its URL, which leads through a pooler if the run does."""
COPIES_FILES: Final = 15_00_00
"""The version from which PostgreSQL can copy a template's files, twice as quickly."""


def empty_tables(administrator: psycopg.Connection[Any]) -> None:
    """Leave nothing of what the service has recorded."""
    ((tables,),) = administrator.execute(
        "SELECT string_agg('kratos_sync.' || tablename, ', ') FROM pg_tables"
        " WHERE schemaname = 'kratos_sync'"
        " AND tablename NOT IN ('alembic_version', 'deployment', 'subscriptions')"
    )
    administrator.execute(f"TRUNCATE {tables}".encode())


@contextmanager
def database(postgres_url: str, template: str | None = None) -> Iterator[str]:
    """A fresh database, copied from a template or empty: its URL."""
    name = f"test_{uuid4().hex}"
    with psycopg.connect(postgres_url, autocommit=True) as administrator:
        copied = "" if template is None else f" TEMPLATE {template}"
        if copied and administrator.info.server_version >= COPIES_FILES:
            copied += " STRATEGY FILE_COPY"
        create = f"CREATE DATABASE {name}{copied}".encode()

        def is_created() -> bool:
            try:
                administrator.execute(create)
            except psycopg.errors.ObjectInUse:
                # A connection to the template that was closed just now may still be going away.
                return False
            return True

        until(is_created)
    yield make_url(postgres_url).set(database=name).render_as_string(hide_password=False)
    with psycopg.connect(postgres_url, autocommit=True) as administrator:
        administrator.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
