"""Reports to Sentry, by a client of their own: nothing is patched, and an application's own use of
Sentry is not touched.
"""

import logging
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from typing import TYPE_CHECKING, Final

from sentry_sdk import Client

from kratos_sync.application.pipeline import CallNext, Middleware
from kratos_sync.application.pipeline.batch import Batch, Result
from kratos_sync.application.ports.dead_letters import FailedAttempt, Failures
from kratos_sync.infrastructure.observability.errors.stacks import exceptions_of, place_of
from kratos_sync.infrastructure.observability.errors.start import ErrorReports

if TYPE_CHECKING:
    from sentry_sdk.types import Event, Hint

MOST_QUEUED: Final = 50
"""So many reports wait to be sent at most; others are dropped."""
ONCE_IN_SECONDS: Final = 60.0
"""Of one kind of error a report is sent once in so long, with the number of those before it."""
MOST_KINDS: Final = 256
END_SECONDS: Final = 2.0
"""How long the end of a process waits for reports to be sent."""
LOGGED_FIELDS: Final = ("consumer", "event_name", "event_id", "attempt")
"""What is taken over from log lines: names, and ids of events."""
PARTS: Final = frozenset(
    {
        "environment",
        "event_id",
        "exception",
        "fingerprint",
        "level",
        "platform",
        "release",
        "sdk",
        "tags",
        "timestamp",
    }
)
"""All that a report consists of."""


class SentryReports(ErrorReports):
    """Sends reports from a thread, through a bounded queue."""

    def __init__(self, dsn: str, process: str, release: str, environment: str) -> None:
        self._process = process
        self._kinds: OrderedDict[tuple[str, ...], tuple[float, int]] = OrderedDict()
        self._lock = threading.Lock()
        self._client = Client(
            dsn=dsn,
            release=release,
            environment=environment,
            default_integrations=False,
            auto_enabling_integrations=False,
            auto_session_tracking=False,
            send_client_reports=False,
            enable_backpressure_handling=False,
            include_local_variables=False,
            include_source_context=False,
            max_request_body_size="never",
            max_breadcrumbs=0,
            transport_queue_size=MOST_QUEUED,
            shutdown_timeout=END_SECONDS,
            spotlight=False,
            before_send=_only_ours,
        )

    @contextmanager
    def running(self, is_expected: Callable[[Exception], bool]) -> Iterator[None]:
        """Report crashes and what is logged as an error until the end, and send what waits."""
        handler = _LoggedErrors(self.report)
        logging.getLogger().addHandler(handler)
        try:
            yield
        except Exception as error:
            if not is_expected(error):
                self.report("crashed", error)
            raise
        finally:
            logging.getLogger().removeHandler(handler)
            self._client.close(END_SECONDS)

    def report(self, what: str, error: BaseException | None = None, **fields: object) -> None:
        """Send a report, unless one of its kind was sent a moment ago. Raises nothing."""
        with suppress(Exception):
            self._report(what, error, fields)

    def _report(self, what: str, error: BaseException | None, fields: dict[str, object]) -> None:
        exceptions = [{"type": what, "value": ""}] if error is None else exceptions_of(error)
        thrown = exceptions[-1]
        kind = (what, str(thrown["type"]), place_of(thrown), str(fields.get("consumer")))
        if (number := self._number(kind)) is None:
            return
        tags = {"what": what, "process": self._process, "number": number, **fields}
        event: Event = {
            "level": "error",
            "exception": {"values": exceptions},
            "tags": {name: str(value) for name, value in tags.items() if value is not None},
            "fingerprint": list(kind),
        }
        self._client.capture_event(event)

    @property
    def observers(self) -> tuple[Middleware, ...]:  # type: ignore[override]  # made when composed
        def report_dead_letters(call_next: CallNext, batch: Batch) -> Result:
            result = call_next(batch)
            for failure in result.failed:
                if failure.attempt.outcome == "gave_up":
                    self._dead_letter(failure.attempt, failure.error, failure.delivery.name)
            return result

        return (report_dead_letters,)

    def of_lost(self, failures: Failures) -> Failures:
        return _Reported(failures, self._dead_letter)

    def _dead_letter(
        self, attempt: FailedAttempt, error: BaseException | None = None, event: str | None = None
    ) -> None:
        self.report(
            "dead_letter",
            error,
            error_type=attempt.error_type,
            consumer=attempt.consumer,
            event_name=event,
            event_id=attempt.event_id,
            attempt=attempt.number,
        )

    def _number(self, kind: tuple[str, ...]) -> int | None:
        """How many of a kind there were since the last report; None if that was just now."""
        now = monotonic()
        with self._lock:
            sent_at, number = self._kinds.pop(kind, (-ONCE_IN_SECONDS, 0))
            is_due = now - sent_at >= ONCE_IN_SECONDS
            self._kinds[kind] = (now, 0) if is_due else (sent_at, number + 1)
            if len(self._kinds) > MOST_KINDS:
                self._kinds.popitem(last=False)
        return number + 1 if is_due else None


class _Reported:
    """Failures of lost attempts, which are reported when they were the last ones."""

    def __init__(self, failures: Failures, report: Callable[[FailedAttempt], None]) -> None:
        self._failures, self._report = failures, report

    def record(self, attempt: FailedAttempt) -> None:
        self._failures.record(attempt)
        if attempt.outcome == "gave_up":
            self._report(attempt)


class _LoggedErrors(logging.Handler):
    """Reports what is logged as an error: our own lines, and exceptions in others' lines."""

    def __init__(self, report: Callable[..., None]) -> None:
        super().__init__(logging.ERROR)
        self._report = report

    def emit(self, record: logging.LogRecord) -> None:
        # Our own lines are logged while an error is handled, if there is one: a thread's crash too.
        error = sys.exc_info()[1] if record.exc_info is None else record.exc_info[1]
        if isinstance(line := record.msg, dict):
            fields = {name: line.get(name) for name in LOGGED_FIELDS}
            self._report(str(line.get("event")), error, **fields)
        elif error is not None and not record.name.startswith("sentry_sdk"):
            self._report(record.name, error)


def _only_ours(event: "Event", _hint: "Hint") -> "Event":
    """Leave out whatever the client may add, such as the machine's name."""
    for part in event.keys() - PARTS:
        del event[part]  # type: ignore[misc]  # any of its parts
    return event
