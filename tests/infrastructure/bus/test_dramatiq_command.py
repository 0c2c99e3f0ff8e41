"""Dramatiq's own command line runs our worker too."""

import os
import signal
import subprocess
import sysconfig
from pathlib import Path

from kratos_sync.infrastructure.container import Container
from tests.environment import environment
from tests.infrastructure.bus.conftest import Ledger, new_event
from tests.infrastructure.bus.peeking import left_behind
from tests.infrastructure.bus.working import relaying
from tests.waiting import DEADLINE_SECONDS, until

DRAMATIQ = str(Path(sysconfig.get_path("scripts"), "dramatiq"))


def test_a_worker_of_dramatiqs_command_consumes_and_stops_when_asked(
    container: Container, ledger: Ledger, database_url: str, broker_url: str, tmp_path: Path
) -> None:
    container.broker.reset_override()
    broker = container.broker()
    event = new_event()
    ledger.record(event)
    log = tmp_path / "log"
    with (
        relaying(container.relay()),
        log.open("wb") as output,
        subprocess.Popen(
            [DRAMATIQ, "kratos_sync.infrastructure.worker.dramatiq_command:set_up", "-p1", "-t2"],
            cwd=tmp_path,
            env=environment(DATABASE_URL=database_url, BROKER_URL=broker_url),
            stdout=output,
            stderr=output,
            start_new_session=True,
        ) as worker,
    ):
        try:
            until(lambda: ledger.succeeded() == [event.id])
            until(lambda: not left_behind(broker))
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(DEADLINE_SECONDS) == 0
        finally:
            if worker.poll() is None:
                os.killpg(worker.pid, signal.SIGKILL)

    written = log.read_text()
    assert "delivered" in written
    assert "Traceback" not in written
    assert "ada@example.org" not in written
    broker.close()
