"""What `kratos-sync status` tells of the ledger's room on disk."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from api.commands.units import amount, duration, moment, size
from application.ports.purge import PastPurge, Retention
from application.ports.storage import Holder, Storage

LARGEST: Final = 4
"""So many tables are told one by one."""


def storage_rows(
    storage: Storage, retention: Retention, now: datetime
) -> Iterator[tuple[str, str]]:
    """Give a heading and a line for each: sizes, what is kept, the newest purge."""
    largest = ", ".join(f"{table.name} {size(table.bytes)}" for table in storage.tables[:LARGEST])
    yield "Storage", f"{size(storage.bytes)}: {largest}"
    events = _kept("events", storage.oldest_event_at, retention.events)
    attempts = _kept("attempts", storage.oldest_attempt_at, retention.attempts)
    yield "Kept", f"{events}; {attempts}"
    yield "Last purge", _purge(storage.last_purge, now)


def sentence(holder: Holder) -> str:
    """Say what is held, by whom, and what ends it."""
    held = "" if holder.held_for is None else f", open for {duration(holder.held_for)},"
    since = (
        ""
        if holder.held_for is not None or holder.transactions is None
        else f", {amount(holder.transactions, 'transaction')} old,"
    )
    if holder.kind == "transaction":
        who = f"The transaction of process {holder.name} ({holder.application or 'no name'})"
        remedy = f"`SELECT pg_terminate_backend({holder.name})` ends it."
    elif holder.kind == "prepared transaction":
        who, remedy = f"The prepared transaction {holder.name}", "ROLLBACK PREPARED ends it."
    else:
        who, remedy = f"The replication slot {holder.name}", "Its standby should catch up."
    return (
        f"{who}{held}{since} keeps PostgreSQL from reusing the room of rows that are gone, and"
        f" tables grow. {remedy}"
    )


def _kept(what: str, since: datetime | None, age: timedelta | None) -> str:
    rule = "for ever" if age is None else f"for {duration(age)}"
    return f"{what} {rule}" + ("" if since is None else f", since {moment(since)}")


def _purge(last: PastPurge | None, now: datetime) -> str:
    if last is None:
        return "none yet"
    removed = f"{amount(last.removed.events, 'event')}, {amount(last.removed.attempts, 'attempt')}"
    end = "" if last.ended_at else ", not ended"
    if last.started_at > now:
        return f"by a clock that was ahead, {moment(last.started_at)}{end}: {removed} removed"
    return f"{duration(now - last.started_at, units=1)} ago{end}: {removed} removed"
