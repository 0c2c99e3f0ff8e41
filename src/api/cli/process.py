"""What commands share: an opened container, and expected errors in one sentence."""

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click
import structlog

from kratos_sync.api.cli.output import progress
from kratos_sync.infrastructure.telemetry import configure_logging

# The rest is imported on demand: the help of a command and its completion need none of it.
if TYPE_CHECKING:
    from kratos_sync.application.operations import RunningOperation
    from kratos_sync.application.ports.operations import OperationRequest, Progress
    from kratos_sync.infrastructure.container import Container
    from kratos_sync.infrastructure.settings import Settings
    from kratos_sync.infrastructure.worker.supervisor import Supervised

GARBAGE_THRESHOLD = 20_000
POLL_SECONDS = 1.0
NEED_A_BROKER = frozenset({"relay", "worker"})

T = TypeVar("T")

log = structlog.get_logger()


@contextmanager
def opened_container(
    *,
    migrated: bool = True,
    stopped: threading.Event | None = None,
    process: str | None = None,
    supervised: "Supervised | None" = None,
    adapt: "Callable[[Settings], Settings] | None" = None,
) -> "Iterator[Container]":
    """Set up logging and yield a container; its database has the schema, unless not `migrated`.

    With `stopped`, a database that is unavailable or not migrated is waited for until then. A
    long-running `process` is observed, if that is configured; it may be `supervised`.
    `adapt` makes other settings of those that are given.
    Raises click.ClickException for wrong settings and for a database that cannot be used.
    """
    from kratos_sync.api.cli.observing import observed
    from kratos_sync.infrastructure.bus.broker import require_shared
    from kratos_sync.infrastructure.container import Container
    from kratos_sync.infrastructure.migrations import require_schema

    container = Container()
    with expected_errors():
        settings = container.settings()
        if adapt is not None:
            settings = adapt(settings)
            container.settings.override(settings)
        container.subscriptions()
        path = container.application_path()
        package = None if path is None else path.partition(":")[0].partition(".")[0]
        configure_logging(settings.log_format, settings.log_level, package)
        engine = container.engine()
        if process in NEED_A_BROKER:
            require_shared(settings.broker_url)
    with ExitStack() as undo:
        undo.callback(_dispose, container)
        if process is not None:
            with expected_errors():
                undo.enter_context(observed(container, process, supervised))
        if migrated:
            require = partial(require_schema, engine)
            with expected_errors():
                if stopped is None:
                    require()
                else:
                    wait_for_database(require, stopped)
        yield container


def _dispose(container: "Container") -> None:
    container.wake_relay().stop()
    container.engine().dispose()
    container.direct_engine().dispose()
    container.spare_engine().dispose()


@contextmanager
def command_container(
    *, migrated: bool = True, process: str | None = None
) -> "Iterator[Container]":
    """Yield a container to a command that ends by itself; expected errors end it in one line."""
    with expected_errors(), opened_container(migrated=migrated, process=process) as container:
        yield container


def wait_for_database(query: Callable[[], T], stopped: threading.Event) -> T | None:
    """Repeat a query while the database is unavailable or not migrated; None once `stopped`.

    Raises what it raises for a database that refuses us.
    """
    from kratos_sync.infrastructure.migrations import SchemaTooOld
    from kratos_sync.infrastructure.postgres.connection_failures import (
        DATABASE_ERRORS,
        is_refusal,
        why_unavailable,
    )

    said = None
    while True:
        try:
            return query()
        except DATABASE_ERRORS as error:
            if is_refusal(error):
                raise
            found = "ledger_unavailable", why_unavailable(error)
        except SchemaTooOld as error:
            found = "schema_too_old", str(error)
        if found != said:
            log.warning(found[0], reason=found[1])
            said = found
        if stopped.wait(POLL_SECONDS):
            return None


@contextmanager
def expected_errors() -> Iterator[None]:
    """Turn expected errors into one line and an exit code: no traceback, no URL, no password."""
    try:
        yield
    except Exception as error:
        if (in_one_line := explained(error)) is None:
            raise
        raise in_one_line from None


@dataclass(slots=True)
class Steps:
    """How many steps are done, and why they ended early, if they did.

    As a context manager it catches what may end them: a signal (`ShutdownSignals`), conflicts, or
    an unavailable database, broker or Kratos.
    """

    done: int = 0
    ended_early: str | None = None

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> bool:
        reason = None if error is None else _reason(error)
        self.ended_early = reason or self.ended_early
        return reason is not None


