"""What operators change: each is an operation that is recorded, and carried out in a thread."""

import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Final
from uuid import UUID

import structlog

from kratos_sync.api.http.console.app import Call, Page, See, WrongInput
from kratos_sync.application.actions import Actions
from kratos_sync.application.errors import summary
from kratos_sync.application.operation_scopes import ReplayScope
from kratos_sync.application.operations import RunningOperation, recorded
from kratos_sync.application.ports.operations import (
    LONGEST_REASON,
    How,
    OperationRequest,
    Operations,
)
from kratos_sync.application.ports.replay import EventRange
from kratos_sync.domain.json_values import Json

AT_ONCE: Final = 2
"""Operations that run at the same time, beside as many that take long."""
MOST_WAITING: Final = 10
"""Of either kind that run or wait."""
LONG: Final = frozenset({"replay", "reconcile"})
"""What takes minutes: it waits for its own kind alone."""
QUICK_SECONDS: Final = 1.0
"""What takes longer is shown while it runs."""
MOST_REMEMBERED: Final = 1_000
REPLAYED_A_SECOND: Final = 100
LONGEST_TICKET: Final = 100

Work = Callable[[RunningOperation], object]

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()


def new_ticket() -> str:
    """A value for a form: what was sent once with it is not done a second time."""
    return secrets.token_urlsafe(16)


class _Room:
    """Threads for operations of one kind."""

    def __init__(self, *, is_long: bool) -> None:
        name = "long change" if is_long else "change"
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix=name)
        self._running: set[Future[None]] = set()

    def is_full(self) -> bool:
        """Whether as many run or wait as may."""
        self._running = {each for each in self._running if not each.done()}
        return len(self._running) >= MOST_WAITING

    def submit(self, *work: Any) -> Future[None]:
        future: Future[None] = self._threads.submit(*work)
        self._running.add(future)
        return future


class Changes:
    """Carries out operations, a few at a time; a form that is sent twice is carried out once."""

    def __init__(self, operations: Operations) -> None:
        self.operations = operations
        self._rooms = {is_long: _Room(is_long=is_long) for is_long in (False, True)}
        self._version = 0
        self._begun: OrderedDict[Hashable, int] = OrderedDict()
        self._lock = threading.Lock()
        self._counting = threading.Lock()

    def version(self) -> int:
        """Another number after each change that began or ended here."""
        return self._version

    def carry_out(
        self,
        call: Call,
        request: OperationRequest,
        work: Work,
        total: int | None = None,
        *,
        is_long: bool = False,
    ) -> See:
        """Begin an operation for whoever sends a form with a ticket; then see what became of it.

        One that `is_long` holds up none that are not. Raises WrongInput, or what Operations raises.
        """
        with self._lock:
            if (begun := self.begun(call)) is not None:
                return begun
            room = self._rooms[is_long or request.operation in LONG]
            if room.is_full():
                raise WrongInput("Too many operations are running: wait for one to end.")
            stack = ExitStack()
            running = stack.enter_context(recorded(self.operations, request, total))
            future = room.submit(self._run, stack, running, work)
            number = self._remember(call, running)
        wait([future], QUICK_SECONDS)
        return See(f"/audit/{number}")

    def begun(self, call: Call) -> See | None:
        """What became of this form if it was sent before. Raises WrongInput if it has no ticket."""
        number = self._begun.get(_sent(call))
        return None if number is None else See(f"/audit/{number}")

    @contextmanager
    def carried_out_here(
        self, call: Call, request: OperationRequest
    ) -> Iterator[RunningOperation | None]:
        """Begin an operation for whoever sends a form with a ticket, who carries it out.

        None if the form was sent before. Raises as `carry_out`.
        """
        with ExitStack() as stack:
            running = None
            with self._lock:
                if self.begun(call) is None:
                    running = stack.enter_context(recorded(self.operations, request))
                    self._remember(call, running)
            yield running

    def _run(self, stack: ExitStack, running: RunningOperation, work: Work) -> None:
        self._has_changed()
        try:
            with stack:
                work(running)
        except Exception as error:  # noqa: BLE001  # it is recorded as failed
            _log.warning("operation_failed", operation=running.id, **summary(error))
        finally:
            self._has_changed()

    def _has_changed(self) -> None:
        with self._counting:
            self._version += 1

    def _remember(self, call: Call, operation: RunningOperation) -> int:
        number = self._begun[_sent(call)] = operation.id or 0
        while len(self._begun) > MOST_REMEMBERED:
            self._begun.popitem(last=False)
        return number


def requested(
    call: Call,
    operation: str,
    *,
    subject: UUID | None = None,
    consumer: str | None = None,
    scope: Mapping[str, Json] | None = None,
) -> OperationRequest:
    """What the operator asks for, with the `reason` in the form. Raises WrongInput without one."""
    reason = call.text("reason", LONGEST_REASON)
    if not reason:
        raise WrongInput("Say why: others will read it in the audit trail.")
    return OperationRequest(
        operation, call.operator.name, How.CONSOLE, reason, subject, consumer, scope or {}
    )


def replay(changes: Changes, actions: Actions, call: Call, wanted: EventRange) -> Page | See:
    """Deliver a range of events to its consumer again, slowly enough for its live events.

    First it is asked about, with the number of events and the time that they take.
    """
    request = requested(
        call,
        "replay",
        subject=wanted.identity_id,
        consumer=wanted.consumer,
        scope=ReplayScope.of_range(wanted, REPLAYED_A_SECOND).to_json(),
    )
    if call.text("confirmed") != "yes":
        context = {
            "number": actions.events.count(wanted),
            "wanted": wanted,
            "rate": REPLAYED_A_SECOND,
            "sent": [each for each in call.form.multi_items() if isinstance(each[1], str)],
        }
        return Page("replay.html", context)
    return changes.carry_out(call, request, partial(actions.replay, wanted, REPLAYED_A_SECOND))


def _sent(call: Call) -> Hashable:
    """All that a form says, with its ticket: the same once more is a second click."""
    if not call.text("ticket", LONGEST_TICKET):
        raise WrongInput("The form is incomplete: open the page again.")
    fields = (each for each in call.form.multi_items() if isinstance(each[1], str))
    return call.request.url.path, tuple(sorted(fields))
