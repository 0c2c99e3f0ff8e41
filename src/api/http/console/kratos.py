"""The page of Kratos: reconciliations, hooks, and which of its flows call this service."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final
from uuid import UUID

from kratos_sync.api.http.console.access import Role
from kratos_sync.api.http.console.app import NO_PAGE, Call, ConsoleRoute, Page, See, WrongInput
from kratos_sync.api.http.console.changes import Changes, new_ticket, requested
from kratos_sync.api.views import hook_rows
from kratos_sync.application.actions import Actions
from kratos_sync.application.drift import MOST_PAST, KratosStatus, Unlisted
from kratos_sync.application.kratos_config.check import Coverage, Report
from kratos_sync.application.kratos_config.hooks import METHODS
from kratos_sync.application.missed_webhooks import HOOKS
from kratos_sync.application.operation_scopes import ReconcileScope
from kratos_sync.application.operations import recorded
from kratos_sync.application.ports.reconciliation import (
    MOST_KEPT_UNLISTED,
    Findings,
    PastReconciliation,
)
from kratos_sync.application.reconcile import allowed
from kratos_sync.domain.fields import from_text
from kratos_sync.domain.json_values import Json

MOST_DIGITS: Final = 7
SHOWN: Final = 50
FIRST: Final = UUID(int=0)
PLOT_WIDTH, PLOT_HEIGHT, WIDEST_BAR = 600, 150, 30


class UnreadableConfiguration(Exception):
    """What was pasted is no Kratos configuration; the text says why, and quotes nothing."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A reconciliation in the plot: its place, and its part for each hook from below upwards."""

    x: float
    width: float
    parts: Sequence[tuple[str, float, float]]
    label: str


class KratosPages:
    """Shows how our copy and Kratos drift apart, and reconciles them."""

    def __init__(
        self,
        status: KratosStatus,
        check: Callable[[bytes], Report],
        actions: Actions,
        changes: Changes,
        *,
        configured: Callable[[], Report | None] = lambda: None,
    ) -> None:
        """`check` and `configured` raise UnreadableConfiguration.

        `configured` checks the configuration that the console can read itself, if there is one.
        """
        self._status = status
        self._check = check
        self._actions = actions
        self._changes = changes
        self._configured = configured

    def routes(self) -> Sequence[ConsoleRoute]:
        """The pages and what their forms do."""
        return [
            ConsoleRoute("/kratos", self.show),
            ConsoleRoute("/kratos/check", self.check, method="POST"),
            ConsoleRoute("/kratos/reconcile", self.reconcile, Role.OPERATOR, "POST"),
            ConsoleRoute("/kratos/unlisted", self.name, Role.PRIVACY, "POST"),
        ]

    def show(self, call: Call) -> Page:
        """Reconciliations, and what was missed; hooks, and when they last called."""
        given = call.request.query_params
        before = _before(given.get("before"))
        return Page("kratos.html", self._context(_after(given.get("after")), before=before))

    def name(self, call: Call) -> Page:
        """The same with the traits of who is not listed; who saw them, and why, is recorded."""
        after = _after(call.text("after"))
        unlisted = self._status.unlisted(after, SHOWN, with_traits=True)
        ids: list[Json] = [str(each.id) for each in unlisted.identities]
        request = requested(call, "view", scope={"identities": ids})
        with recorded(self._changes.operations, request):
            return Page("kratos.html", self._context(after, unlisted))

    def check(self, call: Call) -> Page:
        """The same, with what a pasted configuration covers. It is not kept."""
        pasted = call.form.get("configuration")
        if not isinstance(pasted, str) or not pasted.strip():
            raise WrongInput("Paste Kratos' configuration.")
        try:
            checked = self._check(pasted.encode())
        except UnreadableConfiguration as error:
            raise WrongInput(f"It cannot be read: {error}.") from None
        return Page("kratos.html", self._context(checked=checked))

    def reconcile(self, call: Call) -> See:
        """Compare everybody with Kratos now; a dry run changes nothing."""
        number = call.text("allow_deletes", MOST_DIGITS) or "0"
        if not number.isdecimal():
            raise WrongInput("Write how many identities may be deleted.")
        scope = ReconcileScope(int(number), dry_run=call.text("dry_run") == "yes")
        if scope.allow_deletes and not call.operator.may(Role.PRIVACY):
            raise WrongInput("Deleting more than the guard allows needs the role privacy.")
        request = requested(call, "reconcile", scope=scope.to_json())
        return self._changes.carry_out(call, request, partial(self._actions.reconcile, scope))

    def _context(
        self,
        after: UUID = FIRST,
        unlisted: Unlisted | None = None,
        *,
        checked: Report | None = None,
        before: datetime | None = None,
    ) -> dict[str, Any]:
        report = self._status.report()
        past = report.drift.past if before is None else self._status.past(before, MOST_PAST)
        oldest = past[-1].started_at if len(past) >= MOST_PAST else None
        last = report.drift.last
        deletions = refused_deletions(last.findings) if last and last.refusal else 0
        unreadable = None
        if is_configured := checked is None:
            try:
                checked = self._configured()
            except UnreadableConfiguration as error:
                unreadable = str(error)
        are_named = unlisted is not None
        if unlisted is None:
            unlisted = self._status.unlisted(after, SHOWN)
        if not unlisted.number and deletions <= MOST_KEPT_UNLISTED:
            deletions = 0  # each was decided about
        return {
            "at": report.at,
            "drift": report.drift,
            "last": last,
            "deletions": deletions,
            "past": past,
            "older": oldest if oldest and self._status.past(oldest, 1) else None,
            "are_newest": before is None,
            "bars": bars(past),
            "width": PLOT_WIDTH,
            "height": PLOT_HEIGHT,
            "hook_names": HOOKS,
            "hooks": hook_rows(report.hooks, report.at),
            "unlisted": unlisted,
            "are_named": are_named,
            "after": after,
            "checked": checked,
            "is_configured": is_configured,
            "unreadable": unreadable,
            "matrix": None if checked is None else matrix(checked.coverage),
            "methods": sorted({method for methods in METHODS.values() for method in methods}),
            "ticket": new_ticket(),
        }


