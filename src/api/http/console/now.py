"""The first page: is our copy right, what needs attention, and how each consumer is doing."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple
from urllib.parse import quote

from kratos_sync.api.attention import About, Attention, attention
from kratos_sync.api.http.console.access import Operator, Role
from kratos_sync.api.http.console.app import Call, ConsoleRoute, Page, See, WrongInput
from kratos_sync.api.http.console.changes import Changes, new_ticket, requested
from kratos_sync.api.http.console.rates import RECORDED, Rates, sparkline
from kratos_sync.api.http.console.recent import Recent
from kratos_sync.api.views import hook_rows
from kratos_sync.application.actions import Actions
from kratos_sync.application.application import Subscriptions
from kratos_sync.application.ports.status import BrokerStatus, ConsumerStatus, Status, StatusReport

PENDING: Final = "/events?outcome=pending&consumer={}"


class Action(NamedTuple):
    """What an operator can do about something, what others can see of it, and where."""

    does: str
    shows: str | None
    page: str


ACTIONS: Final[Mapping[About, Action]] = {
    "consumer": Action("See what is pending", "See what is pending", PENDING),
    "paused": Action("Resume it", None, "/#pauses"),
    "dead letters": Action("Retry or discard", "See why", "/failures?consumer={}"),
    "event": Action("See these events", "See these events", "/events?name={}"),
    "Kratos": Action("Reconcile", "See reconciliations", "/kratos"),
    "deletions": Action("Decide about them", "See which", "/kratos#deletions"),
    "drift": Action("See what was found", "See what was found", "/kratos#reconciliations"),
    "hooks": Action("Check the hooks", "Check the hooks", "/kratos#hooks"),
}
"""What can be done about what needs attention, by what it is about."""


@dataclass(frozen=True, slots=True)
class ConsumerRow:
    """A consumer's state, and how fast it is."""

    status: ConsumerStatus
    a_second: float | None
    points: str
    in_the_last_hour: tuple[int, int]


class NowPage:
    """Shows the report that `kratos-sync status` prints, with rates and links."""

    def __init__(
        self,
        *,
        status: Status,
        broker: Callable[[Sequence[str]], BrokerStatus] | None,
        rates: Rates,
        subscriptions: Subscriptions,
        actions: Actions,
        changes: Changes,
        can_ask: bool,
        kept_seconds: float,
        stopped: threading.Event,
    ) -> None:
        """`broker` asks it about the queues of consumers; None if it cannot be asked from here.

        `can_ask` is whether the address of Kratos' Admin API is known.

        `kept_seconds` is how old the report may be; it is refreshed until `stopped` is set.
        """
        self._status = status
        self._broker = broker
        self._rates = rates
        self._subscriptions = subscriptions
        self._actions = actions
        self._changes = changes
        self._can_ask = can_ask
        self._recent = Recent(self._report, changes.version, kept_seconds, stopped)

    def routes(self) -> Sequence[ConsoleRoute]:
        """The page, and what its forms do."""
        return [
            ConsoleRoute("/", self.show),
            ConsoleRoute("/consumers/pause", self.pause, Role.OPERATOR, "POST"),
            ConsoleRoute("/consumers/resume", self.resume, Role.OPERATOR, "POST"),
        ]

    def pause(self, call: Call) -> See:
        """Deliver nothing to a consumer until it is resumed."""
        request = requested(call, "pause", consumer=self._consumer(call))
        return self._changes.carry_out(call, request, self._actions.pause_consumer)

    def resume(self, call: Call) -> See:
        """Deliver to a consumer again."""
        request = requested(call, "resume", consumer=self._consumer(call))
        return self._changes.carry_out(call, request, self._actions.resume_consumer)

    def _consumer(self, call: Call) -> str:
        name = call.text("consumer")
        if name not in self._subscriptions.consumers:
            raise WrongInput("Choose a consumer.")
        return name

    def _report(self, _: None) -> tuple[StatusReport, BrokerStatus | None]:
        report = self._status.report(list(self._subscriptions.consumers), with_successes=False)
        return report, self._broker and self._broker([each.name for each in report.consumers])

    def show(self, call: Call) -> Page:
        """Everything at a glance."""
        report, broker = self._recent.get(None)
        last = report.drift.last
        needed = list(attention(report, broker, can_ask=self._can_ask))
        return Page(
            "now.html",
            {
                "report": report,
                "compared": report.drift.completed,
                "refused": last if last and last.refusal else None,
                "backlog": sum(each.backlog for each in report.consumers),
                "attention": [_with_action(each, call.operator) for each in needed],
                "consumers": [self._row(each) for each in report.consumers],
                "recorded": self._rates.a_minute(RECORDED),
                "recorded_points": sparkline(self._rates.a_minute(RECORDED), 600, 60),
                "recorded_an_hour": self._rates.in_the_last_hour(RECORDED)[0],
                "recorded_a_second": self._rates.a_second(RECORDED),
                "hooks": hook_rows(report.hooks, report.at),
                "ticket": new_ticket(),
            },
        )

    def _row(self, consumer: ConsumerStatus) -> ConsumerRow:
        return ConsumerRow(
            consumer,
            self._rates.a_second(consumer.name),
            sparkline(self._rates.a_minute(consumer.name)),
            self._rates.in_the_last_hour(consumer.name),
        )


def _with_action(needed: Attention, operator: Operator) -> tuple[str, tuple[str, str] | None]:
    """What needs attention, and what the operator can do or see, and where.

    What no page is for is put right by a command.
    """
    action = ACTIONS.get(needed.about)
    if action is None:
        return needed.with_command, None
    name = action.does if operator.may(Role.OPERATOR) else action.shows
    if name is None:
        return needed.text, None
    return needed.text, (name, action.page.format(quote(needed.name or "", safe="")))
