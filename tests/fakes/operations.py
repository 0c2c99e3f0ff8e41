"""The record of operations, in memory."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from kratos_sync.application.ports.operations import (
    DEAD_AFTER,
    RESUMABLE,
    CannotBeResumed,
    Noted,
    Operation,
    OperationFilter,
    OperationRequest,
    Outcome,
    Progress,
)

ROLE = "test"
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
KEPT_AT_LEAST = timedelta(days=1)


class InMemoryOperations:
    """The Operations port; each look at its clock takes a microsecond."""

    def __init__(self) -> None:
        self._rows: dict[int, Operation] = {}
        self._runners: dict[int, UUID] = {}
        self._last = 0
        self._now = NOON

    def pass_time(self, time: timedelta) -> None:
        """Let everything that was recorded until now be as much longer ago."""
        self._now += time

    def now(self) -> datetime:
        self._now += timedelta(microseconds=1)
        return self._now

    def begin(self, request: OperationRequest, runner: UUID, total: int | None = None) -> int:
        now = self.now()
        if (resumed := request.resumes) is not None:
            old = self.find(resumed)
            others = [each.resumes for each in self._rows.values()]
            if old is None or old.outcome not in RESUMABLE or resumed in others:
                raise CannotBeResumed(f"operation {resumed} cannot be resumed")
            self._rows[resumed] = replace(old, ended_at=old.ended_at or now)
        self._last += 1
        self._rows[self._last] = Operation(
            self._last,
            request.operation,
            request.by,
            ROLE,
            request.how,
            request.reason,
            request.subject,
            request.consumer,
            dict(request.scope),
            request.resumes,
            now,
            now,
            None,
            Outcome.RUNNING,
            0,
            total,
            {},
            None,
            None,
        )
        self._runners[self._last] = runner
        return self._last

    def note(
        self,
        operation_id: int,
        runner: UUID,
        progress: Progress,
        outcome: Outcome = Outcome.RUNNING,
    ) -> Noted | None:
        row = self._rows.get(operation_id)
        if row is None or row.ended_at or self._runners[operation_id] != runner:
            return None
        now = self.now()
        self._rows[operation_id] = replace(
            row,
            seen_at=now,
            ended_at=None if outcome is Outcome.RUNNING else now,
            outcome=outcome,
            done=progress.done,
            total=progress.total,
            result=dict(progress.result),
        )
        return Noted(row.cancel_requested_by)

    def request_cancel(self, operation_id: int, by: str) -> bool:
        row = self._rows.get(operation_id)
        if row is None or row.ended_at or row.cancel_requested_at:
            return False
        self._rows[operation_id] = replace(
            row, cancel_requested_by=by, cancel_requested_at=self.now()
        )
        return True

    def find(self, operation_id: int) -> Operation | None:
        row = self._rows.get(operation_id)
        return None if row is None else self._as_seen(row)

    def newest(
        self, wanted: OperationFilter, most: int, before: int | None = None
    ) -> Sequence[Operation]:
        found = [
            each
            for each in map(self._as_seen, reversed(self._rows.values()))
            if wanted.operation in {None, each.operation}
            and wanted.by in {None, each.by}
            and (wanted.since is None or each.started_at >= wanted.since)
            and (not wanted.only_running or each.outcome is Outcome.RUNNING)
            and (before is None or each.id < before)
        ]
        return found[:most]

    def remove_older(self, age: timedelta, most: int) -> int:
        before = self.now() - max(age, KEPT_AT_LEAST)
        old = [number for number, each in self._rows.items() if each.seen_at < before][:most]
        for number in old:
            del self._rows[number], self._runners[number]
        return len(old)

    def _as_seen(self, row: Operation) -> Operation:
        if row.ended_at is None and self._now - row.seen_at > DEAD_AFTER:
            return replace(row, outcome=Outcome.INTERRUPTED)
        return row
