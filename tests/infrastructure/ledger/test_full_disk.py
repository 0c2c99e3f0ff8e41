"""A full disk counts no attempt as failed: on a real disk, where one may be mounted."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from kratos_sync.application.consumers.sync_kratos_identity import SyncKratosIdentity
from kratos_sync.application.pipeline import Batch, deliver
from kratos_sync.application.ports.event_bus import LedgerUnavailable
from kratos_sync.infrastructure.embedded import EmbeddedPostgres
from kratos_sync.infrastructure.migrations import migrate
from kratos_sync.infrastructure.postgres.engine import connect
from tests.domain.people import cause
from tests.faults.disk import small_disk
from tests.suites.ledgers import PostgresLedger
from tests.suites.occurrences import WEBHOOK, person, updated

MEGABYTES = 200
EVENTS = [cause(number) for number in range(1, 101)]


def test_nothing_counts_while_the_disk_is_full_and_all_succeeds_afterwards(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", MEGABYTES) as disk:
        if not disk.is_mounted:
            pytest.skip("no disk can be mounted here")
        with EmbeddedPostgres(disk.folder / "postgres") as server:
            engine = connect(SecretStr(server.url), pool_size=2)
            migrate(engine)
            ledger = PostgresLedger(engine)
            for number, event_id in enumerate(EVENTS, start=1):
                assert ledger.publish(updated(number, person(number)), WEBHOOK), event_id
            disk.fill(list)
            with pytest.raises(LedgerUnavailable):
                work(ledger)
            assert ledger.attempts == []
            disk.free(list)
            work(ledger)
            assert [each.outcome for each in ledger.attempts] == ["succeeded"] * len(EVENTS)
            engine.dispose()


def work(ledger: PostgresLedger) -> None:
    deliver(Batch(SyncKratosIdentity, EVENTS, ledger.unit_of_work(), ledger))
