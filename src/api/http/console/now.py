"""The first page: is our copy right, what needs attention, and how each consumer is doing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from kratos_sync.api.attention import About, Attention, attention
from kratos_sync.api.http.console.access import Role
from kratos_sync.api.http.console.app import Call, ConsoleRoute, Page, See, WrongInput
from kratos_sync.api.http.console.changes import Changes, new_ticket, requested
from kratos_sync.api.http.console.rates import RECORDED, Rates, sparkline
from kratos_sync.application.actions import Actions
from kratos_sync.application.application import Subscriptions
from kratos_sync.application.missed_webhooks import silent_hooks
from kratos_sync.application.ports.status import ConsumerStatus, Status

PAGES: Final[Mapping[About, str]] = {
    "consumer": "/#{}",
    "dead letters": "/failures?consumer={}",
    "event": "/events?name={}",
    "Kratos": "/kratos",
    "hooks": "/kratos#hooks",
}
"""Where what needs attention can be put right, by what it is about."""


@dataclass(frozen=True, slots=True)
class ConsumerRow:
    """A consumer's state, and how fast it is."""

    status: ConsumerStatus
    a_second: float | None
    points: str
    in_the_last_hour: tuple[int, int]

    @property
    def state(self) -> str:
        """In one word or two."""
        if self.status.paused is not None:
            return "paused"
        if not self.status.known:
            return "not known"
        if self.status.failed:
            return "dead letters"
        return "retrying" if self.status.waiting > self.status.postponed else "ok"


class NowPage:
    """Shows the report that `kratos-sync status` prints, with rates and links."""

    def __init__(
        self,
        *,
        status: Status,
        rates: Rates,
        subscriptions: Subscriptions,
        actions: Actions,
        changes: Changes,
        can_ask: bool,
    ) -> None:
        """`can_ask` is whether the address of Kratos' Admin API is known."""
        self._status = status
        self._rates = rates
        self._subscriptions = subscriptions
        self._actions = actions
        self._changes = changes
        self._can_ask = can_ask

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

    def show(self, call: Call) -> Page:  # noqa: ARG002
        """Everything at a glance."""
        known = list(self._subscriptions.consumers)
        report = self._status.report(known, with_successes=False)
        needed = list(attention(report, None, can_ask=self._can_ask))
        silent = {each.label for each in silent_hooks(report.hooks, report.at)}
        return Page(
            "now.html",
            {
                "report": report,
                "compared": next((e for e in report.drift.past if e.outcome == "completed"), None),
                "backlog": sum(each.backlog for each in report.consumers),
                "attention": [(each.text, _page(each)) for each in needed],
                "consumers": [self._row(each) for each in report.consumers],
                "recorded": self._rates.a_minute(RECORDED),
                "recorded_points": sparkline(self._rates.a_minute(RECORDED), 600, 60),
                "recorded_an_hour": self._rates.in_the_last_hour(RECORDED)[0],
                "recorded_a_second": self._rates.a_second(RECORDED),
                "silent": silent,
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


def _page(needed: Attention) -> str | None:
    page = PAGES.get(needed.about)
    return None if page is None else page.format(needed.name or "")
