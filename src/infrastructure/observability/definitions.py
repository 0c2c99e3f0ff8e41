"""Every metric: its name, labels and buckets, and the help from which the documentation is made."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

PREFIX: Final = "kratos_sync_"
PROCESSES: Final = ("api", "relay", "worker", "reconcile", "console")
LOOPS: Final = ("api", "relay", "worker", "console")
KRATOS: Final = ("worker", "reconcile", "console")
"""Those that call Kratos' Admin API."""
DELIVERY: Final = "delivery"
"""The process of `kratos-sync all` beside its api."""
PARTS: Final[Mapping[str, tuple[str, ...]]] = {DELIVERY: ("relay", "worker")}
"""A process that is several in one has the loops and the metrics of each."""

Kind = Literal["counter", "gauge", "histogram"]
Values = tuple[str, ...]

SECONDS: Final = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
LATENCIES: Final = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0)
NUMBERS: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0)
"""Upper bounds of buckets."""

ENDPOINTS: Final = ("sync-identity", "parse-identity")
RESULTS: Final = (
    "accepted",
    "duplicate",
    "refused",
    "unauthorized",
    "invalid",
    "too_large",
    "misrouted",
    "unavailable",
    "failed",
    "disconnected",
)
OUTCOMES: Final = ("succeeded", "failed", "postponed", "dead")
STATES: Final = ("due", "leased", "waiting", "postponed", "dead")
REPLACEMENTS: Final = ("hung", "killed", "crashed", "silent")
OPERATIONS: Final = ("page", "find", "find_all", "delete")
REPAIRS: Final = ("missing", "stale", "deleted")
RISKS: Final = ("fsync", "full_page_writes", "asynchronous_standby")

ANY: Final[Values] = ()
"""The values of a label that come from elsewhere: bounded there, and never ids or addresses."""
CONSUMER: Final[Mapping[str, Values]] = {"consumer": ANY}


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """A metric, which is exported by these processes.

    ``labels`` has the values of each label, or ANY.
    """

    name: str
    kind: Kind
    help: str
    processes: tuple[str, ...]
    labels: Mapping[str, Values] = field(default_factory=dict)
    buckets: tuple[float, ...] = ()


ALL: Final[list[Metric]] = []
"""In the order of the documentation."""


def _define(
    name: str,
    kind: Kind,
    processes: tuple[str, ...],
    text: str,
    labels: Mapping[str, Values] | None = None,
    *,
    buckets: tuple[float, ...] = (),
) -> Metric:
    metric = Metric(PREFIX + name, kind, text, processes, labels or {}, buckets)
    ALL.append(metric)
    return metric


_RELAY, _API, _WORKER = ("relay",), ("api",), ("worker",)

