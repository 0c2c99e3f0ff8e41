"""`kratos-sync status`: the report, which begins with what needs attention, and its JSON."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from typing import Any, Final

import click

from kratos_sync.api.amounts import ago, amount, duration, moment, roughly, size
from kratos_sync.api.attention import attention, hook_name
from kratos_sync.api.cli import options
from kratos_sync.api.cli.audit import in_one_line
from kratos_sync.api.cli.drift import drift_json, drift_rows, print_drift
from kratos_sync.api.cli.output import (
    Line,
    Styled,
    echo,
    echo_attention,
    echo_json,
    fields_of,
    fold,
    rows,
)
from kratos_sync.api.cli.process import command_container
from kratos_sync.application.ports.hook_log import HookActivity
from kratos_sync.application.ports.purge import PastPurge, Retention
from kratos_sync.application.ports.status import (
    BrokerStatus,
    ConsumerStatus,
    Count,
    StatusReport,
)

LARGEST: Final = 4
"""How many tables are listed with their sizes."""
HEADING: Final = 13
"""Width of the headings of the overview."""
NOTHING: Final = "-"


@click.command()
@click.option("--drift", is_flag=True, help="Show only reconciliations and missed webhooks.")
@click.option("--watch", is_flag=True, help="Look again and again, with rates, until Ctrl-C.")
@options.as_json
def status(drift: bool, watch: bool, as_json: bool) -> None:
    """Show backlog, lag and dead letters of each consumer.

    What needs attention comes first. Exits with 1 only if the database cannot be read; a broker
    that is down is reported. With --watch it looks every two seconds, or less often where a look
    takes long; without a terminal it prints a line each time.
    """
    if watch:
        from kratos_sync.api.cli.watch import watch_status

        if drift:
            raise click.UsageError("--watch and --drift do not go together.")
        watch_status(as_json)
        return
    with command_container(migrated=False) as container:
        from kratos_sync.infrastructure.bus.broker import broker_status

        settings = container.settings()
        can_ask = settings.kratos_admin_url is not None
        report = container.status().report(list(container.subscriptions().consumers))
        with closing(container.broker_to_ask()) as broker:
            at_broker = broker_status(broker, [consumer.name for consumer in report.consumers])
    if as_json:
        echo_json(to_json(report, at_broker, settings.retention))
    elif drift:
        print_drift(report.drift, report.at, can_ask=can_ask)
    else:
        print_report(report, at_broker, settings.retention, can_ask=can_ask)


def to_json(report: StatusReport, broker: BrokerStatus, retention: Retention) -> dict[str, Any]:
    """Return the document that `docs/reference/json.md` describes."""
    storage, last = report.storage, report.storage.last_purge
    return {
        "at": report.at,
        "clock_ahead_seconds": report.clock_ahead,
        "schema": {"revision": report.revision, "needed": report.needed_revision},
        "broker": {"answers": broker.answers, "error": broker.error},
        "identities": {
            "alive": report.alive.number,
            "deleted": report.deleted.number,
            "estimated": report.alive.estimated,
        },
        "events": fields_of(report.events, number="recorded"),
        "attempts": fields_of(report.attempts, number="recorded"),
        "consumers": [
            {
                **fields_of(consumer, lag="lag_seconds"),
                "paused": consumer.paused and consumer.paused._asdict(),
                "backlog": consumer.backlog,
                "messages": broker.messages.get(consumer.name),
            }
            for consumer in report.consumers
        ],
        "unknown_events": [fields_of(e, oldest="oldest_seconds") for e in report.unknown_events],
        "storage": {
            "bytes": storage.bytes,
            "tables": storage.tables,
            "oldest_event_at": storage.oldest_event_at,
            "oldest_attempt_at": storage.oldest_attempt_at,
            "retention": fields_of(retention, events="events_seconds", attempts="attempts_seconds"),
            "last_purge": last
            and {
                "started_at": last.started_at,
                "ended_at": last.ended_at,
                **last.removed._asdict(),
            },
            "held_by": [fields_of(holder, held_for="seconds") for holder in storage.holders],
        },
        "drift": drift_json(report.drift),
        "hooks": [hook._asdict() for hook in report.hooks],
        "unsafe": report.unsafe,
        "template_failures": [hook._asdict() for hook in report.template_failures],
        "operations": report.operations,
        "failover": report.failover and fields_of(report.failover, is_same_cluster="same_cluster"),
    }


def print_report(
    report: StatusReport, broker: BrokerStatus, retention: Retention, *, can_ask: bool = False
) -> None:
    """Print the report; `can_ask` is whether the address of Kratos' Admin API is known."""
    echo(f"kratos-sync, {moment(report.at)}", "")
    if not echo_attention(each.with_command for each in attention(report, broker, can_ask=can_ask)):
        echo(Styled("All is well.", "bold green"))
    echo("")
    for heading, line in _overview(report, broker, retention, can_ask=can_ask):
        style = "bold red" if heading == "Broker" and broker.answers is False else ""
        echo(*(Styled(folded, style) for folded in fold(line, heading.ljust(HEADING))))
    echo("", *_consumers(report))
    if report.hooks:
        echo("", *_hooks(report.hooks, report.at))


