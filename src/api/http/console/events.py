"""The pages of events: search the log, look at one event, try a consumer on it, replay."""

import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from starlette.datastructures import QueryParams

from kratos_sync.api.http.console.access import Role
from kratos_sync.api.http.console.app import Call, ConsoleRoute, NotFound, Page, See, WrongInput
from kratos_sync.api.http.console.changes import Changes, new_ticket, replay, requested
from kratos_sync.api.timeline import entry_of
from kratos_sync.application.actions import Actions, NotSubscribed
from kratos_sync.application.application import Subscriptions
from kratos_sync.application.consumer import Consumer
from kratos_sync.application.operations import recorded
from kratos_sync.application.ports.dead_letters import DeadLetters, DeliveredEvent
from kratos_sync.application.ports.event_search import (
    MOST_READ,
    MOST_READ_FURTHER,
    OUTCOMES,
    EventFilter,
    EventSearch,
)
from kratos_sync.application.ports.history import History, causes, error_type
from kratos_sync.application.ports.trials import NoTrial, Trial, Trials
from kratos_sync.domain.fields import from_text

SHOWN: Final = 50
TRACE_ID: Final = re.compile(r"[0-9a-f]{32}")
LOCAL_TIME: Final = "%Y-%m-%dT%H:%M"
"""As the browser's field for a time sends it, which is read as UTC."""
TEXTS: Final = ("name", "source", "hook", "consumer", "outcome", "trace_id")
ORIGINS: Final = ("source", "hook", "trace_id")
LONGEST_TEXT: Final = 200


