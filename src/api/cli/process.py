"""What every long-running process does first and last."""

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click
import structlog

from kratos_sync.application.ports.unit_of_work import ConcurrencyConflict
from kratos_sync.infrastructure.telemetry import configure_logging

# Everything else of the infrastructure is imported on demand: the help and the shell's completion
# of a command's options need none of it.
if TYPE_CHECKING:
    from kratos_sync.infrastructure.container import Container

GARBAGE_THRESHOLD = 20_000
LOOK_SECONDS = 1.0

T = TypeVar("T")

log = structlog.get_logger()


@contextmanager
def opened_container(
    *, migrated: bool = True, stopped: threading.Event | None = None
) -> "Iterator[Container]":
    """Give a container with logging set up, for a database whose schema is new enough.

    One that is away is waited for until `stopped`, where that is given. Raises
    click.ClickException, in one line, for settings that are missing or wrong, for a database that
    refuses us or is too old, and for one that is away.
    """
    from kratos_sync.infrastructure.container import Container
    from kratos_sync.infrastructure.migrations import require_schema

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
    from kratos_sync.infrastructure.postgres.connection_failures import (
        DATABASE_ERRORS,
        is_refusal,
        why_unavailable,
    )

    while True:
        try:
            return ask()
        except DATABASE_ERRORS as error:
            if is_refusal(error):
                raise
            log.warning("ledger_unavailable", reason=why_unavailable(error))
        if stopped.wait(LOOK_SECONDS):
            return None


@contextmanager
def command_container(*, migrated: bool = True) -> "Iterator[Container]":
    """Give a container for a command that ends by itself; expected errors end it in one line."""
    with expected_errors(), opened_container(migrated=migrated) as container:
        yield container


@contextmanager
def expected_errors() -> Iterator[None]:
    """Say what a person can do about, in one line: no traceback, no URL, no password."""
    try:
        yield
    except Exception as error:
        if (explained := _explained(error)) is None:
            raise
        raise explained from None


def _explained(error: Exception) -> click.ClickException | None:
    import pydantic

    from kratos_sync.infrastructure.migrations import SchemaTooOld
    from kratos_sync.infrastructure.postgres.connection_failures import (
        DATABASE_ERRORS,
        why_unavailable,
    )
    from kratos_sync.infrastructure.postgres.unit_of_work import UnknownPort

    match error:
        case pydantic.ValidationError():
            wrong = [f"{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors()]
            hint = " (`. .data/env` sets those of `make dev`)" if Path(".data/env").exists() else ""
            return click.UsageError(f"settings are missing or wrong: {'; '.join(wrong)}{hint}")
        case SchemaTooOld() | UnknownPort():
            return click.ClickException(str(error))
        case ConcurrencyConflict():
            return click.ClickException(f"PostgreSQL was too busy ({error}): try again.")
    if isinstance(error, DATABASE_ERRORS):
        return click.ClickException(f"{why_unavailable(error)}: is DATABASE_URL right?")
    return None


def freeze_garbage_collector() -> None:
    """Exclude from collections what exists once a process is set up, and collect rarely.

    What a call or a batch makes has few cycles.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD, 20, 50)