def carried_out(
    container: "Container",
    request: "OperationRequest",
    work: "Callable[[RunningOperation], None]",
    total: int,
    what: str,
) -> Steps:
    """Carry out an operation with a progress bar; a signal ends it between two steps.

    Raises CannotBeResumed.
    """
    from kratos_sync.application.operations import recorded
    from kratos_sync.infrastructure.worker.shutdown import ShutdownSignals

    steps, operations = Steps(), container.operations()

    def report(so_far: "Progress") -> None:
        steps.done = so_far.done
        show(so_far.done)

    with ShutdownSignals() as shutdown, progress(what, total) as show:
        recording = recorded(operations, request, total, pause=shutdown.pause, report=report)
        with steps, recording as operation:
            work(operation)
    return steps


def explained(error: Exception) -> click.ClickException | None:
    import pydantic

    from kratos_sync.application.application import InvalidApplication
    from kratos_sync.application.operation_scopes import ScopeNotKept
    from kratos_sync.application.ports.kratos import HeldElsewhere, KratosNotConfigured
    from kratos_sync.application.ports.operations import CannotBeResumed
    from kratos_sync.application.ports.purge import AnotherPurge, ClocksDiffer
    from kratos_sync.infrastructure.bus.broker import BrokerNotShared
    from kratos_sync.infrastructure.ledger.subscriptions import MayNotSubscribe
    from kratos_sync.infrastructure.migrations import (
        MigrationBlocked,
        MigrationFailed,
        SchemaTooNew,
        SchemaTooOld,
    )
    from kratos_sync.infrastructure.observability.http_server import CannotListen
    from kratos_sync.infrastructure.postgres.connection_failures import (
        DATABASE_ERRORS,
        missing_right,
    )
    from kratos_sync.infrastructure.postgres.engine import SessionShared

    match error:
        case pydantic.ValidationError():
            wrong = [f"{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors()]
            hint = " (`. .data/env` sets those of `make dev`)" if Path(".data/env").exists() else ""
            return click.UsageError(f"settings are missing or wrong: {'; '.join(wrong)}{hint}")
        case KratosNotConfigured() | BrokerNotShared():
            hint = ": where is Kratos' Admin API?" if isinstance(error, KratosNotConfigured) else ""
            return click.UsageError(f"{error}{hint}")
        case SchemaTooOld() | SchemaTooNew() | CannotListen() | HeldElsewhere():
            return click.ClickException(str(error))
        case InvalidApplication():
            return click.ClickException(f"The application cannot be used: {error}.")
        case (
            MigrationBlocked()
            | MigrationFailed()
            | AnotherPurge()
            | ClocksDiffer()
            | MayNotSubscribe()
            | SessionShared()
            | CannotBeResumed()
            | ScopeNotKept()
        ):
            return click.ClickException(f"Not done: {error}.")
    is_the_url = isinstance(error, DATABASE_ERRORS) and missing_right(error) is None
    hint = ": is DATABASE_URL right?" if is_the_url else "."
    reason = _reason(error)
    return None if reason is None else click.ClickException(f"{reason}{hint}")


def _reason(error: BaseException) -> str | None:
    from kratos_sync.application.erase import StillInFlight
    from kratos_sync.application.operations import OperationCancelled, OperationLost
    from kratos_sync.application.ports.kratos import KratosError
    from kratos_sync.application.ports.reconciliation import ReconciliationLost
    from kratos_sync.application.ports.unit_of_work import ConcurrencyConflict
    from kratos_sync.application.reconcile import ConsumersAreBehind
    from kratos_sync.application.replay import ConsumerIsBehind
    from kratos_sync.infrastructure.postgres.connection_failures import (
        DATABASE_ERRORS,
        why_unavailable,
    )
    from kratos_sync.infrastructure.worker.shutdown import ShutdownRequested

    match error:
        case ShutdownRequested():
            return "Interrupted"
        case ConcurrencyConflict():
            return "PostgreSQL was too busy"
        case ConsumerIsBehind() | ConsumersAreBehind():
            return f"{error} (is a worker running?)"
        case StillInFlight():
            return f"Not all of it: {error}; a relay erases the rest"
        case KratosError() | ReconciliationLost() | OperationCancelled() | OperationLost():
            return str(error)
    return why_unavailable(error) if isinstance(error, DATABASE_ERRORS) else None


def freeze_garbage_collector() -> None:
    """Exclude from collections what exists after the start, and collect rarely.

    Calls and batches make few cycles.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD, 20, 50)
