"""`kratos-sync status`, and the JSON that ``--json`` prints.

Durations are seconds, times ISO 8601 in UTC; keys are only ever added:

    {"at": "2026-11-23T04:37:43.123456Z", "clock_ahead_seconds": 0.002,
     "schema": {"revision": "0001", "needed": "0001"},
     "broker": {"answers": true, "error": null},
     "identities": {"alive": 1204, "deleted": 3, "estimated": false},
     "events": {"recorded": 2000000, "estimated": true},
     "attempts": {"recorded": 2100000, "estimated": true},
     "consumers": [{"name": "SyncKratosIdentity", "known": true, "backlog": 12, "due": 0,
                    "dispatched": 10, "waiting": 2, "postponed": 0, "failed": 1,
                    "lag_seconds": 4.2, "last_success_at": "2026-11-23T04:37:43.023456Z",
                    "messages": 1}],
     "unknown_events": [{"name": "kratos_identity.merged", "deliveries": 2,
                         "oldest_seconds": 61.0}],
     "storage": {"bytes": 1234567, "tables": {"events": 1000000},
                 "oldest_event_at": "2026-08-25T04:00:12.123456Z", "oldest_attempt_at": null,
                 "retention": {"events_seconds": 7776000.0, "attempts_seconds": 2592000.0},
                 "last_purge": {"started_at": "2026-11-23T04:00:00.123456Z",
                                "ended_at": "2026-11-23T04:00:01.123456Z",
                                "events": 120, "attempts": 240},
                 "held_by": [{"kind": "transaction", "name": "4711", "application": "psql",
                              "seconds": 1234.5, "transactions": 100}]},
     "drift": {"running": false, "rise": {"missed": 40, "usual": 3.0, "seconds": 3600.0},
               "reconciliations": [
                   {"started_at": "2026-11-23T04:00:00.123456Z",
                    "seen_at": "2026-11-23T04:00:41.123456Z",
                    "ended_at": "2026-11-23T04:00:41.123456Z", "outcome": "completed",
                    "held": 1203, "pages": 3, "identities": 1204, "known": 1202, "missing": 2,
                    "stale": 38, "unseen": 1, "gone": 1, "fields": {"traits": 38},
                    "unheard": {"registration": 2, "settings": 38}, "unreadable": 0,
                    "missed": 40}]},
     "hooks": [{"label": "settings.after.profile", "first_at": "2026-11-01T00:00:00Z",
                "last_at": "2026-11-22T21:14:15.123456Z", "calls": 1234}],
     "unsafe": ["asynchronous_standby"],
     "template_failures": [{"label": "login.after.password", "calls": 2,
                            "first_at": "2026-11-22T21:14:15.123456Z",
                            "last_at": "2026-11-22T21:15:15.123456Z"}]}

``at`` is by the database's clock, which is so far ahead of this machine's, or behind if negative.
``backlog`` is ``due`` + ``dispatched`` (under lease) + ``waiting`` (for a retry, or for a release
that knows the event, or ``postponed`` because the consumer asked for it); ``failed`` are dead
letters. ``lag_seconds`` is the age of the oldest event in the backlog that is not postponed, null
without one. ``last_success_at`` is null if none of the newest 100,000 attempts
was one. ``messages`` wait at the broker, each for many deliveries; null if it does not answer.
``broker.error`` is the exception's type. A retention is null for ever; ``last_purge`` is null
before the first, its ``ended_at`` while it runs. ``held_by`` lists what has kept PostgreSQL for
long from reusing the room of rows that are gone: a ``transaction`` (by process id), a ``prepared
transaction`` or a ``replication slot``; ``seconds`` is null where our role may not see it.

``reconciliations`` are the newest 30, newest first; ``outcome`` and ``ended_at`` are null where one
runs or was interrupted. ``unheard`` counts by what would have told (`application.missed_webhooks`);
``missed`` is how many a webhook should have. ``rise`` is null unless the newest missed many more
than was usual. A hook without a header `X-Kratos-Hook` has the label "". ``unsafe`` names what lets
PostgreSQL lose commits: ``fsync``, ``full_page_writes``, ``asynchronous_standby``.
``template_failures`` are calls with an empty body, since the last reconciliation began that was
completed.
"""

