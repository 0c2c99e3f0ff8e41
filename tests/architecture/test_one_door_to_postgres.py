"""Connections to PostgreSQL are made in one place, where their sessions get their settings."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"
DOOR = "infrastructure/postgres/connections.py"
BESIDE_IT = {
    # The pool, which gets its connections from the door.
    ("infrastructure/postgres/engine.py", "sqlalchemy.create_engine"),
    # Looks which of several hosts are primaries, for the door.
    ("infrastructure/postgres/servers.py", "psycopg.connect"),
    # Finds out why the door could not connect, and runs no statement.
    ("infrastructure/postgres/connection_failures.py", "PGconn.connect_start"),
}
DRIVERS = ("psycopg", "psycopg_pool", "asyncpg", "psycopg2", "sqlalchemy")
MAKERS = {"create_engine", "create_async_engine", "create_pool", "ConnectionPool"}
MAKERS |= {"AsyncConnectionPool", "engine_from_config"}
CONNECTING = ("connect", "connect_start")
OWNERS = ("psycopg", "psycopg2", "asyncpg", "Connection", "PGconn")


def made_in(source: str) -> Iterator[str]:
    """The name of everything in it that makes a connection or a pool."""
    tree = ast.parse(source)
    names = dict(_imported(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            origins = (_origin(base, names) for base in node.bases)
            names.update((node.name, origin) for origin in origins if origin)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name):
            *owner, name = (_origin(node, names) or "").split(".")
            makes = name in CONNECTING and owner and owner[-1].endswith(OWNERS)
            if makes or name in MAKERS:
                yield ".".join([*owner[-1:], name])


def _imported(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for each in node.names:
                if each.name.split(".")[0] in DRIVERS:
                    yield (
                        each.asname or each.name.split(".")[0],
                        (each.name if each.asname else each.name.split(".")[0]),
                    )
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in DRIVERS:
            for each in node.names:
                yield each.asname or each.name, f"{node.module}.{each.name}"


def _origin(node: ast.expr, names: dict[str, str]) -> str | None:
    """The dotted name of what an expression is, as far as imports show."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Subscript):
        return _origin(node.value, names)
    if isinstance(node, ast.Attribute) and (owner := _origin(node.value, names)):
        return f"{owner}.{node.attr}"
    return None


def test_no_other_module_connects_to_postgres() -> None:
    found = {
        (module.relative_to(SOURCE).as_posix(), call)
        for module in SOURCE.rglob("*.py")
        for call in made_in(module.read_text())
    }
    elsewhere = {(module, call) for module, call in found if module != DOOR}
    assert elsewhere == BESIDE_IT
    assert {call for module, call in found if module == DOOR} == {
        "Connection.connect",
        "AsyncConnection.connect",
    }


def test_the_pool_opens_its_connections_through_open_connection() -> None:
    source = (SOURCE / "infrastructure/postgres/engine.py").read_text()
    assert '"do_connect"' in source
    assert "return open_connection(" in source


@pytest.mark.parametrize(
    "source",
    [
        "import psycopg\npsycopg.connect('')",
        "import psycopg as driver\nwith driver.connect('') as c: pass",
        "from psycopg import connect\nconnect('')",
        "from psycopg import connect as go\ngo('')",
        "import psycopg\npsycopg.Connection.connect('')",
        "import psycopg\npsycopg.Connection[tuple].connect('')",
        "import psycopg\nasync def f():\n    await psycopg.AsyncConnection.connect('')",
        "from psycopg import AsyncConnection\nmake = AsyncConnection.connect",
        "import psycopg\nclass Ours(psycopg.Connection[tuple]): pass\nOurs.connect('')",
        "from psycopg import pq\npq.PGconn.connect(b'')",
        "from sqlalchemy import create_engine\ncreate_engine('')",
        "import sqlalchemy\nsqlalchemy.create_engine('')",
        "import sqlalchemy as sa\nsa.create_engine('')",
        "from sqlalchemy.ext.asyncio import create_async_engine\ncreate_async_engine('')",
        "def f():\n    import psycopg\n    psycopg.connect('')",
    ],
)
def test_a_connection_made_elsewhere_is_seen(source: str) -> None:
    assert list(made_in(source))


@pytest.mark.parametrize(
    "source",
    [
        "import psycopg\npsycopg.RawCursor(connection)",
        "from sqlalchemy import Engine\ndef f(engine: Engine):\n    engine.connect()",
        "import psycopg\ndef f(connection: psycopg.Connection): connection.execute('')",
        "from ours import connect\nconnect('')",
    ],
)
def test_whoever_uses_a_connection_makes_none(source: str) -> None:
    assert not list(made_in(source))
