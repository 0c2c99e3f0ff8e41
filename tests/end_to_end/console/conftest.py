"""A browser and a console for the tests of a process; what is recorded is each test's own."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.programs import installed_program

if TYPE_CHECKING:
    from playwright.sync_api import Browser
    from sqlalchemy import Engine

    from tests.databases import MigratedDatabase
    from tests.end_to_end.console.using import Console
    from tests.kratos.admin_stand_in import AdminStandIn
    from tests.suites.reconciling import World


@dataclass
class Served:
    """A console behind a proxy, its database, and the Kratos that it asks."""

    address: str
    database_url: str
    kratos: "AdminStandIn"


@pytest.fixture(scope="package")
def browser() -> "Iterator[Browser]":
    from playwright.sync_api import sync_playwright

    chromium = installed_program("chromium", "chromium")
    with sync_playwright() as playwright:
        # As root a browser has no sandbox; it opens nothing but this console.
        browser = playwright.chromium.launch(
            executable_path=chromium,
            args=["--disable-gpu", *(["--no-sandbox"] if os.getuid() == 0 else [])],
        )
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def served(
    migrated_database: "MigratedDatabase",
    broker_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Served]:
    from kratos_sync.testing.kratos import InMemoryDocuments
    from tests.end_to_end.console.using import running_console
    from tests.kratos.admin_stand_in import AdminStandIn

    with (
        migrated_database() as url,
        AdminStandIn(InMemoryDocuments()) as kratos,
        running_console(
            tmp_path_factory.mktemp("console"),
            DATABASE_URL=url,
            BROKER_URL=broker_url,
            KRATOS_ADMIN_URL=kratos.url,
            CONSOLE_SIGN_IN="proxy",
            CONSOLE_PROXY_ADDRESSES="127.0.0.1",
        ) as (address, _),
    ):
        yield Served(address, url, kratos)


@pytest.fixture
def database_url(served: Served) -> str:
    """The console's database, with nothing in it."""
    import psycopg

    from tests.databases import empty_tables
    from tests.environment import direct

    with psycopg.connect(direct(served.database_url), autocommit=True) as administrator:
        empty_tables(administrator)
    return served.database_url


@pytest.fixture
def world(served: Served, engine: "Engine", direct_engine: "Engine") -> "World":
    """Kratos and our copy of it, both empty; whoever consumes is in this process."""
    from tests.suites.ledgers import PostgresLedger
    from tests.suites.reconciling import world_on_postgres

    world = world_on_postgres(engine, direct_engine)
    served.kratos.people = world.town
    assert isinstance(world.ledger, PostgresLedger)
    world.ledger.kratos = world.kratos
    return world


@pytest.fixture
def console(browser: "Browser", served: Served, world: "World") -> "Iterator[Console]":
    """The console, with nothing recorded; no browser may have complained in the end."""
    from tests.end_to_end.console.using import Console

    console = Console(served.address, browser)
    yield console
    assert console.complaints == []
