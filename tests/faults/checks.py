"""What is wrong in the end, as far as it can be seen from outside: in the tables alone."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import combinations, groupby, pairwise
from math import inf
from operator import itemgetter
from typing import Any, Final, Literal, NamedTuple, TypeAlias
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from tests.faults.kratos import Call

Sort: TypeAlias = Literal["lost", "doubled", "disordered", "pending", "failed"]
Rows: TypeAlias = list[dict[str, Any]]
Elsewhere: TypeAlias = Mapping[UUID, Sequence[float]]
Spans: TypeAlias = Sequence[tuple[float, float]]

RECORDED: Final = """
    SELECT left(dedupe_key, 44) AS trigger, payload -> 'identity' -> 'traits' ->> 'call' AS call,
           recorded_at AS at
    FROM kratos_sync.events WHERE name = 'kratos_identity.updated' ORDER BY recorded_at
"""
SUBSCRIBED: Final = """
    (VALUES ('kratos_identity.updated', 'SyncKratosIdentity', false),
            ('kratos_identity.updated', 'WriteEffect', true),
            ('kratos_identity.updated', 'GetIntoTrouble', true),
            ('kratos_identity.updated', 'WriteElsewhere', false),
            ('kratos_identity.updated', 'KeepOrder', true),
            ('identity.registered', 'KeepOrder', true),
            ('identity.discovered', 'KeepOrder', true),
            ('identity.traits_changed', 'KeepOrder', true),
            ('identity.traits_changed', 'WriteFactEffect', true),
            ('identity.registered', 'CountRegistrations', false))
    AS subscribed (name, consumer, leaves_effect)
"""
EFFECTS: Final = f"""
    SELECT e.id, subscribed.consumer, count(f.event_id) AS times, e.recorded_at,
           (array_agg(f.at ORDER BY f.at))[2] AS again_at
    FROM kratos_sync.events e
    JOIN {SUBSCRIBED} ON subscribed.name = e.name AND subscribed.leaves_effect
    LEFT JOIN fault_effects f ON f.event_id = e.id AND f.consumer = subscribed.consumer
    GROUP BY e.id, subscribed.consumer HAVING count(f.event_id) <> 1
"""
SUCCESSES: Final = f"""
    SELECT e.id, subscribed.consumer, count(a.event_id) AS times, e.recorded_at,
           (array_agg(a.started_at ORDER BY a.id))[2] AS again_at
    FROM kratos_sync.events e JOIN {SUBSCRIBED} ON subscribed.name = e.name
    LEFT JOIN kratos_sync.attempts a
         ON a.event_id = e.id AND a.consumer = subscribed.consumer AND a.outcome = 'succeeded'
    GROUP BY e.id, subscribed.consumer HAVING count(a.event_id) <> 1
"""
UNFOUNDED: Final = """
    SELECT f.event_id AS id, f.consumer, f.at FROM fault_effects f
    WHERE NOT EXISTS (SELECT FROM kratos_sync.events e WHERE e.id = f.event_id)
"""
PENDING: Final = """
    SELECT event_id AS id, consumer, owed_at AS at, attempts, failed_at IS NOT NULL AS gave_up
    FROM kratos_sync.deliveries
"""
FAILED: Final = """
    SELECT a.event_id AS id, a.consumer, a.started_at AS at
    FROM kratos_sync.attempts a LEFT JOIN kratos_sync.events e ON e.id = a.event_id
    WHERE a.outcome IN ('failed', 'gave_up')
      AND (e.payload -> 'identity' -> 'traits' -> 'trouble') IS NULL
      AND a.error !~ 'WorkerDied|TimeLimitExceeded|MemoryError'
"""
"""Failed attempts at events that ask for no trouble, but for those whose cause is another event:
a death, a time limit or a lack of memory."""
IN_TURN: Final = """
    SELECT f.event_id AS id, f.consumer, f.at, e.subject, f.owed_at,
           left(e.dedupe_key, 44) AS trigger, (e.payload ->> 'version')::integer AS version
    FROM fault_effects f JOIN kratos_sync.events e ON e.id = f.event_id
    WHERE f.owed_at IS NOT NULL ORDER BY e.subject, f.number
"""
ELSEWHERE: Final = """
    SELECT e.id, subscribed.consumer, e.recorded_at AS at
    FROM kratos_sync.events e
    JOIN (VALUES ('kratos_identity.updated', 'WriteElsewhere')) AS subscribed (name, consumer)
         ON subscribed.name = e.name
"""
CHANGED_TWICE: Final = """
    SELECT subject AS id, payload ->> 'version' AS version, max(recorded_at) AS at
    FROM kratos_sync.events WHERE name = 'identity.traits_changed'
    GROUP BY 1, 2 HAVING count(*) > 1
"""
OUTDATED: Final = """
    SELECT newest.subject AS id, newest.number, i.traits ->> 'number' AS held, newest.at
    FROM (SELECT DISTINCT ON (subject) subject, recorded_at AS at,
                 payload -> 'identity' -> 'traits' ->> 'number' AS number
          FROM kratos_sync.events WHERE name = 'kratos_identity.updated'
          ORDER BY subject, (payload -> 'identity' ->> 'updated_at')::timestamptz DESC) newest
    LEFT JOIN kratos_sync.kratos_identities i ON i.id = newest.subject
    WHERE i.traits ->> 'number' IS DISTINCT FROM newest.number
