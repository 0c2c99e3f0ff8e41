"""The record of operations in PostgreSQL, written by functions of the schema."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, Engine, text

from kratos_sync.application.ports.operations import (
    CannotBeResumed,
    How,
    Noted,
    Operation,
    OperationFilter,
    OperationRequest,
    Outcome,
    Progress,
)
from kratos_sync.domain.json_values import Json
from kratos_sync.infrastructure.ledger.snapshot import snapshot, time_of_ledger
from kratos_sync.infrastructure.postgres.engine import translate_errors
from kratos_sync.infrastructure.postgres.json import dumps, storable

MOST_UNENDED: Final = 20
DEAD_SHOWN_FOR: Final = timedelta(days=1)

BEGIN: Final = text("""
    SELECT kratos_sync.begin_operation(
        :operation, :by, :how, :reason, CAST(:subject AS uuid), :consumer, CAST(:scope AS jsonb),
        CAST(:total AS bigint), CAST(:runner AS uuid), CAST(:resumes AS bigint))
""")
NOTE: Final = text("""
    SELECT cancelled_by FROM kratos_sync.note_operation(
        :id, CAST(:runner AS uuid), :done, CAST(:total AS bigint), CAST(:result AS jsonb), :outcome)
""")
CANCEL: Final = text("SELECT kratos_sync.cancel_operation(:id, :by)")
REMOVE: Final = text("SELECT kratos_sync.purge_operations(clock_timestamp() - :age, :most)")

_READ: Final = f"""
    SELECT {", ".join(each.name for each in fields(Operation))} FROM kratos_sync.audit
    WHERE {{conditions}} ORDER BY id DESC LIMIT :most
"""  # noqa: S608  # every part is ours
_CONDITIONS: Final = {
    "id": "id = :id",
    "operation": "operation = :operation",
    "by": "by = :by",
    "since": "started_at >= :since",
    "before": "id < :before",
}
# The first of both is the condition of an index.
_RUNNING: Final = "ended_at IS NULL AND outcome = 'running'"
_UNENDED: Final = "ended_at IS NULL AND seen_at > clock_timestamp() - CAST(:dead AS interval)"


class PostgresOperations:
    """The Operations port."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def now(self) -> datetime:
        return time_of_ledger(self._engine)

    def begin(self, request: OperationRequest, runner: UUID, total: int | None = None) -> int:
        texts = {name: getattr(request, name) for name in ("by", "reason", "consumer")}
        parameters = {
            **{name: given and storable(given) for name, given in texts.items()},
            "operation": request.operation,
            "how": request.how,
            "subject": request.subject,
            "scope": _document(request.scope),
            "total": total,
            "runner": runner,
            "resumes": request.resumes,
        }
        with self._transaction() as connection:
            begun: int | None = connection.execute(BEGIN, parameters).scalar_one()
        if begun is None:
            raise CannotBeResumed(f"operation {request.resumes} cannot be resumed")
        return begun

    def note(
        self,
        operation_id: int,
        runner: UUID,
        progress: Progress,
        outcome: Outcome = Outcome.RUNNING,
    ) -> Noted | None:
        parameters = {
            "id": operation_id,
            "runner": runner,
            "done": progress.done,
            "total": progress.total,
            "result": _document(progress.result),
            "outcome": outcome,
        }
        with self._transaction() as connection:
            row = connection.execute(NOTE, parameters).one_or_none()
        return None if row is None else Noted(*row)

    def request_cancel(self, operation_id: int, by: str) -> bool:
        with self._transaction() as connection:
            parameters = {"id": operation_id, "by": storable(by)}
            return bool(connection.execute(CANCEL, parameters).scalar_one())

    def find(self, operation_id: int) -> Operation | None:
        with snapshot(self._engine) as connection:
            return next(iter(_read(connection, 1, id=operation_id)), None)

    def newest(
        self, wanted: OperationFilter, most: int, before: int | None = None
    ) -> Sequence[Operation]:
        given = {**asdict(wanted), "before": before}
        besides = [_RUNNING] if given.pop("only_running") else []
        with snapshot(self._engine) as connection:
            return _read(connection, most, *besides, **given)

    def remove_older(self, age: timedelta, most: int) -> int:
        with self._transaction() as connection:
            removed: int = connection.execute(REMOVE, {"age": age, "most": most}).scalar_one()
        return removed

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with translate_errors(), self._engine.begin() as connection:
            yield connection


def unended_operations(connection: Connection) -> Sequence[Operation]:
    """Those that run, and for a day those whose process died, unless they were resumed."""
    return _read(connection, MOST_UNENDED, _UNENDED, dead=DEAD_SHOWN_FOR)


def _read(connection: Connection, most: int, *besides: str, **given: object) -> Sequence[Operation]:
    given = {name: value for name, value in given.items() if value is not None}
    conditions = [*besides, *(_CONDITIONS[name] for name in given if name in _CONDITIONS)]
    statement = text(_READ.format(conditions=" AND ".join(conditions) or "true"))
    rows = connection.execute(statement, {**given, "most": most}).mappings()
    return [Operation(**_typed(dict(row))) for row in rows]


def _document(numbers_and_names: Mapping[str, Json]) -> str:
    return dumps(
        {
            name: storable(value) if isinstance(value, str) else value
            for name, value in numbers_and_names.items()
        }
    )


def _typed(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"how": How(row["how"]), "outcome": Outcome(row["outcome"])}
