"""What every long-running process does first and last."""

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import click
import psycopg
import pydantic
import structlog
from sqlalchemy.exc import SQLAlchemyError

from kratos_sync.application.ports.event_bus import LedgerUnavailable
from kratos_sync.infrastructure.container import Container
from kratos_sync.infrastructure.migrations import SchemaTooOld, require_schema
from kratos_sync.infrastructure.postgres.connection_failures import ConnectFailed
from kratos_sync.infrastructure.postgres.unit_of_work import UnknownPort
from kratos_sync.infrastructure.telemetry import configure_logging

GARBAGE_THRESHOLD = 20_000
LOOK_SECONDS = 1.0

T = TypeVar("T")

log = structlog.get_logger()


@contextmanager
def opened_container(
    *, migrated: bool = True, stopped: threading.Event | None = None
) -> Iterator[Container]:
    """Give a container with logging set up, for a database whose schema is new enough.

    One that is away is waited for until `stopped`, where that is given. Raises
    click.ClickException, in one line, for settings that are missing or wrong, for a database that
    refuses us or is too old, and for one that is away.
    """
    container = Container()
    with expected_errors():
        settings = container.settings()
        configure_logging(settings.log_format, settings.log_level)
        engine = container.engine()
    try:
        if migrated:
            with expected_errors():
                require = partial(require_schema, container.engine())
                if stopped is None:
                    require()
                else:
                    wait_for_database(require, stopped)
        yield container
    finally:
        container.wake_relay().stop()
        engine.dispose()
        container.spare_engine().dispose()


def wait_for_database(ask: Callable[[], T], stopped: threading.Event) -> T | None:
    """Ask something of the database, again while it is away; None if `stopped` came first.

    Raises what it raises for a database that refuses us.
    """
    while True:
        try:
            return ask()
        except (LedgerUnavailable, SQLAlchemyError) as error:
            if is_refusal(error):
                raise
            log.warning("ledger_unavailable", reason=why_unavailable(error))
        if stopped.wait(LOOK_SECONDS):
            return None


@contextmanager
def expected_errors() -> Iterator[None]:
    """Say what a person can do about, in one line: no traceback, no URL, no password."""
    try:
        yield
    except pydantic.ValidationError as error:
        wrong = [f"{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors()]
        hint = " (`. .data/env` sets those of `make dev`)" if Path(".data/env").exists() else ""
        raise click.UsageError(f"settings are missing or wrong: {'; '.join(wrong)}{hint}") from None
    except (SchemaTooOld, UnknownPort) as error:
        raise click.ClickException(str(error)) from None
    except (LedgerUnavailable, SQLAlchemyError) as error:
        raise click.ClickException(f"{why_unavailable(error)}: is DATABASE_URL right?") from None


def is_refusal(error: BaseException) -> bool:
    """Whether PostgreSQL answered, and will have nothing to do with us."""
    found = _driver_error(error)
    return isinstance(found, ConnectFailed) and found.is_refusal


def why_unavailable(error: BaseException) -> str:
    """Say in words what PostgreSQL, or the network before it, had against us."""
    found = _driver_error(error)
    if isinstance(found, ConnectFailed):
        return str(found)
    kind = type(found or error).__name__
    return f"PostgreSQL did not answer as it should ({kind})"


def _driver_error(error: BaseException) -> BaseException | None:
    for each in (error, error.__cause__):
        found = getattr(each, "orig", each)
        if isinstance(found, psycopg.Error):
            return found
    return None


def freeze_garbage_collector() -> None:
    """Exclude from collections what exists once a process is set up, and collect rarely.

    What a call or a batch makes has few cycles.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD, 20, 50)
