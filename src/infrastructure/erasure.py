"""Erasures in PostgreSQL: the functions of revision 0004 do it, a few thousand rows at a time."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from random import uniform
from typing import Final
from uuid import UUID

import psycopg
import structlog
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError
from uuid_utils.compat import uuid7

from kratos_sync.application.pipeline.logging import where
from kratos_sync.application.ports.deletions import Erasable, Erased, Erasure, Erasures
from kratos_sync.application.ports.event_bus import LedgerUnavailable, Provenance
from kratos_sync.application.ports.unit_of_work import ConcurrencyConflict
from kratos_sync.domain.events import IMPERSONAL
from kratos_sync.domain.kratos_identity import KratosIdentity
from kratos_sync.infrastructure.identities.kratos_identities import SqlAlchemyKratosIdentities
from kratos_sync.infrastructure.ledger.event_rows import RECORD_ERASURES, record_many
from kratos_sync.infrastructure.ledger.purge import lock_purges
from kratos_sync.infrastructure.ledger.snapshot import snapshot
from kratos_sync.infrastructure.postgres.binary_arrays import uuid_array
from kratos_sync.infrastructure.postgres.engine import translate_errors
from kratos_sync.infrastructure.postgres.transaction import Transaction

FIRST_LOOK_SECONDS: Final = 2.0
LOOK_SECONDS: Final = 20.0
MOST_AT_ONCE: Final = 100
"""People who are looked at together."""
REST_SECONDS: Final = 0.05

log = structlog.get_logger()


class ErasureSchedule:
    """Looks at whoever is due, again and again. Many may run: each gets others."""

    def __init__(self, erasures: Erasures, look_seconds: float = LOOK_SECONDS) -> None:
        self._erasures = erasures
        self._look_seconds = look_seconds

    def run(self, stopped: threading.Event) -> None:
        """Erase until stopped; what goes wrong is logged, and tried again."""
        pause = min(FIRST_LOOK_SECONDS, self._look_seconds)
        while not stopped.wait(pause * uniform(0.5, 1)):  # noqa: S311
            pause = self._look_seconds
            try:
                while not stopped.is_set() and self._look(stopped):
                    stopped.wait(REST_SECONDS)
            except LedgerUnavailable as error:
                log.warning("erasure_abandoned", reason=str(error))
            except (ConcurrencyConflict, SQLAlchemyError, psycopg.Error) as error:
                log.warning("erasure_abandoned", error=type(error).__name__, at=where(error))

    def _look(self, stopped: threading.Event) -> bool:
        """Look at some who are due; False if nobody was."""
        people = self._erasures.due(MOST_AT_ONCE)
        if not people:
            return False
        erased, held = Erased(), 0
        for step in self._erasures.erase(people):
            erased, held = erased.plus(step), held + step.held
            if stopped.wait(REST_SECONDS):
                return False
        self._erasures.note(people, is_complete=not held)
        if erased._replace(held=0) != Erased() or held:
            log.info(
                "erased",
                people=len(people),
                events=erased.events,
                deliveries=erased.deliveries,
                held=held,
            )
        return True


# Asked for once more, it is looked at once more, and keeps who asked first and why.
WISH: Final = """
    INSERT INTO kratos_sync.erasures (identity_id, by, reason) VALUES ($1, $2, $3)
    ON CONFLICT (identity_id) DO UPDATE SET look_at = clock_timestamp()
"""
ERASURE: Final = text("""
    SELECT asked_at, erased_at, by, reason FROM kratos_sync.erasures WHERE identity_id = :person
""")


def request_erasure(transaction: Transaction, identity_id: UUID, by: str, reason: str) -> None:
    """Have a relay look at what there is of the person, from this transaction's commit on."""
    transaction.run(WISH, (identity_id, _storable(by), _storable(reason)))


def erasure_of(connection: Connection, identity_id: UUID) -> Erasure | None:
    """Give a person's erasure, if there is one."""
    row = connection.execute(ERASURE, {"person": identity_id}).one_or_none()
    return None if row is None else Erasure(*row)


def _storable(said: str) -> str:
    # What a terminal sent need not be UTF-8, and PostgreSQL takes nothing else.
    escaped = said.encode(errors="backslashreplace").decode()
    return escaped.replace("\x00", "\N{REPLACEMENT CHARACTER}")


SOURCE: Final = "erase"
MOST_EVENTS: Final = 2_000
"""Events of one step: it takes some hundredths of a second."""
TIME_LIMIT: Final = timedelta(seconds=20)
FIRST: Final = UUID(int=0)
IMPERSONAL_NAMES: Final = sorted(IMPERSONAL)