"""
REGISTRATIONS: Final = """
    SELECT (SELECT count(*) FROM kratos_sync.events
            WHERE name = 'identity.registered') AS registered,
           (SELECT coalesce(sum(registrations), 0)
            FROM kratos_sync.registrations_per_day) AS counted,
           (SELECT count(*) FROM kratos_sync.events
            WHERE name = 'identity.discovered') AS discovered,
           (SELECT count(*) FROM kratos_sync.kratos_identities) AS people
"""


class Wrong(NamedTuple):
    """Something that must not be, and the wall clock's time that it goes back to, if known."""

    sort: Sort
    what: str
    at: float | None = None


def what_is_wrong(
    connection: psycopg.Connection, calls: Sequence[Call], elsewhere: Elsewhere, faults: Spans
) -> list[Wrong]:
    """Give all that is wrong, once no delivery should be pending any more.

    ``faults`` is from when to when there were any: an effect outside the database may then happen
    again.
    """
    cursor = connection.cursor(row_factory=dict_row)

    def ask(statement: str) -> Rows:
        return cursor.execute(statement.encode()).fetchall()

    pending = ask(PENDING)
    waiting = {(row["id"], row["consumer"]) for row in pending}
    return [
        *_events(calls, ask(RECORDED)),
        *_each_once("effect", ask(EFFECTS), waiting),
        *_each_once("success", ask(SUCCESSES), waiting),
        *(_wrong("doubled", row, "has an effect and no event") for row in ask(UNFOUNDED)),
        *(_wrong("pending", row, "is still pending") for row in pending),
        *(_wrong("failed", row, "failed without a cause of its own") for row in ask(FAILED)),
        *(_wrong("doubled", row, "is a change recorded twice") for row in ask(CHANGED_TWICE)),
        *(_wrong("lost", row, "is not what the newest webhook says") for row in ask(OUTDATED)),
        *_registrations(ask(REGISTRATIONS)[0]),
        *_disordered(calls, ask(IN_TURN)),
        *_elsewhere(ask(ELSEWHERE), elsewhere, faults, waiting),
    ]


def _events(calls: Sequence[Call], recorded: Rows) -> Iterator[Wrong]:
    triggers = {row["trigger"] for row in recorded}
    for call in calls:
        if call.is_accepted and f"webhook:{call.trigger}" not in triggers:
            yield Wrong("lost", f"call {call.trigger} was accepted, and has no event", call.sent_at)
        if not call.is_accepted:
            yield Wrong("lost", f"call {call.trigger} was answered {call.status}", call.sent_at)
    times = Counter(row["call"] for row in recorded)
    for row in recorded:
        if times[row["call"]] > 1:
            yield _wrong("doubled", row, "was recorded more than once")


def _each_once(what: str, rows: Rows, waiting: set[tuple[Any, str]]) -> Iterator[Wrong]:
    for row in rows:
        if row["times"]:
            yield _wrong("doubled", {**row, "at": row["again_at"]}, f"{what} more than once")
        elif (row["id"], row["consumer"]) not in waiting:
            yield _wrong("lost", {**row, "at": row["recorded_at"]}, f"no {what}")


def _disordered(calls: Sequence[Call], in_turn: Rows) -> Iterator[Wrong]:
    """Find what was consumed after something that was recorded later, of each identity.

    Facts are recorded one after another, by the version of the copy. Webhooks that Kratos sends at
    the same time may be recorded in any order; those sent after an answer come after it.
    """
    sent = {f"webhook:{call.trigger}": call for call in calls}
    for _, rows in groupby(in_turn, key=itemgetter("subject")):
        consumed = list(rows)
        facts = [row for row in consumed if row["version"] is not None]
        for before, after in pairwise(facts):
            is_in_order = (before["owed_at"], before["id"]) < (after["owed_at"], after["id"])
            if not (is_in_order and before["version"] <= after["version"]):
                yield _wrong("disordered", after, f"came after {before['id']}, recorded later")
        webhooks = [(row, sent[row["trigger"]]) for row in consumed if row["trigger"] in sent]
        for (before, before_call), (after, after_call) in combinations(webhooks, 2):
            answered_at = after_call.answered_at
            if after_call.is_accepted and (answered_at or inf) < before_call.sent_at:
                yield _wrong("disordered", after, f"came after {before['id']}, sent later")


def _elsewhere(
    expected: Rows, effects: Elsewhere, faults: Spans, waiting: set[tuple[Any, str]]
) -> Iterator[Wrong]:
    for row in expected:
        times = sorted(effects.get(row["id"], ()))
        if not times and (row["id"], row["consumer"]) not in waiting:
            yield _wrong("lost", row, "no effect elsewhere")
        for before, again in pairwise(times):
            if not any(began <= again and ended >= before for began, ended in faults):
                why = f"{row['id']}, {row['consumer']}: took effect again, without any fault"
                yield Wrong("doubled", why, again)


def _registrations(row: dict[str, Any]) -> Iterator[Wrong]:
    registered, counted, discovered, people = itemgetter(
        "registered", "counted", "discovered", "people"
    )(row)
    if counted != registered:
        sort: Sort = "lost" if counted < registered else "doubled"
        yield Wrong(sort, f"{registered} registered, {counted} counted")
    # An api whose clock is ahead takes a registration for a discovery.
    if registered + discovered != people:
        sort = "lost" if registered + discovered < people else "doubled"
        yield Wrong(sort, f"{people} people, {registered} registered, {discovered} discovered")


def _wrong(sort: Sort, row: dict[str, Any], why: str) -> Wrong:
    at: datetime | None = row.get("at")
    about = ", ".join(str(row[key]) for key in ("id", "consumer", "call", "version") if key in row)
    return Wrong(sort, f"{about}: {why}", None if at is None else at.timestamp())
