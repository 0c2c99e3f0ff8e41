"""How a process is stopped: by a first signal gracefully, by a second one at once."""

import os
import subprocess
import sys
import threading
from signal import SIGINT, SIGTERM, SIGUSR2, pthread_kill

import pytest

from kratos_sync.infrastructure.worker.shutdown import ShutdownRequested, ShutdownSignals
from tests.waiting import DEADLINE_SECONDS


def test_the_first_signal_requests_and_the_second_aborts() -> None:
    with ShutdownSignals() as shutdown:
        shutdown.pause(0)
        os.kill(os.getpid(), SIGINT)
        with pytest.raises(ShutdownRequested):
            shutdown.pause(60)
        assert shutdown.requested.wait(DEADLINE_SECONDS)
        assert not shutdown.aborted.is_set()
        os.kill(os.getpid(), SIGTERM)
        assert shutdown.aborted.wait(DEADLINE_SECONDS)


def test_a_signal_that_another_thread_receives_ends_a_wait() -> None:
    """As the kernel chooses one where the main thread is just being resumed."""
    with ShutdownSignals() as shutdown:
        assert not shutdown.wait(0)
        threading.Timer(0.2, lambda: pthread_kill(threading.get_ident(), SIGTERM)).start()
        assert shutdown.wait(DEADLINE_SECONDS)


def test_ctrl_c_is_what_it_was_afterwards() -> None:
    with ShutdownSignals():
        pass
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), SIGINT)


def test_with_an_abort_signal_no_other_aborts() -> None:
    with ShutdownSignals(abort_signal=SIGUSR2) as shutdown:
        for _ in range(3):
            os.kill(os.getpid(), SIGTERM)
        assert shutdown.requested.wait(DEADLINE_SECONDS)
        assert not shutdown.aborted.wait(0.1)
        os.kill(os.getpid(), SIGUSR2)
        assert shutdown.aborted.wait(DEADLINE_SECONDS)


def test_a_request_that_is_not_met_in_time_becomes_an_abort() -> None:
    aborted = threading.Event()
    with ShutdownSignals(on_abort=aborted.set, abort_after=0.05) as shutdown:
        os.kill(os.getpid(), SIGTERM)
        assert aborted.wait(DEADLINE_SECONDS)
        assert shutdown.timed_out


@pytest.mark.parametrize(("signals", "code"), [(1, 1), (2, 0)])
def test_a_process_that_does_not_end_is_ended(signals: int, code: int) -> None:
    stubborn = """
from kratos_sync.infrastructure.worker import shutdown
shutdown.EXIT_SECONDS = 0.2 if SIGNALS == 1 else 60
stopped = shutdown.exit_when_stopped()
print("ready", flush=True)
import time
stopped.wait()
print("stopping", flush=True)
time.sleep(60)
""".replace("SIGNALS", str(signals))
    command = [sys.executable, "-c", stubborn]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(SIGTERM)
        assert process.stdout.readline() == "stopping\n"
        if signals == 2:
            process.send_signal(SIGTERM)
        assert process.wait(DEADLINE_SECONDS) == code
