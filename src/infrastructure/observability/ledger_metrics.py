"""Reads the ledger's metrics: every statement is bounded, however large the tables are.

No statement reads what an event or an error says, nor a person's data.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple, TypeAlias

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from kratos_sync.application.application import CONSUMER_NAME
from kratos_sync.application.ports.dead_letters import (
    RETRY_LATER,
    UNKNOWN_EVENT,
    WAITS_FOR_EARLIER,
)
from kratos_sync.application.ports.hook_log import MOST_LABELS
from kratos_sync.domain.events import NO_IDENTITY, KratosTemplateFailed
from kratos_sync.infrastructure.ledger.status import PAUSED, SIZES, UNSAFE
from kratos_sync.infrastructure.observability import definitions as define
from kratos_sync.infrastructure.observability.definitions import Metric
from kratos_sync.infrastructure.postgres.engine import QUERY_CANCELED, how_far_ahead, readable

COUNTED: Final = 100_000
"""So many deliveries of a consumer in one state are counted; more are estimated."""
LOOKED_AT: Final = 10_000
"""So many of a consumer are looked at for the oldest, and for what the others wait for."""
MOST_CONSUMERS: Final = 100
FIRST_ATTEMPTS, NEXT_ATTEMPTS = 100_000, 20_000
"""How many of the newest attempts are searched for successes, at first and later."""
OTHER: Final = "other"
UNLABELLED: Final = "unlabelled"
"""The hook of calls without the header X-Kratos-Hook."""
HOOK: Final = re.compile(r"(?!.*[0-9a-fA-F]{8})[A-Za-z0-9._:/ -]{1,100}")
"""Labels of hooks that are no address and hold no id; others count as ``other``."""

Readings: TypeAlias = Mapping[Metric, Mapping[tuple[str, ...], float]]
Part: TypeAlias = Callable[[Connection], Readings]


class LookedAt(NamedTuple):
    """What some deliveries of a consumer have shown.

    The ``age`` in seconds of the oldest that is not postponed; how many wait for a time to come
    because they are ``postponed``, or for a retry (``waiting``); how many wait for a release that
    knows their event.
    """

    age: float | None = None
    postponed: int = 0
    waiting: int = 0
    unknown: int = 0

    @property
    def postponed_share(self) -> float:
        """The share of postponed ones among those that wait for a time to come."""
        return self.postponed / max(self.postponed + self.waiting, 1)


# A loose scan of an index: one step for each name, however many deliveries there are.
_LOOSE: Final = """
    (WITH RECURSIVE names (name) AS (
         (SELECT min(consumer) FROM kratos_sync.deliveries WHERE {state})
         UNION ALL
         SELECT (SELECT min(consumer) FROM kratos_sync.deliveries
                 WHERE {state} AND consumer > names.name)
         FROM names WHERE name IS NOT NULL
     ) SELECT name FROM names WHERE name IS NOT NULL LIMIT :most)
"""
_SCANS: Final = " UNION ".join(
    _LOOSE.format(state=state)
    for state in (
        "failed_at IS NULL AND NOT leased",
        "failed_at IS NULL AND leased",
        "failed_at IS NOT NULL",
    )
)
CONSUMERS: Final = text(f"SELECT consumer FROM kratos_sync.subscriptions UNION {_SCANS}")  # noqa: S608  # all of it is ours

STATES: Final = {
    "fresh": "failed_at IS NULL AND NOT leased AND due_at <= now()",
    "expired": "failed_at IS NULL AND leased AND due_at <= now()",
    "leased": "failed_at IS NULL AND leased AND due_at > now()",
    "unattempted": "failed_at IS NULL AND NOT leased AND attempts = 0 AND error_type IS NULL"
    " AND due_at > now()",
    "later": "failed_at IS NULL AND NOT leased AND due_at > now()",
    "dead": "failed_at IS NOT NULL",
}
"""For each an index leads from the consumer to its rows; ``unattempted`` are part of ``later``."""
_IN_STATE: Final = "FROM kratos_sync.deliveries WHERE consumer = {consumer} AND {state}"
_OF_WANTED: Final = {
    name: _IN_STATE.format(consumer="wanted.name", state=state) for name, state in STATES.items()
}
_COUNTS: Final = ", ".join(
    f"(SELECT count(*) FROM (SELECT {rows} LIMIT :most) AS first_rows) AS {name}"  # noqa: S608  # all of it is ours
    for name, rows in _OF_WANTED.items()
)
COUNTS: Final = text(f"""
    SELECT wanted.name, {_COUNTS} FROM unnest(CAST(:consumers AS text[])) AS wanted (name)
