"""Consumers that take too long, and threads that consume under a watchdog."""

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import Engine, text

from kratos_sync.application.consumer import Consumer
from kratos_sync.application.consumer_factory import ConsumerFactory
from kratos_sync.application.pipeline import Batch, deliver
from kratos_sync.application.ports.dead_letters import Failures
from kratos_sync.application.ports.event_bus import LedgerUnavailable
from kratos_sync.application.ports.unit_of_work import TimeLimitExceeded
from kratos_sync.domain.events import KratosIdentityUpdated
from kratos_sync.infrastructure.ledger.claims import PostgresClaims
from kratos_sync.infrastructure.ledger.inbox import PostgresFailures, PostgresUnitOfWork
from kratos_sync.infrastructure.postgres.transaction import Transaction
from kratos_sync.infrastructure.worker.watchdog import Watchdog
from tests.waiting import DEADLINE_SECONDS

A_LEASE = timedelta(minutes=5)


class Sql:
    """A port on the transaction."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def run(self, statement: str) -> Any:
        return self._transaction.execute(text(statement), {}).scalar()


class Overrun(Consumer[KratosIdentityUpdated]):
    """Takes too long over the events that a test names, in the way that a test says."""

    name = "Overrun"
    time_limit = timedelta(seconds=1.5)
    first_backoff = timedelta(minutes=5)
    trouble: ClassVar[str] = ""
    slow: ClassVar[frozenset[UUID]] = frozenset()
    backends: ClassVar[list[int]] = []
    wire: ClassVar[socket.socket]

    def __init__(self, sql: Sql) -> None:
        self._sql = sql

    def consume(self, event: KratosIdentityUpdated) -> None:
        if event.id not in self.slow:
            return
        self._hung = False
        try:
            self.backends.append(self._sql.run("SELECT pg_backend_pid()"))
            getattr(self, f"_{self.trouble}")()
        except TimeLimitExceeded:
            if self.trouble != "hang" or self._hung:
                raise
            # A busy machine took the time before it got there.
            self._hang()

    def _spin(self) -> None:
        while True:
            pass

    def _swallow(self) -> None:
        with suppress(BaseException):
            self._spin()

    def _hang(self) -> None:
        self._hung = True
        self.wire.recv(1)

    def _query(self) -> None:
        self._sql.run("SELECT pg_sleep(60)")

    def _query_without_timeout(self) -> None:
        self._sql.run("SELECT set_config('statement_timeout', '0', true)")
        self._query()


class SlowToMake(Overrun):
    """Takes too long before it is given any event."""

    def __init__(self, sql: Sql) -> None:
        super().__init__(sql)
        getattr(self, f"_{self.trouble}")()


class Persistent(Overrun):
    """Has all the time in the world."""

    time_limit = timedelta(minutes=1)


class Watching:
    """A watchdog, and threads that consume under its eyes."""

    def __init__(
        self, engine: Engine, spare_engine: Engine, failures: Failures | None = None
    ) -> None:
        self._engine = engine
        self._failures = PostgresFailures(engine)
        self.claims = PostgresClaims(spare_engine, A_LEASE)
        self.watchdog = Watchdog(failures or PostgresFailures(spare_engine), self.claims)
        self._threads: list[threading.Thread] = []
        self.replacements = 0
        self.unavailable = 0

    @contextmanager
    def looking(self) -> Iterator[None]:
        self.watchdog.start(self._replace)
        try:
            yield
        finally:
            self.let_everybody_go()
            self.watchdog.stop()

    def let_everybody_go(self) -> None:
        """Let those that hang come back, and wait for them."""
        Overrun.wire.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(DEADLINE_SECONDS)
            assert not thread.is_alive()

    def begin(
        self, event_ids: Sequence[UUID], consumer: type[Overrun] = Overrun
    ) -> threading.Thread:
        """Consume a batch in a thread of its own."""
        factory = ConsumerFactory([consumer], {Sql: Sql})
        unit = PostgresUnitOfWork(self._engine, factory, lambda: None)

        def run() -> None:
            with suppress(LedgerUnavailable):
                with self.watchdog.over(consumer, event_ids, unit) as watch:
                    deliver(Batch(consumer, event_ids, unit, self._failures, watch))
                return
            self.unavailable += 1

        thread = threading.Thread(target=run, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def relay(self) -> None:
        """Consume what is due by now, as it would come by the broker."""
        if due := self.claims.claim(Overrun.name, 10).event_ids:
            self.begin(sorted(due)).join(DEADLINE_SECONDS)

    def _replace(self) -> None:
        self.replacements += 1