# The ledger: of all relays one exports them.
DELIVERIES = _define(
    "deliveries",
    "gauge",
    _RELAY,
    "Deliveries that are not done, by state: due now, leased (at the broker or a worker), waiting"
    " for a retry, postponed by their consumer, or dead letters. Above 100,000 an estimate.",
    {**CONSUMER, "state": STATES},
)
LAG = _define(
    "lag_seconds",
    "gauge",
    _RELAY,
    "Age of the oldest pending delivery that is not postponed; 0 without one. With more than"
    " 10,000 of a state, of the 10,000 that have been due for longest.",
    CONSUMER,
)
PAUSED = _define("consumer_paused", "gauge", _RELAY, "1 while the consumer is paused.", CONSUMER)
KNOWN = _define(
    "consumer_known",
    "gauge",
    _RELAY,
    "0 for a consumer with deliveries or subscriptions that the relay's release does not have.",
    CONSUMER,
)
LAST_SUCCESS = _define(
    "last_success_timestamp_seconds",
    "gauge",
    _RELAY,
    "When an attempt last succeeded, as far as it is among the newest attempts of all consumers.",
    CONSUMER,
)
UNKNOWN_EVENTS = _define(
    "unknown_event_deliveries",
    "gauge",
    _RELAY,
    "Deliveries that wait for a release that knows their event; at most 10,000 of each consumer"
    " are looked at.",
)
IDENTITIES = _define(
    "identities",
    "gauge",
    _RELAY,
    "Identities in the copy by state; deleted ones are tombstones. Above 10,000 an estimate.",
    {"state": ("active", "inactive", "deleted")},
)
RECONCILED = _define(
    "reconciliation_last_completed_timestamp_seconds",
    "gauge",
    _RELAY,
    "When a reconciliation was last completed.",
)
REPAIRED = _define(
    "reconciliation_repairs",
    "gauge",
    _RELAY,
    "Identities that the last reconciliation found to be missing, stale or deleted.",
    {"kind": REPAIRS},
)
REFUSED = _define(
    "reconciliation_refused",
    "gauge",
    _RELAY,
    "1 if the last reconciliation refused to delete, or did not complete for another reason.",
)
HOOK_SEEN = _define(
    "hook_last_seen_timestamp_seconds",
    "gauge",
    _RELAY,
    "When a hook of Kratos last called, by its header X-Kratos-Hook; at most 100 hooks.",
    {"hook": ANY},
)
TEMPLATE_FAILURES = _define(
    "template_failures",
    "gauge",
    _RELAY,
    "Webhooks with an empty body since the last completed reconciliation began; at most 10,000.",
)
OLDEST_TRANSACTION = _define(
    "oldest_transaction_age_seconds",
    "gauge",
    _RELAY,
    "Age of the oldest open transaction in the database, prepared ones included, as far as the"
    " relay's role may see it (pg_read_all_stats); 0 without one.",
)
TABLE_SIZE = _define(
    "table_size_bytes",
    "gauge",
    _RELAY,
    "Size of each of the service's tables on disk, with its indexes.",
    {"table": ANY},
)
CLOCK_AHEAD = _define(
    "database_clock_ahead_seconds",
    "gauge",
    _RELAY,
    "How far the database's clock is ahead of the relay's machine; negative if it is behind.",
)
UNSAFE = _define(
    "database_unsafe",
    "gauge",
    _RELAY,
    "1 for a setting of PostgreSQL by which commits may be lost.",
    {"risk": RISKS},
)
LEDGER_READ = _define(
    "ledger_read_timestamp_seconds",
    "gauge",
    _RELAY,
    "When the relay that exports the metrics of the ledger last read them.",
)
LEDGER: Final = tuple(ALL)
"""All of these are read from the ledger."""

BROKER_MESSAGES = _define(
    "broker_messages",
    "gauge",
    _RELAY,
    "Messages in the queue of a consumer that no worker has fetched; from the same relay.",
    CONSUMER,
)
# Every process.
BUILD = _define(
    "build_info",
    "gauge",
    PROCESSES,
    "Always 1; the version, and which process this is.",
    {"version": ANY, "process": PROCESSES},
)
LEDGER_UP = _define(
    "ledger_up",
    "gauge",
    PROCESSES,
    "1 while PostgreSQL answers this process and has the schema.",
)
LEDGER_OUTAGES = _define(
    "ledger_outages_total",
    "counter",
    PROCESSES,
    "How often this process lost PostgreSQL, also for less than the time between two scrapes.",
)
BROKER_UP = _define(
    "broker_up", "gauge", ("relay", "worker"), "1 while the broker accepts messages."
)
BROKER_OUTAGES = _define(
    "broker_outages_total",
    "counter",
    ("relay", "worker"),
    "How often this process lost the broker.",
)
LOOP_AGE = _define(
    "service_loop_age_seconds",
    "gauge",
    LOOPS,
    "Seconds since the loop last turned: the event loop of the api and the console, the relay's"
    " turns, the watchdog of a worker. More than a few mean that the process hangs.",
)

