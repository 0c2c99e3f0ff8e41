"""The page of one identity: its story, its state, and what can be done for it."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final
from uuid import UUID

from kratos_sync.api.http.console.access import Role
from kratos_sync.api.http.console.app import Call, ConsoleRoute, NotFound, Page, See, WrongInput
from kratos_sync.api.http.console.changes import Changes, new_ticket, replay, requested
from kratos_sync.api.timeline import entry_of, summary
from kratos_sync.application.actions import Actions
from kratos_sync.application.operations import recorded
from kratos_sync.application.ports.history import History, IdentitySearch, causes
from kratos_sync.application.ports.kratos import HeldElsewhere
from kratos_sync.application.ports.position import Position
from kratos_sync.domain.fields import from_text
from kratos_sync.domain.json_values import Json

MOST_FOUND: Final = 20
MOST_EVENTS: Final = 200
LONGEST_SEARCH: Final = 320
"""An e-mail address is not longer."""


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
        return Page("identity_search.html", {"found": None, "known": ""})

    def find(self, call: Call) -> Page | See:
        """Go to the identity that was searched for, or list those found.

        What is searched for may be an address: it is sent in a form, and stands in no URL.
        """
        known = call.text("known", LONGEST_SEARCH)
        if not known:
            raise WrongInput("Enter an id, an external id or an address.")
        found = self._search.find(known, MOST_FOUND + 1)
        if len(found) == 1:
            return See(f"/identity/{found[0]}")
        is_cut = len(found) > MOST_FOUND
        context = {
            "found": found[:MOST_FOUND],
            "is_cut": is_cut,
            "known": known,
            "id": from_text(known.lower()),
            "ticket": new_ticket(),
        }
        return Page("identity_search.html", context)

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
        self._require_held(call)
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
        self._require_held(call)
        request = requested(call, "delete", subject=_id(call))
        return self._changes.carry_out(call, request, self._actions.delete)

    def erase(self, call: Call) -> See:
        """Erase what is recorded of the identity."""
        if not call.operator.second_factor:
            raise WrongInput("Erasing needs a second factor: sign in again with one.")
        request = requested(call, "erase", subject=_id(call))
        return self._changes.carry_out(call, request, self._actions.erase)

    def _require_held(self, call: Call) -> None:
        if _id(call) not in self._actions.ids:
            raise WrongInput(f"{HeldElsewhere(self._actions.ids)}.")

    def _context(self, call: Call, copy: Mapping[str, Json] | None) -> dict[str, Any]:
        found = self._history.of(_id(call), MOST_EVENTS + 1, call.before())
        if found is None:
            raise NotFound("Nothing is known of this identity.")
        shown = found.events[-MOST_EVENTS:]
        cause_of = causes(shown)
        last = shown[0] if len(found.events) > MOST_EVENTS else None
        return {
            "found": found,
            "state": found.identity and summary(found.identity),
            "entries": [entry_of(e, found.at, cause_of.get(e.id)) for e in reversed(shown)],
            "more": last
            and call.earlier(
                Position(last.recorded_at, last.id), path=f"/identity/{found.identity_id}"
            ),
            "consumers": sorted(self._actions.subscriptions.consumers),
            "copy": None if copy is None else json.dumps(copy, indent=2, ensure_ascii=False),
            "ticket": new_ticket(),
        }


def _id(call: Call) -> UUID:
    identity_id: UUID = call.request.path_params["id"]
    return identity_id
