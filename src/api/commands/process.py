"""What every long-running process does first and last."""

import gc
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import click
import pydantic
from sqlalchemy.exc import SQLAlchemyError

from application.ports.event_bus import LedgerUnavailable
from infrastructure.consumer_factory import UnknownPort
from infrastructure.container import Container
from infrastructure.migrations import SchemaTooOld, require_schema
from infrastructure.telemetry import configure_logging

GARBAGE_THRESHOLD = 20_000


@contextmanager
def opened_container(*, migrated: bool = True) -> Iterator[Container]:
    """Give a container with logging set up, for a database whose schema is new enough.

    Raises click.ClickException, in one line, for settings that are missing or wrong, and for a
    database that is away or too old.
    """
    container = Container()
    with expected_errors():
        settings = container.settings()
        configure_logging(settings.log_format, settings.log_level)
        engine = container.engine()
    try:
        if migrated:
            with expected_errors():
                require_schema(container.engine())
        yield container
    finally:
        container.wake_relay().stop()
        engine.dispose()


REFUSALS = {
    "password authentication failed": "it refused the user or the password",
    "no password supplied": "it wants a password",
    "Connection refused": "nothing listens there",
    "could not translate host name": "there is no such host",
    "failed to resolve host": "there is no such host",
    "does not exist": "there is no such user or database",
    "timeout expired": "it did not answer in time",
    "starting up": "it is starting up",
}


@contextmanager
def expected_errors() -> Iterator[None]:
    """Say what a person can do about, in one line: no traceback, no URL, no password."""
    try:
        yield
    except pydantic.ValidationError as error:
        wrong = [f"{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors()]
        raise click.UsageError("settings are missing or wrong: " + "; ".join(wrong)) from None
    except (SchemaTooOld, UnknownPort) as error:
        raise click.ClickException(str(error)) from None
    except (LedgerUnavailable, SQLAlchemyError) as error:
        raise click.ClickException(f"{why_unavailable(error)}: is DATABASE_URL right?") from None


def why_unavailable(error: BaseException) -> str:
    """Say in words what PostgreSQL, or the network before it, had against us."""
    driver = getattr(error, "orig", None) or getattr(error.__cause__, "orig", None)
    # A refusal to connect has no SQLSTATE of its own in the driver; its text is the server's.
    text = str(driver)
    for sign, reason in REFUSALS.items():
        if sign in text:
            return f"PostgreSQL cannot be used: {reason}"
    return f"PostgreSQL did not answer as it should ({type(driver or error).__name__})"


def calm_garbage_collector() -> None:
    """Call when everything is set up: what is there by then need not be looked at again and again.

    What a call or a batch makes has few cycles, and goes without the collector.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD, 20, 50)


def stopped_by_signal() -> threading.Event:
    """Give what SIGTERM and SIGINT set."""
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        # From a thread: the one that the signal interrupts may hold the event's lock.
        signal.signal(number, lambda *_: threading.Thread(target=stopped.set).start())
    return stopped