""")  # noqa: S608  # all of it is ours
_FIRST_ROWS: Final = " UNION ALL ".join(
    f"(SELECT owed_at, error_type, attempts, {state == 'later'} AS is_later"  # all of it is ours
    f" {_OF_WANTED[state]} ORDER BY due_at LIMIT :most)"
    for state in ("fresh", "expired", "leased", "later")
)
LOOK: Final = text(f"""
    SELECT wanted.name,
           CAST(extract(epoch FROM now() - min(least(owed_at, now()))
                                   FILTER (WHERE NOT is_postponed)) AS float8),
           count(*) FILTER (WHERE is_later AND is_postponed),
           count(*) FILTER (WHERE is_later AND NOT is_postponed AND NOT is_unattempted),
           count(*) FILTER (WHERE error_type = '{UNKNOWN_EVENT}')
    FROM unnest(CAST(:consumers AS text[])) AS wanted (name) LEFT JOIN LATERAL (
        SELECT owed_at, error_type, is_later,
               attempts = 0 AND error_type IS NULL AS is_unattempted,
               is_later AND coalesce(error_type = ANY(:postponed), false) AS is_postponed
        FROM ({_FIRST_ROWS}) AS first_rows
    ) AS looked_at ON true
    GROUP BY wanted.name
""").bindparams(postponed=[RETRY_LATER, WAITS_FOR_EARLIER])  # noqa: S608  # all of it is ours

NEWEST_ATTEMPT: Final = text("SELECT max(id) FROM kratos_sync.attempts")
SUCCESSES: Final = text(f"""
    SELECT consumer, {readable("max(started_at + duration)")} FROM kratos_sync.attempts
    WHERE id > :after AND outcome = 'succeeded' GROUP BY consumer
""")  # noqa: S608  # all of it is ours

IDENTITIES: Final = text("""
    SELECT count(*), count(deleted_at),
           count(*) FILTER (WHERE deleted_at IS NULL AND state = 'inactive')
    FROM (SELECT deleted_at, state FROM kratos_sync.kratos_identities LIMIT :most) AS first_rows
""")
# The share of inactive ones among all rows, as ANALYZE found it.
SHARES: Final = text("""
    SELECT (SELECT 1 - null_frac FROM pg_stats
            WHERE schemaname = 'kratos_sync' AND tablename = 'kratos_identities'
              AND attname = 'deleted_at'),
           (SELECT coalesce(sum(common.share) FILTER (WHERE common.value = 'inactive'), 0)
            FROM pg_stats, unnest(CAST(CAST(most_common_vals AS text) AS text[]),
                                  most_common_freqs) AS common (value, share)
            WHERE schemaname = 'kratos_sync' AND tablename = 'kratos_identities'
              AND attname = 'state')
""")
ALL_IDENTITIES: Final = text("EXPLAIN (FORMAT JSON) SELECT FROM kratos_sync.kratos_identities")
MOST_IDENTITIES: Final = 10_000

RECONCILED: Final = text(f"""
    SELECT {readable("max(ended_at)")} FROM kratos_sync.reconciliations WHERE outcome = 'completed'
""")  # noqa: S608  # all of it is ours
LAST_RECONCILIATION: Final = text("""
    SELECT missing, stale, gone, outcome IS DISTINCT FROM 'completed'
    FROM kratos_sync.reconciliations WHERE ended_at IS NOT NULL ORDER BY id DESC LIMIT 1
