"""What needs attention, in sentences that every view of the service shows."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Final, Literal, NamedTuple

from kratos_sync.api.amounts import ago, amount, duration, moment, size
from kratos_sync.application.drift import Drift, Rise
from kratos_sync.application.missed_webhooks import HOOKS, NEWER, silent_hooks
from kratos_sync.application.ports.hook_log import HookActivity
from kratos_sync.application.ports.purge import MOST_CLOCK_DIFFERENCE
from kratos_sync.application.ports.reconciliation import PastReconciliation
from kratos_sync.application.ports.status import (
    BrokerStatus,
    ConsumerStatus,
    Failover,
    Holder,
    StatusReport,
)

About = Literal[
    "broker",
    "consumer",
    "paused",
    "dead letters",
    "event",
    "Kratos",
    "deletions",
    "drift",
    "hooks",
    "database",
]


class Attention(NamedTuple):
    """A sentence on what is wrong, and what it is about; a consumer or an event has a name.

    ``command`` is another sentence, on a command for what the console has a page for.
    """

    text: str
    about: About
    command: str = ""
    name: str | None = None

    @property
    def with_command(self) -> str:
        """Both sentences, for whoever has a shell."""
        return f"{self.text} {self.command}".rstrip()


CLOCK_DIFFERENCE: Final = timedelta(minutes=1)
"""Clocks that differ by more need attention."""
LATE: Final = timedelta(days=1)
"""With KRATOS_ADMIN_URL set, a reconciliation is expected once a day."""
_OF_DELETIONS: Final = "not listed"
"""Part of a refusal that `--allow-deletes` overrules."""
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
_FINDS_THEM: Final = "`kratos-sync reconcile` finds them."


def attention(
    report: StatusReport, broker: BrokerStatus | None, *, can_ask: bool = False
) -> Iterator[Attention]:
    """Yield what needs attention, the worst first.

    ``broker`` is None where it was not asked; `can_ask` is whether the address of Kratos' Admin
    API is known.
    """
    if broker is not None and broker.answers is False:
        text = (
            f"The broker does not answer ({broker.error}). Events are still recorded;"
            " they are delivered once it is back. Is it running, and is BROKER_URL right?"
        )
        yield Attention(text, "broker")
    if broker is not None and broker.answers is None and broker.error:
        yield Attention(f"The broker is not asked. {broker.error}.", "database")
    if (difference := abs(report.clock_ahead)) >= CLOCK_DIFFERENCE:
        how = "ahead of" if report.clock_ahead > timedelta() else "behind"
        no_purge = " Nothing is purged meanwhile." if difference >= MOST_CLOCK_DIFFERENCE else ""
        text = (
            f"The database's clock is {duration(difference)} {how} this machine's: set the one"
            f" that is wrong.{no_purge}"
        )
        yield Attention(text, "database")
    if report.failover is not None:
        yield Attention(_failover(report.failover, report.at), "Kratos", _FINDS_THEM)
    for consumer in report.consumers:
        yield from (each._replace(name=consumer.name) for each in _consumer_attention(consumer))
    for event in report.unknown_events:
        kept = amount(event.deliveries, "delivery")
        since = "" if event.oldest is None else f", the oldest for {duration(event.oldest)}"
        text = (
            f"The event {event.name} is not known to this release: {kept} of it kept for a release"
            f" that knows it{since}."
        )
        yield Attention(text, "event", name=event.name)
    yield from drift_attention(report.drift, report.at, can_ask=can_ask)
    yield from map(partial(_template_failure, report.at), report.template_failures)
    yield from hooks_attention(report.hooks, report.at)
    database = [*map(_holder, report.storage.holders), *(UNSAFE[risk] for risk in report.unsafe)]
    yield from (Attention(text, "database") for text in database)


def _failover(failover: Failover, at: datetime) -> str:
    when = ago(failover.at, at)
    if failover.is_same_cluster:
        what = (
            f"PostgreSQL failed over {when}, or was restored: it is on timeline {failover.timeline}"
            f" after {failover.before}."
        )
    else:
        what = f"The ledger moved to another PostgreSQL {when}, as a restored dump does."
    since = ""
    if failover.last_commit_at is not None:
        since = f" after {moment(failover.last_commit_at)}"
    if failover.missing_bytes:
        missing = f"{size(failover.missing_bytes)} of what was committed{since} is missing"
    else:
        missing = f"What was committed{since} there may be missing"
    return f"{what} {missing}."


def _template_failure(at: datetime, hook: HookActivity) -> Attention:
    text = (
        f"Kratos' template failed: {amount(hook.calls, 'call')} of the hook {hook_name(hook.label)}"
        f" had an empty body, the last {ago(hook.last_at, at, 2)}. Identities are missing or stale"
        " here. Are there any of more than some KiB?"
    )
    return Attention(text, "Kratos", _FINDS_THEM)


def _consumer_attention(consumer: ConsumerStatus) -> Iterator[Attention]:
    if (pause := consumer.paused) is not None:
        yield Attention(
            f"{consumer.name} has been paused by {pause.by} since {moment(pause.since)}:"
            f" {pause.reason}. {amount(consumer.backlog, 'delivery')} pending.",
            "paused",
        )
    elif consumer.lag is not None and "behind" in consumer.troubles:
        retried = consumer.waiting - consumer.postponed
        waiting = f" ({retried:,} waiting for a retry)" if retried else ""
        yield Attention(
            f"{consumer.name} is behind: {amount(consumer.backlog, 'delivery')} pending{waiting},"
            f" the oldest for {duration(consumer.lag)}.",
            "consumer",
        )
    if (retried := consumer.waiting - consumer.postponed) > 0 and consumer.last_error:
        yield Attention(
            f"{consumer.name} is retrying {amount(retried, 'delivery')}, the last error:"
            f" {consumer.last_error}.",
            "consumer",
        )
    if consumer.failed:
        yield Attention(
            f"{consumer.name} has {amount(consumer.failed, 'dead letter')}, kept until somebody"
            " retries or discards them.",
            "dead letters",
            "`kratos-sync failed list` shows why.",
        )
    if not consumer.known:
        receives = " It receives new ones: see docs/consumers.md." if consumer.events else ""
        yield Attention(
            f"{consumer.name} is not known to this release: its pending deliveries are kept for a"
            f" release that knows it.{receives}",
            "consumer",
        )


def hooks_attention(hooks: Sequence[HookActivity], now: datetime) -> Iterator[Attention]:
    """Yield a sentence for each silent hook."""
    for silent in silent_hooks(hooks, now):
        what = "any hook" if silent.label is None else f"the hook {hook_name(silent.label)}"
        yield Attention(
            f"No webhook was received from {what} for {duration(now - silent.last_at)}; before"
            f" that, one came every {duration(silent.usual_gap)} on average.",
            "hooks",
            "`kratos-sync check` reads Kratos' configuration.",
        )


def _holder(holder: Holder) -> str:
    if holder.kind == "transaction":
        who = f"The transaction of process {holder.name} ({holder.application or 'no name'})"
        remedy = f"`SELECT pg_terminate_backend({holder.name})` ends it."
    elif holder.kind == "prepared transaction":
        who, remedy = f"The prepared transaction {holder.name}", "ROLLBACK PREPARED ends it."
    else:
        who, remedy = f"The replication slot {holder.name}", "Its standby should catch up."
    since = ""
    if holder.held_for is not None:
        since = f", open for {duration(holder.held_for)},"
    elif holder.transactions is not None:
        since = f", {amount(holder.transactions, 'transaction')} old,"
    return (
        f"{who}{since} keeps PostgreSQL from reusing the space of removed rows, and tables grow."
        f" {remedy}"
    )


def drift_attention(drift: Drift, now: datetime, *, can_ask: bool) -> Iterator[Attention]:
    """Yield a sentence for everything that needs attention.

    `can_ask` is whether the address of Kratos' Admin API is known.
    """
    newest, last = drift.newest, drift.last
    if can_ask and not drift.is_running:
        yield from _late(drift, now)
    if newest and not newest.ended_at and not drift.is_running:
        yield Attention(
            f"The reconciliation that began {ago(newest.started_at, now)} was interrupted.",
            "Kratos",
            "`kratos-sync reconcile` resumes it.",
        )
    if last and last.refusal:
        yield _refused(last, now)
    if rise := drift.rise:
        yield _rise(rise, drift.compared[0], now)
    if last and (newer := last.findings.missed_webhooks.get(NEWER)):
        yield Attention(
            f"{amount(newer, 'identity')} {'was' if newer == 1 else 'were'} newer here than in"
            f" Kratos at the reconciliation {ago(last.started_at, now)}, and repaired: is the clock"
            " of a Kratos wrong, was Kratos restored from a backup, or does somebody else have a"
            " webhook key?",
            "drift",
        )
    if last and last.findings.unreadable:
        yield Attention(
            f"{amount(last.findings.unreadable, 'identity')} of Kratos' cannot be read, and so not"
            " kept right here: numbers beyond a double's range, for example.",
            "drift",
        )


def _late(drift: Drift, now: datetime) -> Iterator[Attention]:
    since = drift.completed and drift.completed.ended_at
    if not drift.past:
        did = "ever run"
    elif since is None:
        did = "ever completed"
    elif now - since > LATE:
        did = f"completed for {duration(now - since)}"
    else:
        return
    yield Attention(
        f"No reconciliation with Kratos was {did}.",
        "Kratos",
        "Run `kratos-sync reconcile`, or keep it running with `--every 1h`.",
    )


def _refused(last: PastReconciliation, now: datetime) -> Attention:
    why = last.refusal or ""
    text = f"The reconciliation {ago(last.started_at, now)} deleted no identity: {why}."
    if _OF_DELETIONS not in why:
        return Attention(f"{text} Is KRATOS_ADMIN_URL right?", "drift")
    return Attention(
        f"{text} Is that right?",
        "deletions",
        "`kratos-sync reconcile --dry-run --verbose` names them, and `--allow-deletes N` permits"
        " it.",
    )


def _rise(rise: Rise, newest: PastReconciliation, now: datetime) -> Attention:
    missing = newest.findings.missed_webhooks
    by_hook = ", ".join(f"{hook} {missing[hook]:,}" for hook in HOOKS if missing.get(hook))
    return Attention(
        f"The reconciliation {ago(newest.started_at, now)} repaired {rise.missed:,} missed webhooks"
        f" ({by_hook}); by those before, {rise.usual:,.0f} were expected in"
        f" {duration(rise.within)}. Does a hook fail?",
        "drift",
        "`kratos-sync check` reads Kratos' configuration, `kratos-sync status --drift` shows more.",
    )


def hook_name(label: str) -> str:
    """How a hook is called, which may have no label."""
    return label or "(no X-Kratos-Hook)"