def refused_deletions(found: Findings) -> int:
    """How many deletions would have to be allowed; 0 if that was not why they were refused."""
    return found.unlisted if found.known and found.unlisted > allowed(found) else 0


def bars(past: Sequence[PastReconciliation]) -> list[Bar]:
    """The runs that ended, oldest first, as bars of the webhooks that were missed by hook."""
    ended = [each for each in reversed(past) if each.ended_at is not None]
    most = max((each.findings.missed for each in ended), default=0) or 1
    width = min(PLOT_WIDTH / max(len(ended), 1), WIDEST_BAR)
    drawn = []
    for number, each in enumerate(ended):
        parts, top = [], float(PLOT_HEIGHT)
        for hook in HOOKS:
            missed = each.findings.missed_webhooks.get(hook, 0)
            height = missed / most * PLOT_HEIGHT
            top -= height
            if missed:
                parts.append((hook, round(top, 1), round(height, 1)))
        label = f"{each.started_at:%Y-%m-%d %H:%M} UTC: {each.findings.missed} missed"
        drawn.append(Bar(round(number * width, 1), round(width * 0.8, 1), parts, label))
    return drawn


def matrix(coverage: Sequence[Coverage]) -> Mapping[str, Mapping[str | None, str]]:
    """By flow and method: covered, missing, or off; None is the flow itself."""
    cells: dict[str, dict[str | None, str]] = defaultdict(dict)
    for each in coverage:
        state = "off" if not each.is_on else "covered" if each.is_covered else "missing"
        cells[each.place.flow][each.place.method] = state
    return cells


def _before(text: str | None) -> datetime | None:
    if not text:
        return None
    try:
        before = datetime.fromisoformat(text)
    except ValueError:
        raise WrongInput(NO_PAGE) from None
    if before.tzinfo is None:
        raise WrongInput(NO_PAGE)
    return before


def _after(text: str | None) -> UUID:
    found = from_text(text) if text else FIRST
    if found is None:
        raise WrongInput(NO_PAGE)
    return found