""")
HOOKS: Final = text(f"""
    SELECT label, {readable("last_at")} FROM kratos_sync.hooks_heard ORDER BY label LIMIT :most
""")  # noqa: S608  # all of it is ours
TEMPLATE_FAILURES: Final = text("""
    SELECT count(*) FROM (
        SELECT FROM kratos_sync.events
        WHERE subject = :nobody AND name = :name AND recorded_at > coalesce(
            (SELECT max(started_at) FROM kratos_sync.reconciliations
             WHERE outcome = 'completed' AND started_at <= clock_timestamp()),
            '-infinity')
        LIMIT :most) AS first_rows
""").bindparams(nobody=NO_IDENTITY, name=KratosTemplateFailed.name)
OLDEST_TRANSACTION: Final = text("""
    SELECT CAST(greatest(0, extract(epoch FROM clock_timestamp() - least(
        (SELECT min(xact_start) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid()
           AND backend_type IS DISTINCT FROM 'autovacuum worker'),
        (SELECT min(prepared) FROM pg_prepared_xacts WHERE database = current_database())
    ))) AS float8)
""")


class LedgerMetrics:
    """Reads the ledger's metrics in parts, so that one that cannot be read stops no other.

    ``known`` are the consumers of this release.
    """

    def __init__(self, known: Collection[str]) -> None:
        self._known = known
        self._consumers = list(known)
        self._looked_at: dict[str, LookedAt] = {}
        self._succeeded_at: dict[str, datetime] = {}
        self._last_attempt: int | None = None

    @property
    def parts(self) -> Sequence[Part]:
        """To be called in this order, each in a transaction; each raises what SQLAlchemy does."""
        return (
            self._policies,
            self._oldest,
            self._deliveries,
            self._successes,
            _identities,
            _reconciliations,
            _hooks,
            _template_failures,
            _server,
        )

    def _policies(self, connection: Connection) -> Readings:
        found = connection.execute(CONSUMERS, {"most": MOST_CONSUMERS}).scalars()
        others = sorted(name for name in found if CONSUMER_NAME.fullmatch(name))
        self._consumers = list(dict.fromkeys([*self._known, *others]))[:MOST_CONSUMERS]
        paused = {name for name, *_ in connection.execute(PAUSED)}
        return {
            define.KNOWN: {(name,): float(name in self._known) for name in self._consumers},
            define.PAUSED: {(name,): float(name in paused) for name in self._consumers},
        }

    def _oldest(self, connection: Connection) -> Readings:
        self._looked_at = {}
        rows = connection.execute(LOOK, {"consumers": self._consumers, "most": LOOKED_AT})
        self._looked_at = {name: LookedAt(*found) for name, *found in rows}
        unknown = sum(each.unknown for each in self._looked_at.values())
        return {
            define.LAG: {(name,): each.age or 0.0 for name, each in self._looked_at.items()},
            define.UNKNOWN_EVENTS: {(): float(unknown)},
        }

    def _deliveries(self, connection: Connection) -> Readings:
        values: dict[tuple[str, ...], float] = {}
        for name, counts in self._counts(connection).items():
            of = {
                state: count if count <= COUNTED else _estimate(connection, name, state)
                for state, count in counts.items()
            }
            later = max(of["later"] - of["unattempted"], 0)
            looked_at = self._looked_at.get(name, LookedAt())
            postponed = later * looked_at.postponed_share
            values |= {
                (name, "due"): of["fresh"] + of["expired"] + of["unattempted"],
                (name, "leased"): of["leased"],
                (name, "waiting"): later - postponed,
                (name, "postponed"): postponed,
                (name, "dead"): of["dead"],
            }
        return {define.DELIVERIES: values}

    def _counts(self, connection: Connection) -> Mapping[str, Mapping[str, int]]:
        """Count each state up to COUNTED; more stands for what cannot be counted in time."""
        parameters = {"consumers": self._consumers, "most": COUNTED + 1}
        try:
            with connection.begin_nested():
                rows = connection.execute(COUNTS, parameters).all()
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != QUERY_CANCELED:
                raise
            return {name: dict.fromkeys(STATES, COUNTED + 1) for name in self._consumers}
        return {name: dict(zip(STATES, numbers, strict=True)) for name, *numbers in rows}

    def _successes(self, connection: Connection) -> Readings:
        newest = connection.execute(NEWEST_ATTEMPT).scalar_one() or 0
        after = newest - FIRST_ATTEMPTS
        if self._last_attempt is not None:
            after = max(self._last_attempt, newest - NEXT_ATTEMPTS)
        for name, at in connection.execute(SUCCESSES, {"after": after}):
            if name in self._consumers:
                self._succeeded_at[name] = max(at, self._succeeded_at.get(name, at))
        self._last_attempt = newest
        return {
            define.LAST_SUCCESS: {
                (name,): at.timestamp() for name, at in self._succeeded_at.items()
            }
        }


def _estimate(connection: Connection, consumer: str, state: str) -> float:
    """The planner's estimate, which ANALYZE and the table's size keep near; above COUNTED."""
    explain = (
        f"EXPLAIN (FORMAT JSON) SELECT {_IN_STATE.format(consumer=':name', state=STATES[state])}"
    )
    ((plan,),) = connection.execute(text(explain), {"name": consumer})
    return float(max(plan[0]["Plan"]["Plan Rows"], COUNTED))


def _identities(connection: Connection) -> Readings:
    total, deleted, inactive = connection.execute(IDENTITIES, {"most": MOST_IDENTITIES + 1}).one()
    if total > MOST_IDENTITIES:
        ((plan,),) = connection.execute(ALL_IDENTITIES)
        rows = max(plan[0]["Plan"]["Plan Rows"], total)
        of_deleted, of_inactive = connection.execute(SHARES).one()
        # Before the first ANALYZE there are no statistics: the rows just read stand for the others.
        deleted = rows * (deleted / total if of_deleted is None else of_deleted)
        inactive = rows * (inactive / total if of_deleted is None else of_inactive)
        total = rows
    active = max(total - deleted - inactive, 0)
    values = {("active",): active, ("inactive",): inactive, ("deleted",): deleted}
    return {define.IDENTITIES: {state: float(round(number)) for state, number in values.items()}}


def _reconciliations(connection: Connection) -> Readings:
    at: datetime | None = connection.execute(RECONCILED).scalar_one()
    last = connection.execute(LAST_RECONCILIATION).one_or_none()
    if last is None:
        return {}
    *repairs, is_refused = last
    return {
        define.RECONCILED: {} if at is None else {(): at.timestamp()},
        define.REPAIRED: {
            (kind,): float(number) for kind, number in zip(define.REPAIRS, repairs, strict=True)
        },
        define.REFUSED: {(): float(is_refused)},
    }


def _hooks(connection: Connection) -> Readings:
    seen: dict[tuple[str, ...], float] = {}
    for label, at in connection.execute(HOOKS, {"most": MOST_LABELS}):
        name = label if HOOK.fullmatch(label) else OTHER
        labels = (name if label else UNLABELLED,)
        seen[labels] = max(at.timestamp(), seen.get(labels, 0.0))
    return {define.HOOK_SEEN: seen}


def _template_failures(connection: Connection) -> Readings:
    number = connection.execute(TEMPLATE_FAILURES, {"most": LOOKED_AT}).scalar_one()
    return {define.TEMPLATE_FAILURES: {(): float(number)}}


def _server(connection: Connection) -> Readings:
    risks = set(connection.execute(UNSAFE).scalars())
    return {
        define.OLDEST_TRANSACTION: {(): connection.execute(OLDEST_TRANSACTION).scalar_one()},
        define.TABLE_SIZE: {(row.relname,): float(row.bytes) for row in connection.execute(SIZES)},
        define.CLOCK_AHEAD: {(): how_far_ahead(connection).total_seconds()},
        define.UNSAFE: {(risk,): float(risk in risks) for risk in define.RISKS},
    }
