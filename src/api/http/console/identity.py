"""The page of one identity: its story, its state, and what can be done for it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final
from uuid import UUID

from kratos_sync.api.http.console.access import Role
from kratos_sync.api.http.console.app import Call, ConsoleRoute, NotFound, Page, See, WrongInput
from kratos_sync.api.http.console.changes import Changes, new_ticket, replay, requested
from kratos_sync.application.actions import Actions
from kratos_sync.application.operations import recorded
from kratos_sync.application.ports.history import (
    DECISIONS,
    Attempt,
    Delivery,
    History,
    IdentitySearch,
    RecordedEvent,
    error_type,
)
from kratos_sync.application.ports.replay import Position
from kratos_sync.domain.json_values import Json

MOST_FOUND: Final = 20
MOST_EVENTS: Final = 200
LONGEST_SEARCH: Final = 320
"""An e-mail address is not longer."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a delivery, without the text of its error."""

    outcome: str
    at: datetime
    number: int | None
    error: str | None = None
    by: str | None = None
    """What an operator decided, and why."""

    @property
    def is_broken(self) -> bool:
        """Whether something failed."""
        return self.outcome in {"failed", "gave up", "dead letter"}


@dataclass(frozen=True, slots=True)
class Consumption:
    """What one consumer did with an event."""

    consumer: str
    steps: Sequence[Step]

    @property
    def is_broken(self) -> bool:
        """Whether it failed last."""
        return bool(self.steps) and self.steps[-1].is_broken

    @property
    def is_pending(self) -> bool:
        """Whether it is to be tried."""
        return bool(self.steps) and self.steps[-1].outcome in {"pending", "leased"}


@dataclass(frozen=True, slots=True)
class Entry:
    """An event of the timeline; a fact is one that a consumer raised."""

    event: RecordedEvent
    consumptions: Sequence[Consumption]

    @property
    def is_fact(self) -> bool:
        """Whether a consumer raised it."""
        return self.event.name.startswith("identity.")

    @property
    def is_broken(self) -> bool:
        """Whether a delivery of it failed last."""
        return any(each.is_broken for each in self.consumptions)

    @property
    def is_pending(self) -> bool:
        """Whether a delivery of it is to be tried."""
        return any(each.is_pending for each in self.consumptions)


def timeline(events: Sequence[RecordedEvent]) -> list[Entry]:
    """The events with what each consumer did, the newest first."""
    return [
        Entry(event, [Consumption(d.consumer, list(_steps(d))) for d in event.deliveries])
        for event in reversed(events)
    ]


def _steps(delivery: Delivery) -> Iterator[Step]:
    yield from map(_step, delivery.attempts)
    if (pending := delivery.outstanding) is not None:
        error = error_type(pending.error) if pending.error else None
        if pending.failed_at is not None:
            yield Step("dead letter", pending.failed_at, None, error)
        else:
            yield Step("leased" if pending.leased else "pending", pending.due_at, None, error)


def _step(attempt: Attempt) -> Step:
    outcome = attempt.outcome.replace("_", " ")
    if attempt.outcome in DECISIONS:
        return Step(outcome, attempt.started_at, None, by=attempt.error)
    error = error_type(attempt.error) if attempt.error else None
    return Step(outcome, attempt.started_at, attempt.number, error)


class IdentityPages:
    """Finds identities, shows one, and changes it."""

    def __init__(
        self, search: IdentitySearch, history: History, actions: Actions, changes: Changes
    ) -> None:
        self._search = search
        self._history = history
        self._actions = actions
        self._changes = changes

    def routes(self) -> Sequence[ConsoleRoute]:
        """The pages and what their forms do."""
        one = "/identity/{id:uuid}"
        return [
            ConsoleRoute("/identity", self.ask),
            ConsoleRoute("/identity", self.find, method="POST"),
            ConsoleRoute(one, self.show),
            ConsoleRoute(f"{one}/data", self.data, Role.PRIVACY, "POST"),
            ConsoleRoute(f"{one}/sync", self.sync, Role.OPERATOR, "POST"),
            ConsoleRoute(f"{one}/replay", self.replay, Role.OPERATOR, "POST"),
            ConsoleRoute(f"{one}/delete", self.delete, Role.PRIVACY, "POST"),
            ConsoleRoute(f"{one}/erase", self.erase, Role.PRIVACY, "POST"),
        ]

    def ask(self, call: Call) -> Page:  # noqa: ARG002
        """The form to search with."""
        return Page("identity_search.html", {"found": None})

    def find(self, call: Call) -> Page | See:
        """Go to the identity that was searched for, or list those found.

        What is searched for may be an address: it is sent in a form, and stands in no URL.
        """
        known = call.text("known", LONGEST_SEARCH)
        if not known:
            raise WrongInput("Enter an id, an external id or an address.")
        found = self._search.find(known, MOST_FOUND)
        if len(found) == 1:
            return See(f"/identity/{found[0]}")
        return Page("identity_search.html", {"found": found})

    def show(self, call: Call) -> Page:
        """The story of an identity, without personal data."""
        return Page("identity.html", self._context(call, None))

    def data(self, call: Call) -> Page:
        """The same page with the person's data; that it was seen, and why, is recorded."""
        request = requested(call, "view", subject=_id(call))
        with recorded(self._changes.operations, request):
            copy = self._history.copy_of(_id(call))
        return Page("identity.html", self._context(call, copy))

    def sync(self, call: Call) -> See:
        """Ask Kratos now."""
        request = requested(call, "sync", subject=_id(call))
        return self._changes.carry_out(call, request, partial(self._actions.sync, [_id(call)]))

    def replay(self, call: Call) -> Page | See:
        """Deliver the identity's events to one consumer once more."""
        consumer = call.text("consumer")
        if consumer not in self._actions.subscriptions.consumers:
            raise WrongInput("Choose a consumer.")
        wanted = self._actions.range_of(consumer, identity_id=_id(call))
        return replay(self._changes, self._actions, call, wanted)

    def delete(self, call: Call) -> See:
        """Delete the identity here and in Kratos."""
        request = requested(call, "delete", subject=_id(call))
        return self._changes.carry_out(call, request, self._actions.delete)

    def erase(self, call: Call) -> See:
        """Erase what is recorded of the identity."""
        if not call.operator.second_factor:
            raise WrongInput("Erasing needs a second factor: sign in again with one.")
        request = requested(call, "erase", subject=_id(call))
        return self._changes.carry_out(call, request, self._actions.erase)

    def _context(self, call: Call, copy: Mapping[str, Json] | None) -> dict[str, Any]:
        found = self._history.of(_id(call), MOST_EVENTS, call.before())
        if found is None:
            raise NotFound("Nothing is known of this identity.")
        last = found.events[0] if len(found.events) == MOST_EVENTS else None
        return {
            "found": found,
            "entries": timeline(found.events),
            "more": last and call.earlier(Position(last.recorded_at, last.id)),
            "consumers": sorted(self._actions.subscriptions.consumers),
            "copy": None if copy is None else json.dumps(copy, indent=2, ensure_ascii=False),
            "ticket": new_ticket(),
        }


def _id(call: Call) -> UUID:
    identity_id: UUID = call.request.path_params["id"]
    return identity_id