def _overview(
    report: StatusReport, broker: BrokerStatus, retention: Retention, *, can_ask: bool
) -> Iterator[tuple[str, str]]:
    storage, needed = report.storage, report.needed_revision
    newer = f", newer than the {needed} that this release needs"
    yield "Database", f"schema {report.revision}{newer if report.revision != needed else ''}"
    waiting = ", ".join(f"{name} {number:,}" for name, number in broker.messages.items() if number)
    answers = f"answers, messages waiting: {waiting or 'none'}"
    if broker.answers is None:
        in_memory = "in the memory of `kratos-sync all`; it holds what is LEASED"
        answers = "not asked" if broker.error else in_memory
    yield "Broker", f"DOWN ({broker.error})" if broker.answers is False else answers
    yield "Identities", f"{_count(report.alive)} alive, {_count(report.deleted)} deleted"
    yield "Ledger", f"{_count(report.events)} events, {_count(report.attempts)} attempts"
    yield from drift_rows(report.drift, report.at, can_ask=can_ask)
    for number, operation in enumerate(report.operations):
        yield "" if number else "Operations", in_one_line(operation, report.at)
    largest = [f"{name} {size(number)}" for name, number in storage.tables.items()][:LARGEST]
    yield "Storage", f"{size(storage.bytes)}: {', '.join(largest)}"
    events = _kept("events", storage.oldest_event_at, retention.events)
    attempts = _kept("attempts", storage.oldest_attempt_at, retention.attempts)
    yield "Kept", f"{events}; {attempts}"
    yield "Last purge", _purge(storage.last_purge, report.at)


def _count(count: Count) -> str:
    return roughly(count.number) if count.estimated else f"{count.number:,}"


def _kept(what: str, since: datetime | None, age: timedelta | None) -> str:
    rule = "for ever" if age is None else f"for {duration(age)}"
    return f"{what} {rule}" + ("" if since is None else f", since {moment(since)}")


def _purge(last: PastPurge | None, now: datetime) -> str:
    if last is None:
        return "none yet"
    is_ahead = last.started_at > now
    when = (
        f"by a clock that was ahead, {moment(last.started_at)}"
        if is_ahead
        else ago(last.started_at, now)
    )
    removed = f"{amount(last.removed.events, 'event')}, {amount(last.removed.attempts, 'attempt')}"
    return f"{when}{'' if last.ended_at else ', not ended'}: {removed} removed"


def _consumers(report: StatusReport) -> Iterator[Line]:
    numbers = ("PENDING", "LEASED", "WAITING", "DEAD", "LAG", "LAST SUCCESS")

    def cells(each: ConsumerStatus) -> tuple[str, ...]:
        counts = (each.backlog, each.dispatched, each.waiting, each.failed)
        lag = NOTHING if each.lag is None else duration(each.lag, units=1)
        success = NOTHING if each.last_success_at is None else ago(each.last_success_at, report.at)
        return (each.name, *(f"{count:,}" for count in counts), lag, success, _state(each))

    return rows(("CONSUMER", *numbers, "STATE"), map(cells, report.consumers), right=numbers)


def _state(consumer: ConsumerStatus) -> Styled:
    words = ", ".join(consumer.troubles)
    return Styled(words, "bold red") if words else Styled("ok", "green")


def _hooks(hooks: Sequence[HookActivity], now: datetime) -> Iterator[Line]:
    lines = ((hook_name(hook.label), f"{hook.calls:,}", ago(hook.last_at, now)) for hook in hooks)
    return rows(("HOOK", "CALLS", "LAST CALL"), lines, right=("CALLS", "LAST CALL"))
