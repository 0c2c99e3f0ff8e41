"""What `kratos-sync status` tells a person: first what needs attention, in words."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from rich.text import Text

from kratos_sync.api.cli import output as terminal
from kratos_sync.api.cli.drift import drift_attention, drift_rows
from kratos_sync.api.cli.hooks import hooks_attention, hooks_table, template_attention
from kratos_sync.api.cli.options import amount, duration, moment, roughly, size
from kratos_sync.application.ports.purge import MOST_CLOCK_DIFFERENCE, PastPurge, Retention
from kratos_sync.application.ports.status import (
    BrokerStatus,
    ConsumerStatus,
    Count,
    Holder,
    StatusReport,
    Storage,
)

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


CLOCK_DIFFERENCE: Final = timedelta(minutes=1)
"""Clocks that are further apart than this need attention."""
BEHIND: Final = timedelta(minutes=1)
"""A consumer whose oldest event is older than this needs attention."""
HEADINGS: Final = 13
"""Columns that the overview's headings take."""
NOTHING: Final = "-"
UNSAFE: Final = {
    "fsync": "PostgreSQL has fsync off: a crash of its machine may lose or damage everything.",
    "full_page_writes": (
        "PostgreSQL has full_page_writes off: a crash of its machine may damage tables, unless its"
        " file system never writes half a page."
    ),
    "asynchronous_standby": (
        "PostgreSQL waits for none of its standbys (synchronous_standby_names is empty): a failover"
        " may lose the webhooks answered just before it. `kratos-sync reconcile` finds them."
    ),
}


def print_report(
    report: StatusReport, broker: BrokerStatus, retention: Retention, *, can_ask: bool = False
) -> None:
    """Print the report on standard output.

    ``can_ask`` is whether we know where Kratos' Admin API is.
    """
    console, folded = terminal.console()
    needs = list(attention(report, broker, can_ask=can_ask))
    console.print(f"kratos-sync, {moment(report.at)}")
    console.print()
    if needs:
        console.print("Needs attention:", style="bold red")
        terminal.print_list(console, needs, folded)
    else:
        console.print("All is well.", style="bold green")
    console.print()
    for heading, line in _overview(report, broker, retention, can_ask=can_ask):
        style = "bold red" if heading == "Broker" and not broker.answers else None
        for folded_line in terminal.fold(line, folded, heading.ljust(HEADINGS)):
            console.print(folded_line, style=style)
    console.print()
    console.print(_consumers(report))
    if report.hooks:
        console.print()
        console.print(hooks_table(report.hooks, report.at))


def attention(
    report: StatusReport, broker: BrokerStatus, *, can_ask: bool = False
) -> Iterator[str]:
    """Say what is not as it should be, a sentence for each."""
    if not broker.answers:
        yield (
            f"The broker does not answer ({broker.error}). Events are still recorded;"
            " they are delivered once it is back."
        )
    if abs(report.clock_ahead) >= CLOCK_DIFFERENCE:
        yield _clocks(report.clock_ahead)
    for consumer in report.consumers:
        if _is_behind(consumer) and consumer.lag is not None:
            retried = consumer.waiting - consumer.postponed
            waiting = f" ({retried:,} waiting to be tried again)" if retried else ""
            yield (
                f"{consumer.name} is behind: {amount(consumer.backlog, 'delivery', 'deliveries')}"
                f" owed{waiting}, the oldest for {duration(consumer.lag)}."
            )
        if consumer.failed:
            yield (
                f"{consumer.name} has {amount(consumer.failed, 'dead letter')}, kept until"
                " somebody sees to it: `kratos-sync failed list` tells why."
            )
        if not consumer.known:
            yield (
                f"{consumer.name} is not known to this release: what it is owed is kept for a"
                " release that knows it."
            )
    for event in report.unknown_events:
        since = "" if event.oldest is None else f", the oldest for {duration(event.oldest)}"
        yield (
            f"The event {event.name} is not known to this release:"
            f" {amount(event.deliveries, 'delivery', 'deliveries')} of it kept for a release"
            f" that knows it{since}."
        )
    yield from drift_attention(report.drift, report.at, can_ask=can_ask)
    yield from template_attention(report.template_failures, report.at)
    yield from hooks_attention(report.hooks, report.at)
    yield from map(sentence, report.storage.holders)
    for risk in report.unsafe:
        yield UNSAFE[risk]


def _clocks(ahead: timedelta) -> str:
    how = "ahead of" if ahead > timedelta() else "behind"
    no_purge = " Nothing is purged meanwhile." if abs(ahead) >= MOST_CLOCK_DIFFERENCE else ""
    return (
        f"The database's clock is {duration(abs(ahead))} {how} this machine's: set the one that is"
        f" wrong.{no_purge}"
    )


def _overview(
    report: StatusReport, broker: BrokerStatus, retention: Retention, *, can_ask: bool
) -> Iterator[tuple[str, str]]:
    schema = f"schema {report.revision}"
    if report.revision != report.needed_revision:
        schema += f", newer than the {report.needed_revision} that this release needs"
    yield "Database", schema
    yield "Broker", _broker(broker)
    yield "Identities", f"{_count(report.alive)} alive, {_count(report.deleted)} deleted"
    yield "Ledger", f"{_count(report.events)} events, {_count(report.attempts)} attempts"
    yield from drift_rows(report.drift, report.at, can_ask=can_ask)
    yield from storage_rows(report.storage, retention, report.at)


def _broker(broker: BrokerStatus) -> str:
    if not broker.answers:
        return f"DOWN ({broker.error})"
    waiting = [f"{name} {number:,}" for name, number in broker.messages.items() if number]
    return f"answers, messages waiting: {', '.join(waiting) or 'none'}"


def _consumers(report: StatusReport) -> terminal.Table:
    table = terminal.Table()
    table.add_column("CONSUMER")
    for heading in ("OWED", "LEASED", "WAITING", "FAILED", "LAG", "LAST SUCCESS"):
        table.add_column(heading, justify="right")
    table.add_column("STATE")
    for consumer in report.consumers:
        last = consumer.last_success_at
        table.add_row(
            consumer.name,
            f"{consumer.backlog:,}",
            f"{consumer.dispatched:,}",
            f"{consumer.waiting:,}",
            f"{consumer.failed:,}",
            NOTHING if consumer.lag is None else duration(consumer.lag, units=1),
            NOTHING if last is None else f"{duration(report.at - last, units=1)} ago",
            _state(consumer),
        )
    return table


def _state(consumer: ConsumerStatus) -> Text:
    wrong = [
        word
        for word, applies in (
            ("behind", _is_behind(consumer)),
            ("retrying", consumer.waiting > consumer.postponed),
            ("dead letters", consumer.failed),
            ("not known", not consumer.known),
        )
        if applies
    ]
    return Text(", ".join(wrong), style="bold red") if wrong else Text("ok", style="green")


def _is_behind(consumer: ConsumerStatus) -> bool:
    return consumer.lag is not None and consumer.lag > BEHIND


def _count(count: Count) -> str:
    return roughly(count.number) if count.estimated else f"{count.number:,}"
