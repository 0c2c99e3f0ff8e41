"""A process that systemd gives its socket: calls wait in it while the process is restarted."""

import socket
from pathlib import Path

import pytest

from tests.end_to_end.processes import KRATOS_SYNC, Processes
from tests.end_to_end.test_outage import Sending
from tests.end_to_end.wire import KEY
from tests.waiting import until

RATE = 50
# As systemd does: the socket is descriptor 3, and the process is named.
ACTIVATE = 'exec 3<&"$1"; shift; LISTEN_FDS=1 LISTEN_PID=$$ exec "$@"'


@pytest.mark.parametrize("command", ["api", "all"])
def test_no_call_is_refused_while_the_only_process_is_restarted(
    database_url: str, tmp_path: Path, command: str
) -> None:
    settings = {"DATABASE_URL": database_url, "KRATOS_WEBHOOK_API_KEYS": KEY, "LOG_FORMAT": "json"}
    with socket.create_server(("127.0.0.1", 0)) as listening, Processes(tmp_path, settings) as own:
        passed = str(listening.fileno())
        program = ["bash", "-c", ACTIVATE, "activate", passed, *KRATOS_SYNC]

        def start() -> None:
            own.start(
                command, command, "--port", "1", program=program, pass_fds=[listening.fileno()]
            )

        sending = Sending(listening.getsockname()[1], RATE)
        sender = sending.start()
        start()
        for restarts in range(1, 3):
            accepted = len(sender.accepted)
            until(lambda wanted=accepted + RATE: len(sender.accepted) >= wanted)
            assert own.stop(command) == {command: 0}, restarts
            start()
        sending.finish()

        print(f"{len(sender.sent)} calls, longest {sender.longest:.1f} s, answers {sender.answers}")
        assert sender.answers == {"200": len(sender.sent)}
        assert own.stop(command) == {command: 0}