class EventPages:
    """Searches events, shows one, tries a consumer on it, and replays what was found."""

    def __init__(
        self,
        *,
        search: EventSearch,
        dead_letters: DeadLetters,
        history: History,
        trials: Trials,
        subscriptions: Subscriptions,
        actions: Actions,
        changes: Changes,
        effects_elsewhere: Callable[[type[Consumer[Any]]], str | None],
    ) -> None:
        """`effects_elsewhere` says what a consumer uses that is not rolled back."""
        self._search = search
        self._dead_letters = dead_letters
        self._history = history
        self._trials = trials
        self._subscriptions = subscriptions
        self._actions = actions
        self._changes = changes
        self._effects_elsewhere = effects_elsewhere

    def routes(self) -> Sequence[ConsoleRoute]:
        """The pages and what their forms do."""
        one = "/events/{id:uuid}"
        return [
            ConsoleRoute("/events", self.list),
            ConsoleRoute("/events/replay", self.replay, Role.OPERATOR, "POST"),
            ConsoleRoute(one, self.show),
            ConsoleRoute(f"{one}/data", self.data, Role.PRIVACY, "POST"),
            ConsoleRoute(f"{one}/try", self.try_, Role.OPERATOR, "POST"),
        ]

    def list(self, call: Call) -> Page:
        """The events that match, the newest first, a page at a time."""
        query = call.request.query_params
        wanted = event_filter(query)
        is_further = query.get("further") == "yes"
        read = MOST_READ_FURTHER if is_further else MOST_READ
        found = self._search.newest(wanted, SHOWN, call.before(), read)
        more = further = None
        if found.next is not None:
            more = call.earlier(found.next, further=None)
            further = call.earlier(found.next, further="yes")
        return Page(
            "events.html",
            {
                "events": found.events,
                "searched_to": found.next and found.next.recorded_at,
                "more": more,
                "further": further if len(found.events) < SHOWN else None,
                "searched": read,
                "most_searched": MOST_READ_FURTHER,
                "query": query,
                "is_filtered": wanted != EventFilter(),
                "names": sorted({name for name, _ in self._subscriptions}),
                "consumers": sorted(self._subscriptions.consumers),
                "outcomes": OUTCOMES,
                "ticket": new_ticket(),
            },
        )

    def replay(self, call: Call) -> Page | See:
        """Deliver the events of a name, a time, an origin and an outcome to one consumer again.

        Or of those the ones that were ticked on the page.
        """
        consumer = call.text("consumer", LONGEST_TEXT)
        if consumer not in self._subscriptions.consumers:
            raise WrongInput("Choose a consumer.")
        since, until = _time(call.text("since")), _time(call.text("until"))
        ticked = _ticked(call)
        if since is None and not ticked:
            raise WrongInput("Say from when on, or tick events: all of them have a beginning.")
        name = call.text("name", LONGEST_TEXT) or None
        source, hook, trace_id = (call.text(each, LONGEST_TEXT) or None for each in ORIGINS)
        outcome = call.text("outcome", LONGEST_TEXT) or None
        _require_trace_id(trace_id)
        _require_outcome(outcome)
        try:
            wanted = self._actions.range_of(
                consumer,
                name,
                since=since,
                until=until,
                source=source,
                hook=hook,
                trace_id=trace_id,
                outcome=outcome,
                of_consumer=call.text("of_consumer", LONGEST_TEXT) or None,
                event_ids=ticked,
            )
        except NotSubscribed as error:
            raise WrongInput(f"{error}.") from None
        return replay(self._changes, self._actions, call, wanted)

    def show(self, call: Call) -> Page:
        """One event and its deliveries, without its payload and without texts of errors."""
        return Page("event.html", self._context(call))

    def data(self, call: Call) -> Page:
        """The same with payload and errors; that they were seen, and why, is recorded."""
        event = self._event(call)
        request = requested(call, "view", subject=event.identity_id, scope={"event": str(event.id)})
        with recorded(self._changes.operations, request):
            payload = json.dumps(json.loads(event.payload), indent=2, ensure_ascii=False)
            errors = [
                (delivery.consumer, attempt.number, attempt.error)
                for delivery in event.deliveries
                for attempt in (*delivery.attempts,)
                if attempt.error
            ] + [
                (delivery.consumer, delivery.outstanding.attempts, delivery.outstanding.error)
                for delivery in event.deliveries
                if delivery.outstanding and delivery.outstanding.error
            ]
        return Page("event.html", self._context(call, payload=payload, errors=errors))

    def try_(self, call: Call) -> Page:
        """Try a consumer on the event; everything it writes is rolled back."""
        name = call.text("consumer", LONGEST_TEXT)
        consumer = self._subscriptions.consumers.get(name)
        if consumer is None:
            raise WrongInput("Choose a consumer.")
        used = self._effects_elsewhere(consumer)
        if used is not None and call.text("really") != "yes":
            raise WrongInput(f"{name} uses {used}, for real: say so first.")
        event = self._event(call)
        request = requested(call, "try", consumer=name, scope={"event": str(event.id)})
        with self._changes.carried_out_here(call, request) as operation:
            if operation is None:
                raise WrongInput("It was tried already: open the page again.")
            try:
                trial = self._trials.run(consumer, event.id, self._subscriptions.events_of(name))
            except NoTrial as error:
                raise WrongInput(f"Not tried: {error}.") from None
            operation.advance(1, error=trial.error is not None)
        return Page("event.html", self._context(call, trial=trial, tried=name))

    def _event(self, call: Call) -> DeliveredEvent:
        event = self._dead_letters.event(call.request.path_params["id"])
        if event is None:
            raise NotFound("There is no such event: it was removed, or never recorded.")
        return event

    def _context(
        self,
        call: Call,
        *,
        payload: str | None = None,
        errors: Sequence[tuple[str, int, str]] = (),
        trial: Trial | None = None,
        tried: str | None = None,
    ) -> dict[str, Any]:
        event = self._event(call)
        related = self._history.of_moment(event.identity_id, event.occurred_at)
        cause_of = causes(related)
        entry = entry_of(event, event.at, cause_of.get(event.id))
        broken = {each.consumer for each in entry.consumptions if each.is_broken}
        subscribed = [
            name
            for name in self._subscriptions.consumers
            if event.name in self._subscriptions.events_of(name)
        ]
        return {
            "event": event,
            "entry": entry,
            "raised": [e for e in related if (c := cause_of.get(e.id)) and c.id == event.id],
            "subscribed": sorted(subscribed, key=lambda name: (name not in broken, name)),
            "payload": payload,
            "errors": errors,
            "trial": trial,
            "failed": trial and trial.error and error_type(trial.error),
            "tried": tried,
            "ticket": new_ticket(),
        }


def event_filter(query: QueryParams) -> EventFilter:
    """The filter in a URL. Raises WrongInput."""
    texts = {name: query.get(name, "").strip() or None for name in TEXTS}
    if any(text is not None and len(text) > LONGEST_TEXT for text in texts.values()):
        raise WrongInput("That is too long to search for.")
    _require_trace_id(texts["trace_id"])
    _require_outcome(texts["outcome"])
    return EventFilter(
        **texts, since=_time(query.get("since", "")), until=_time(query.get("until", ""))
    )


def _require_trace_id(text: str | None) -> None:
    if text is not None and not TRACE_ID.fullmatch(text):
        raise WrongInput("A trace id has 32 digits, 0 to 9 and a to f.")


def _require_outcome(text: str | None) -> None:
    if text is not None and text not in OUTCOMES:
        raise WrongInput("There is no such outcome.")


def _ticked(call: Call) -> tuple[UUID, ...]:
    """The events that were ticked on the page, which shows no more than SHOWN."""
    ticked = call.form.getlist("event")
    ids = [each for text in ticked if (each := from_text(str(text))) is not None]
    if len(ids) < len(ticked) or len(ids) > SHOWN:
        raise WrongInput("There are no such events.")
    return tuple(ids)


def _time(text: str) -> datetime | None:
    if not text:
        return None
    try:
        return datetime.strptime(text, LOCAL_TIME).replace(tzinfo=UTC)
    except ValueError:
        raise WrongInput("Write a time as 2026-11-29T13:45, in UTC.") from None