# The api.
WEBHOOKS = _define(
    "webhooks_total",
    "counter",
    _API,
    "Calls of Kratos by their result. Kratos tries again after unavailable and failed. parse hooks"
    " also have refused: the application refuses the identity.",
    {"endpoint": ENDPOINTS, "result": RESULTS},
)
WEBHOOK_DURATION = _define(
    "webhook_duration_seconds",
    "histogram",
    _API,
    "Time from a call's headers to its answer; a call that waits for PostgreSQL takes up to 25 s.",
    {"endpoint": ENDPOINTS},
    buckets=SECONDS,
)
HELD = _define(
    "held_webhooks", "gauge", _API, "Calls that wait because PostgreSQL cannot be used now."
)
EVENTS_PER_COMMIT = _define(
    "events_per_commit", "histogram", _API, "Events that shared a commit.", buckets=NUMBERS
)
CONNECTIONS = _define("connections", "gauge", _API, "Open connections of callers.")
REFUSED_CONNECTIONS = _define(
    "refused_connections_total",
    "counter",
    _API,
    "Connections that were refused, or closed while idle, because too many were open.",
)

# The relay.
DISPATCHED = _define(
    "dispatched_deliveries_total",
    "counter",
    _RELAY,
    "Deliveries that were sent to the broker; retries count again.",
    CONSUMER,
)
EXPIRED_LEASES = _define(
    "expired_leases_total",
    "counter",
    _RELAY,
    "Deliveries whose lease ran out, or whose message was lost: they are dispatched again.",
    CONSUMER,
)
PURGED = _define(
    "purged_rows_total",
    "counter",
    _RELAY,
    "Rows that purges of this relay removed.",
    {"table": ("events", "attempts")},
)

# The worker.
ATTEMPTS = _define(
    "attempts_total",
    "counter",
    _WORKER,
    "Attempts by outcome; dead is the last attempt of a delivery, failed one that is retried.",
    {**CONSUMER, "outcome": OUTCOMES},
)
FAILURES = _define(
    "failures_total",
    "counter",
    _WORKER,
    "Failed and dead attempts by the type of the error. A process has 50 types at most, in the"
    " order of their appearance; all others are `other`.",
    {**CONSUMER, "error_type": ANY},
)
BATCH_SIZE = _define(
    "batch_size",
    "histogram",
    _WORKER,
    "Deliveries that shared a transaction.",
    CONSUMER,
    buckets=NUMBERS,
)
BATCH_DURATION = _define(
    "batch_duration_seconds",
    "histogram",
    _WORKER,
    "Time of a transaction with all its deliveries, from the message to the commit.",
    CONSUMER,
    buckets=SECONDS,
)
LATENCY = _define(
    "delivery_latency_seconds",
    "histogram",
    _WORKER,
    "From the recording of an event to the commit of its consumer; by the clocks of database and"
    " worker.",
    CONSUMER,
    buckets=LATENCIES,
)
REPLACED = _define(
    "worker_replacements_total",
    "counter",
    _WORKER,
    "Worker processes that their supervisor replaced: a consumer hung in them, they were killed,"
    " crashed, or showed no sign of life.",
    {"reason": REPLACEMENTS},
)
THREADS_BUSY = _define(
    "worker_threads_busy", "gauge", _WORKER, "Threads of the worker that process a message."
)

# The client of Kratos' Admin API.
KRATOS_REQUESTS = _define(
    "kratos_requests_total",
    "counter",
    KRATOS,
    "Requests to Kratos' Admin API; the status is that of HTTP, or `none` without an answer.",
    {"operation": OPERATIONS, "status": ANY},
)
KRATOS_DURATION = _define(
    "kratos_request_duration_seconds",
    "histogram",
    KRATOS,
    "Time of a request to Kratos' Admin API.",
    {"operation": OPERATIONS},
    buckets=SECONDS,
)
CIRCUIT_OPEN = _define(
    "kratos_circuit_open",
    "gauge",
    KRATOS,
    "1 while requests to Kratos' Admin API are not sent, because several in a row failed.",
)

METRICS: Final = tuple(ALL)
