"""The pages of the audit trail: who changed what and why, and what is running."""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode
from uuid import UUID

import msgspec
from starlette.responses import Response, StreamingResponse

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
from kratos_sync.api.http.console.changes import Changes, new_ticket, requested
from kratos_sync.api.timeline import entry_of
from kratos_sync.application.actions import DISCARD, RETRY
from kratos_sync.application.operations import STOP, request_stop
from kratos_sync.application.ports.dead_letters import DeadLetters
from kratos_sync.application.ports.operations import (
    Operation,
    OperationFilter,
    Outcome,
)
from kratos_sync.domain.fields import from_text

SHOWN: Final = 50
MOST_EXPORTED: Final = 100_000
STEP: Final = 1_000
PERIODS: Final = {"1": "the last day", "7": "the last 7 days", "90": "the last 90 days", "": "ever"}
FILTERS: Final = ("by", "operation", "days", "running")
NAMES: Final = (
    "delete",
    "discard",
    "erase",
    "limit",
    "migrate",
    "pause",
    "purge",
    "reconcile",
    "replay",
    "resume",
    "retry",
    "stop",
    "sync",
    "try",
    "view",
)
"""Of operations, to choose from."""
COLUMNS: Final = (
    "id",
    "operation",
    "by",
    "how",
    "reason",
    "subject",
    "consumer",
    "scope",
    "started_at",
    "ended_at",
    "outcome",
    "done",
    "total",
    "result",
)
FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet would calculate."""
LARGEST_ID: Final = 2**63 - 1
GROUP: Final = re.compile("[0-9a-f]{16}")
NO_OPERATION: Final = "There is no such operation."


class AuditPages:
    """Lists operations, shows one with its progress, and asks one to stop."""

    def __init__(self, changes: Changes, dead_letters: DeadLetters) -> None:
        self._changes = changes
        self._operations = changes.operations
        self._dead_letters = dead_letters

    def routes(self) -> Sequence[ConsoleRoute]:
        """The pages and what their forms do."""
        return [
            ConsoleRoute("/audit", self.list),
            ConsoleRoute("/audit.csv", self.export),
            ConsoleRoute("/audit/{id:int}", self.show),
            ConsoleRoute("/audit/{id:int}/stop", self.stop, Role.OPERATOR, "POST"),
        ]

    def list(self, call: Call) -> Page:
        """What was changed, the newest first."""
        query = call.request.query_params
        wanted = self._wanted(call)
        found = self._operations.newest(wanted, SHOWN + 1, _number(query.get("before")))
        kept = {name: value for name, value in query.items() if name != "before" and value}
        more = None
        if len(found) > SHOWN:
            more = call.with_query(before=found[SHOWN - 1].id)
        return Page(
            "audit.html",
            {
                "operations": found[:SHOWN],
                "at": self._operations.now(),
                "query": query,
                "is_filtered": any(query.get(each) for each in FILTERS),
                "names": NAMES,
                "periods": PERIODS,
                "more": more,
                "export": "/audit.csv" + (f"?{urlencode(kept)}" if kept else ""),
            },
        )

    def export(self, call: Call) -> Response:
        """The same as a file for a spreadsheet."""
        return StreamingResponse(
            self._lines(call, self._wanted(call)),
            media_type="text/csv",
            headers={"content-disposition": 'attachment; filename="audit.csv"'},
        )

    def show(self, call: Call) -> Page:
        """One operation; the page follows it while it runs, and then the event that it was about.

        A retry has completed as soon as its dead letter is pending again: whether the consumer
        succeeds is seen at the event.
        """
        operation = self._operations.find(_id(call))
        if operation is None:
            raise NotFound(NO_OPERATION)
        is_running = operation.outcome is Outcome.RUNNING
        event_id = _event(operation)
        event = None if event_id is None else self._dead_letters.event(event_id)
        group = call.request.query_params.get("group", "")
        if not GROUP.fullmatch(group):
            group = ""
        entry = None if event is None else entry_of(event, event.at)
        return Page(
            "operation.html",
            {
                "operation": operation,
                "is_running": is_running,
                "ticket": new_ticket(),
                "is_followed": is_running or (entry is not None and entry.is_pending),
                "entry": entry,
                "here": call.with_query(group=group),
                "see_also": _see_also(operation, group),
            },
        )

    def stop(self, call: Call) -> See:
        """Ask an operation to stop at its next step."""
        number = _id(call)
        request = requested(call, STOP, scope={"operation": number})
        with self._changes.carried_out_here(call, request) as stopping:
            if stopping is not None:
                request_stop(self._operations, number, stopping)
        return See(f"/audit/{number}")

    def _wanted(self, call: Call) -> OperationFilter:
        query = call.request.query_params
        days = query.get("days", "")
        if days not in PERIODS:
            raise WrongInput("There is no such period.")
        since = self._operations.now() - timedelta(days=int(days)) if days else None
        return OperationFilter(
            query.get("operation") or None,
            query.get("by") or None,
            since,
            only_running=query.get("running") == "yes",
        )

    def _lines(self, call: Call, wanted: OperationFilter) -> Iterator[str]:
        yield _line(COLUMNS)
        before, exported = _number(call.request.query_params.get("before")), 0
        while exported < MOST_EXPORTED:
            found = self._operations.newest(wanted, STEP, before)
            yield "".join(_line([_cell(getattr(each, name)) for name in COLUMNS]) for each in found)
            exported += len(found)
            if len(found) < STEP:
                return
            before = found[-1].id
        if self._operations.newest(wanted, 1, before):
            rest = call.with_query(before=before)
            yield _line([f"cut after {exported:,} operations; the rest is at {rest}"])


def _event(operation: Operation) -> UUID | None:
    """The one event that a retry, a discard or a deletion is about."""
    written = operation.scope.get("event_id") or operation.result.get("request")
    return from_text(written) if isinstance(written, str) else None


def _see_also(operation: Operation, group: str) -> Mapping[str, str]:
    """The pages where one goes on, by what is there; `group` is that of a dead letter."""
    if operation.operation in {RETRY, DISCARD} and operation.consumer:
        query = urlencode({"consumer": operation.consumer})
        others = {"The others of this group": f"/failures/{group}"} if group else {}
        return {**others, f"Dead letters of {operation.consumer}": f"/failures?{query}"}
    if operation.operation == "reconcile":
        return {"What was found": "/kratos"}
    return {}


def _line(cells: Sequence[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer).writerow(cells)
    return buffer.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, dict):
        return msgspec.json.encode(value).decode()
    text = str(value)
    return f"'{text}" if text.startswith(FORMULA) else text


def _id(call: Call) -> int:
    number: int = call.request.path_params["id"]
    if number > LARGEST_ID:
        raise NotFound(NO_OPERATION)
    return number


def _number(text: str | None) -> int | None:
    if not text:
        return None
    if not text.isdecimal() or len(text) > 18:  # noqa: PLR2004  # of a bigint
        raise WrongInput(NO_PAGE)
    return int(text)
