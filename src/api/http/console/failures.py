"""The pages of failures: dead letters in groups, and what can be done about a group."""

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from hashlib import sha256
from itertools import chain
from typing import Final, NamedTuple

from kratos_sync.api.http.console.access import Role
from kratos_sync.api.http.console.app import (
    NO_PAGE,
    Call,
    ConsoleRoute,
    NotFound,
    Page,
    See,
    WrongInput,
)
from kratos_sync.api.http.console.changes import Changes, new_ticket, replay, requested
from kratos_sync.api.http.console.recent import Recent
from kratos_sync.application.actions import DISCARD, RETRY, Actions
from kratos_sync.application.operation_scopes import DeadLetterScope
from kratos_sync.application.ports.dead_letters import (
    DeadLetterFilter,
    DeadLetterGroup,
    DeadLetterGroups,
    DeadLetters,
)
from kratos_sync.application.ports.operations import Operation, OperationFilter
from kratos_sync.application.ports.position import Position
from kratos_sync.domain.fields import from_text

MOST_SHOWN: Final = 50
MOST_GROUPS: Final = 200
"""Of one query that looks for a group."""
MOST_SEARCHED: Final = 50 * MOST_GROUPS
"""How many groups can be paged through."""
MOST_RUNNING: Final = 20
MANY: Final = 10_000
"""Decisions about more take long."""
FEW_DIGITS: Final = re.compile(r"[0-9]{1,6}")
ONE, ALL = "one", "all"
SHOWN_RUNNING: Final = frozenset({RETRY, DISCARD, "replay"})


def group_key(group: DeadLetterGroup) -> str:
    """The name of a group in a URL, which quotes nothing of its errors."""
    parts = "\0".join((group.consumer, group.exception, group.shape or ""))
    return sha256(parts.encode()).hexdigest()[:16]


class Groups(NamedTuple):
    """A page of groups, and the consumers that have any."""

    found: DeadLetterGroups
    consumers: Sequence[str]


