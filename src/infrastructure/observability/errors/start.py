"""Starts reporting errors in a process, if it is configured: Sentry is not imported before."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from typing import Final

import structlog
from pydantic import SecretStr

from kratos_sync.application.pipeline import Middleware
from kratos_sync.application.ports.dead_letters import Failures

DISTRIBUTION: Final = "kratos-identity-sync"

log = structlog.get_logger()


class ErrorReports:
    """What a process composes in order to report dead letters; by default none is reported."""

    observers: tuple[Middleware, ...] = ()
    """Around every part of a batch."""

    def of_lost(self, failures: Failures) -> Failures:
        """The failures with those reported that are recorded of lost attempts."""
        return failures


@contextmanager
def started(
    process: str,
    dsn: SecretStr | None,
    environment: str,
    is_expected: Callable[[Exception], bool] = lambda _: False,
) -> Iterator[ErrorReports]:
    """Report the errors of this process, which has just been started, until the end.

    What leaves the context is reported as a crash, unless it is expected. A process that cannot
    report says why in a log line, and works without.
    """
    if dsn is None:
        yield ErrorReports()
        return
    if find_spec("sentry_sdk") is None:
        reason = f"{DISTRIBUTION} is installed without its extra sentry"
        log.warning("errors_not_reported", reason=reason)
        yield ErrorReports()
        return
    from kratos_sync.infrastructure.observability.errors.sentry import SentryReports

    release = f"{DISTRIBUTION}@{version(DISTRIBUTION)}"
    reports = SentryReports(dsn.get_secret_value(), process, release, environment)
    with reports.running(is_expected):
        yield reports