from contextlib import closing
from typing import Any

import click

from kratos_sync.api.cli.drift import drift_json, print_drift
from kratos_sync.api.cli.hooks import hooks_json, template_failures_json
from kratos_sync.api.cli.options import iso, seconds
from kratos_sync.api.cli.output import echo_json
from kratos_sync.api.cli.process import expected_errors, opened_container
from kratos_sync.api.cli.status_report import print_report
from kratos_sync.application.ports.purge import Retention
from kratos_sync.application.ports.status import BrokerStatus, StatusReport, Storage
from kratos_sync.application.subscriptions import CONSUMERS
from kratos_sync.infrastructure.bus.brokers import broker_status


@click.command()
@click.option("--drift", is_flag=True, help="Only comparisons with Kratos, and what was missed.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for machines.")
def status(drift: bool, as_json: bool) -> None:
    """Tell how everything stands: what each consumer is owed, what failed, how far behind it is.

    Exits with 1 only when the database cannot tell; a broker that is down is something to tell.
    """
    with opened_container(migrated=False) as container, expected_errors():
        settings = container.settings()
        can_ask = settings.kratos_admin_url is not None
        report = container.status().report(list(CONSUMERS))
        with closing(container.broker()) as broker:
            at_broker = broker_status(broker, [consumer.name for consumer in report.consumers])
    if as_json:
        echo_json(to_json(report, at_broker, settings.retention))
    elif drift:
        print_drift(report.drift, report.at, can_ask=can_ask)
    else:
        print_report(report, at_broker, settings.retention, can_ask=can_ask)


def to_json(report: StatusReport, broker: BrokerStatus, retention: Retention) -> dict[str, Any]:
    """Give the object that the module's docstring shows."""
    return {
        "at": iso(report.at),
        "clock_ahead_seconds": seconds(report.clock_ahead),
        "schema": {"revision": report.revision, "needed": report.needed_revision},
        "broker": {"answers": broker.answers, "error": broker.error},
        "identities": {
            "alive": report.alive.number,
            "deleted": report.deleted.number,
            "estimated": report.alive.estimated,
        },
        "events": {"recorded": report.events.number, "estimated": report.events.estimated},
        "attempts": {"recorded": report.attempts.number, "estimated": report.attempts.estimated},
        "consumers": [
            {
                "name": consumer.name,
                "known": consumer.known,
                "backlog": consumer.backlog,
                "due": consumer.due,
                "dispatched": consumer.dispatched,
                "waiting": consumer.waiting,
                "postponed": consumer.postponed,
                "failed": consumer.failed,
                "lag_seconds": seconds(consumer.lag),
                "last_success_at": iso(consumer.last_success_at),
                "messages": broker.messages.get(consumer.name),
            }
            for consumer in report.consumers
        ],
        "unknown_events": [
            {
                "name": event.name,
                "deliveries": event.deliveries,
                "oldest_seconds": seconds(event.oldest),
            }
            for event in report.unknown_events
        ],
        "storage": _storage(report.storage, retention),
        "drift": drift_json(report.drift),
        "hooks": hooks_json(report.hooks),
        "unsafe": list(report.unsafe),
        "template_failures": template_failures_json(report.template_failures),
    }


def _storage(storage: Storage, retention: Retention) -> dict[str, Any]:
    last = storage.last_purge
    return {
        "bytes": storage.bytes,
        "tables": {table.name: table.bytes for table in storage.tables},
        "oldest_event_at": iso(storage.oldest_event_at),
        "oldest_attempt_at": iso(storage.oldest_attempt_at),
        "retention": {
            "events_seconds": seconds(retention.events),
            "attempts_seconds": seconds(retention.attempts),
        },
        "last_purge": last
        and {
            "started_at": iso(last.started_at),
            "ended_at": iso(last.ended_at),
            "events": last.removed.events,
            "attempts": last.removed.attempts,
        },
        "held_by": [
            {
                "kind": holder.kind,
                "name": holder.name,
                "application": holder.application,
                "seconds": seconds(holder.held_for),
                "transactions": holder.transactions,
            }
            for holder in storage.holders
        ],
    }