ERASABLE: Final = text("""
    WITH heard AS MATERIALIZED (
        SELECT id, name, erased_at FROM kratos_sync.events WHERE subject = :person
    ), personal AS MATERIALIZED (
        SELECT id FROM heard WHERE erased_at IS NULL AND name <> ALL(:impersonal)
    )
    SELECT (SELECT count(*) FROM kratos_sync.kratos_identities
            WHERE id = :person AND deleted_at IS NULL),
           (SELECT count(*) FROM personal),
           (SELECT count(*)
            FROM personal JOIN kratos_sync.deliveries d ON d.event_id = personal.id),
           (SELECT count(*) FROM heard JOIN kratos_sync.attempts a ON a.event_id = heard.id
            WHERE a.outcome IN ('failed', 'gave_up', 'postponed') AND heard.erased_at IS NULL),
           EXISTS (SELECT FROM heard)
           OR EXISTS (SELECT FROM kratos_sync.kratos_identities WHERE id = :person)
""")
# What two steps find must not change between them: nobody purges or replays meanwhile.
ERASE_EVENTS: Final = text("""
    SELECT last, erased, settled, held, texts
    FROM kratos_sync.erase_events(CAST(:people AS uuid[]), :impersonal, :after, :most)
""")
ERASE_TEXTS: Final = text("""
    SELECT texts, held FROM kratos_sync.erase_texts(CAST(:people AS uuid[]), :impersonal)
""")

# A look is as far from the next as from the erasure, within bounds; one that was cut short is soon
# made again.
NOTE: Final = text("""
    UPDATE kratos_sync.erasures
    SET erased_at = CASE WHEN :complete THEN coalesce(erased_at, clock_timestamp())
                         ELSE erased_at END,
        look_at = clock_timestamp() + CASE WHEN :complete
            THEN least(greatest(clock_timestamp() - asked_at, :soon), :longest) ELSE :soon END
    WHERE identity_id = ANY(CAST(:people AS uuid[]))
""")
# Later than the longest is by a clock that was ahead.
DUE: Final = text("""
    UPDATE kratos_sync.erasures SET look_at = clock_timestamp() + :soon
    WHERE identity_id IN (
        SELECT identity_id FROM kratos_sync.erasures
        WHERE NOT look_at BETWEEN clock_timestamp() AND clock_timestamp() + :longest
        ORDER BY look_at LIMIT :most FOR UPDATE SKIP LOCKED)
    RETURNING identity_id
""")
SOON: Final = timedelta(minutes=1)
LONGEST: Final = timedelta(hours=1)


class PostgresErasures:
    """The port of that name."""

    def __init__(self, engine: Engine, most_events: int = MOST_EVENTS) -> None:
        self._engine = engine
        self._most_events = most_events

    def erasable(self, identity_id: UUID) -> Erasable:
        """Count on one snapshot."""
        parameters = {"person": identity_id, "impersonal": IMPERSONAL_NAMES}
        with snapshot(self._engine) as connection:
            row = connection.execute(ERASABLE, parameters).one()
            erasure = erasure_of(connection, identity_id)
        copies, events, deliveries, attempts, is_known = row
        return Erasable(copies, events, deliveries, attempts, is_known, erasure)

    def begin(self, identity_id: UUID, by: str, reason: str) -> None:
        """Lock the identity, forget it, and record what that raises, in one transaction."""
        transaction = Transaction(self._engine)
        at, cause = datetime.now(UTC), uuid7()
        with transaction.begin(TIME_LIMIT):
            identities = SqlAlchemyKratosIdentities(transaction)
            identity = identities.find(identity_id)
            if identity is None:
                identities.add(KratosIdentity.erased_tombstone(identity_id, at=at, cause=cause))
            else:
                identity.erase(at=at, cause=cause)
            request_erasure(transaction, identity_id, by, reason)
            raised = [(event, Provenance(SOURCE)) for event in transaction.collect_events()]
            record_many(transaction.connection, raised, RECORD_ERASURES)
            transaction.commit()

    def erase(self, people: Sequence[UUID]) -> Iterator[Erased]:
        """Go through their events in the order of ids, each step a transaction, then the texts."""
        fixed = {"people": uuid_array(people), "impersonal": IMPERSONAL_NAMES}
        after: UUID | None = FIRST
        while after is not None:
            step = {**fixed, "after": after, "most": self._most_events}
            with self._step() as connection:
                after, erased, settled, held, texts = connection.execute(ERASE_EVENTS, step).one()
            if after is not None:
                yield Erased(erased, settled, texts, held)
        with self._step() as connection:
            texts, held = connection.execute(ERASE_TEXTS, fixed).one()
        yield Erased(texts=texts, held=held)

    def note(self, people: Sequence[UUID], *, is_complete: bool) -> None:
        """Note when to look next."""
        parameters = {"people": uuid_array(people), "complete": is_complete}
        with translate_errors(), self._engine.begin() as connection:
            connection.execute(NOTE, {**parameters, "soon": SOON, "longest": LONGEST})

    def due(self, most: int) -> Sequence[UUID]:
        """Claim those that are due, for a minute."""
        with translate_errors(), self._engine.begin() as connection:
            return list(
                connection.execute(DUE, {"most": most, "soon": SOON, "longest": LONGEST}).scalars()
            )

    @contextmanager
    def _step(self) -> Iterator[Connection]:
        with translate_errors(), self._engine.begin() as connection:
            lock_purges(connection)
            yield connection