class FailurePages:
    """Lists the groups of dead letters, shows one, and retries, discards or replays it."""

    def __init__(
        self,
        dead_letters: DeadLetters,
        actions: Actions,
        changes: Changes,
        kept_seconds: float,
        stopped: threading.Event,
    ) -> None:
        """`kept_seconds` is how old a page of groups may be; it is refreshed until `stopped`."""
        self._dead_letters = dead_letters
        self._actions = actions
        self._changes = changes
        self._listed: Mapping[str, DeadLetterFilter] = {}
        self._recent = Recent(self._asked, changes.version, kept_seconds, stopped)

    def routes(self) -> Sequence[ConsoleRoute]:
        """The pages and what their forms do."""
        one = "/failures/{key}"
        return [
            ConsoleRoute("/failures", self.list),
            ConsoleRoute(one, self.show),
            ConsoleRoute(f"{one}/retry", self.retry, Role.OPERATOR, "POST"),
            ConsoleRoute(f"{one}/discard", self.discard, Role.OPERATOR, "POST"),
            ConsoleRoute(f"{one}/replay", self.replay, Role.OPERATOR, "POST"),
        ]

    def list(self, call: Call) -> Page:
        """The groups, the largest first, a page at a time."""
        consumer = call.request.query_params.get("consumer") or None
        skip = _skipped(call.request.query_params.get("skip"))
        found, consumers = self._recent.get((consumer, skip))
        groups = [(group_key(group), group) for group in found.groups]
        if skip and not groups:
            raise WrongInput(NO_PAGE)
        shown = skip + len(groups)
        more = None
        if groups and shown < min(found.groups_in_all, MOST_SEARCHED):
            more = call.with_query(skip=shown)
        return Page(
            "failures.html",
            {
                "found": found,
                "groups": groups,
                "more": more,
                "consumer": consumer,
                "consumers": consumers,
                "at": found.at,
                "running": self._running(),
            },
        )

    def _asked(self, page: tuple[str | None, int]) -> Groups:
        consumer, skip = page
        found = self._groups(DeadLetterFilter(consumer=consumer), MOST_SHOWN, skip)
        return Groups(found, self._dead_letters.consumers())

    def _running(self) -> Sequence[Operation]:
        wanted = OperationFilter(only_running=True)
        found = self._changes.operations.newest(wanted, MOST_RUNNING)
        return [each for each in found if each.operation in SHOWN_RUNNING]

    def show(self, call: Call) -> Page:
        """One group with its dead letters, the newest first, a page at a time."""
        group, at = self._group(call)
        letters = self._dead_letters.newest(group.filter, MOST_SHOWN + 1, call.before())
        last = letters[MOST_SHOWN - 1] if len(letters) > MOST_SHOWN else None
        return Page(
            "failure.html",
            {
                "key": group_key(group),
                "group": group,
                "letters": letters[:MOST_SHOWN],
                "more": last and call.earlier(Position(last.failed_at, last.event_id)),
                "others": sorted({*self._actions.subscriptions.consumers} - {group.consumer}),
                "running": self._running(),
                "at": at,
                "ticket": new_ticket(),
            },
        )

    def retry(self, call: Call) -> See:
        """Retry the newest of a group, to see whether it succeeds, or all of it."""
        return self._decide(call, RETRY)

    def discard(self, call: Call) -> See:
        """Discard the newest of a group, or all of it, for good."""
        return self._decide(call, DISCARD)

    def replay(self, call: Call) -> Page | See:
        """Deliver the events of a group to another consumer."""
        group, _ = self._group(call)
        consumer = call.text("consumer")
        if consumer == group.consumer or consumer not in self._actions.subscriptions.consumers:
            raise WrongInput("Choose another consumer; this one receives them by a retry.")
        wanted = self._actions.range_of(consumer, dead=self._until(call, group))
        return replay(self._changes, self._actions, call, wanted)

    def _decide(self, call: Call, operation: str) -> See:
        see = self._decided(call, operation)
        is_one_of_many = call.text("which") == ONE and call.text("number") not in {"", "1"}
        key = call.request.path_params["key"]
        return See(f"{see.path}?group={key}") if is_one_of_many else see

    def _decided(self, call: Call, operation: str) -> See:
        if (begun := self._changes.begun(call)) is not None:
            return begun
        wanted, number = self._chosen(call)
        scope = DeadLetterScope.of_filter(wanted).to_json()
        request = requested(call, operation, consumer=wanted.consumer, scope=scope)
        work = partial(self._actions.decide, wanted)
        return self._changes.carry_out(call, request, work, number, is_long=number > MANY)

    def _groups(self, wanted: DeadLetterFilter, most: int, skip: int = 0) -> DeadLetterGroups:
        found = self._dead_letters.groups(wanted, most, skip)
        if wanted == DeadLetterFilter():
            # To find one of them again is quicker than to count them all.
            listed = {group_key(each): replace(each.filter, until=None) for each in found.groups}
            self._listed = {**self._listed, **listed} if skip else listed
        return found

    def _pages(self) -> Iterator[DeadLetterGroups]:
        for skip in range(0, MOST_SEARCHED, MOST_GROUPS):
            found = self._groups(DeadLetterFilter(), MOST_GROUPS, skip)
            yield found
            if skip + MOST_GROUPS >= found.groups_in_all:
                break

    def _group(self, call: Call) -> tuple[DeadLetterGroup, datetime]:
        """The group of the page that is asked for, counted now."""
        key = call.request.path_params["key"]
        listed = self._listed.get(key)
        pages = [] if listed is None else [self._groups(listed, MOST_GROUPS)]
        for found in chain(pages, self._pages()):
            for group in found.groups:
                if group_key(group) == key:
                    return group, found.at
        raise NotFound("There are no such dead letters any more.")

    def _chosen(self, call: Call) -> tuple[DeadLetterFilter, int]:
        """What the page showed when the form was made, and how many of them there are."""
        (group, _), which = self._group(call), call.text("which")
        if which == ONE and (event_id := from_text(call.text("example"))) is not None:
            return DeadLetterFilter(event_id=event_id, consumer=group.consumer), 1
        if which != ALL:
            raise WrongInput("Choose one or all.")
        wanted = self._until(call, group)
        number = self._dead_letters.count(wanted)
        if call.text("number") != str(number):
            raise WrongInput(f"There are {number:,} of them now: open the page again.")
        return wanted, number

    def _until(self, call: Call, group: DeadLetterGroup) -> DeadLetterFilter:
        """Those of the group that the page counted."""
        try:
            return replace(group.filter, until=datetime.fromisoformat(call.text("until")))
        except ValueError:
            raise WrongInput("The form is incomplete: open the page again.") from None


def _skipped(text: str | None) -> int:
    if not text:
        return 0
    if not FEW_DIGITS.fullmatch(text) or int(text) >= MOST_SEARCHED:
        raise WrongInput(NO_PAGE)
    return int(text)
