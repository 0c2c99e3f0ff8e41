"""The environment of a test run: it may name an application, whose consumers are subscribed."""

import os
from collections.abc import Mapping
from typing import Any, Final, TypeVar

from pydantic import SecretStr

from kratos_sync.application.application import Application, Subscriptions
from kratos_sync.infrastructure.application import (
    application_path,
    load_application,
    subscriptions_at,
)
from kratos_sync.infrastructure.ledger.subscriptions import PostgresSubscriptions
from kratos_sync.infrastructure.migrations import History, migrate, migrate_application
from kratos_sync.infrastructure.postgres.engine import connect
from kratos_sync.infrastructure.settings import Settings

Value = TypeVar("Value", bound=str | None)

DIRECT_URLS: Final[dict[str, str]] = {}
"""Of databases that are used through a pooler: the URL past it, by the one that leads through."""
_OF_THEIR_OWN: Final = frozenset({"all", "console", "migrate", "reconcile", "relay"})


def direct(database_url: str) -> str:
    """The URL of the same database past the pooler, if there is one."""
    return DIRECT_URLS.get(database_url, database_url)


def with_direct_url(command: str, settings: Mapping[str, Value]) -> dict[str, Value | str]:
    """A command's settings; if they lead through a pooler, the URL past it where docs give one."""
    url = DIRECT_URLS.get(settings.get("DATABASE_URL") or "")
    if url is None or command not in _OF_THEIR_OWN:
        return {**settings}
    return {"DATABASE_DIRECT_URL": url, **settings}


def environment(**settings: str) -> dict[str, str]:
    """The environment of a process that a test starts: of the service's settings, these alone.

    The application, its settings and everything else are as in the run.
    """
    ours = {name.upper() for name in Settings.model_fields} - {"KRATOS_SYNC_APP"}
    given = {
        name: value
        for name, value in os.environ.items()
        if name.upper().removesuffix("_FILE") not in ours
    }
    # Tests change what is recorded behind the console's back.
    return {**given, "CONSOLE_KEPT_SECONDS": "0", **settings}


def application() -> Application[Any, Any] | None:
    """The application of the run, if any."""
    return load_application(application_path(os.environ.get("KRATOS_SYNC_APP")))


def subscriptions() -> Subscriptions:
    """Those of the service's own consumers, and of the application's."""
    return subscriptions_at(os.environ.get("KRATOS_SYNC_APP"))


def application_history() -> History | None:
    """The application's migrations, if it has any."""
    own = application()
    return None if own is None or own.migrations is None else History.at(own.migrations)


def migrate_all(database_url: str) -> None:
    """Make all schemas, and subscribe all consumers, as `kratos-sync migrate` does."""
    engine = connect(SecretStr(database_url), pool_size=2)
    migrate(engine)
    if (history := application_history()) is not None:
        migrate_application(engine, history)
    PostgresSubscriptions(engine, subscriptions()).add_missing()
    engine.dispose()
