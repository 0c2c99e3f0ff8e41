import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from signal import SIGKILL

import pytest

from kratos_sync.api.cli.dev import show_line
from kratos_sync.infrastructure.worker import child_processes
from kratos_sync.infrastructure.worker.child_processes import (
    ChildProcesses,
    end_with_parent,
    wait_until_free,
)
from tests.waiting import DEADLINE_SECONDS, lives, until

CHILD = """
import os, signal, sys, threading
from kratos_sync.infrastructure.worker import child_processes
child_processes.GRACE_SECONDS = 0.2
child_processes.end_with_parent(os.environ)
if sys.argv[1] == "unstoppable":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(os.getpid(), flush=True)
threading.Event().wait(600)
"""
PARENT = f"""
import os, sys, threading
from kratos_sync.infrastructure.worker.child_processes import ChildProcesses
show = lambda name, line: print(line.decode(), end="", flush=True)
children = ChildProcesses(os.environ, lambda: False, show)
children.start("child", [sys.executable, "-c", {CHILD!r}, sys.argv[1]])
threading.Event().wait(600)
"""


def never() -> bool:
    return False


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


@pytest.mark.parametrize("reaction", ["ends", "unstoppable"])
def test_a_child_ends_with_a_parent_that_is_killed(reaction: str) -> None:
    with subprocess.Popen([*python(PARENT), reaction], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert lives(child)
        parent.send_signal(SIGKILL)
    until(lambda: not lives(child))


def test_a_process_without_a_parent_pipe_does_not_watch_one() -> None:
    environment = {"PATH": "/bin"}
    end_with_parent(environment)
    assert environment == {"PATH": "/bin"}


def test_each_line_stands_under_its_process(capsys: pytest.CaptureFixture[str]) -> None:
    with ChildProcesses(os.environ, never, show_line) as children:
        children.start("api", python("import sys; print('one'); print('two', file=sys.stderr)"))
        until(lambda: children.ended() is not None)
    assert capsys.readouterr().out == "    api | one\n    api | two\n"


def test_a_child_that_ends_by_itself_is_reported_once_with_its_exit_code() -> None:
    reported: list[tuple[str, int]] = []
    with ChildProcesses(os.environ, never, show_line) as children:
        children.start("worker", python("raise SystemExit(7)"))
        until(lambda: reported.extend(filter(None, [children.ended()])) or bool(reported))
        assert children.ended() is None
    assert reported == [("worker", 7)]


def test_children_may_write_something_when_they_end() -> None:
    polite = """
import signal, sys, threading
signal.signal(signal.SIGTERM, lambda *_: (print("bye"), sys.exit()))
print("here")
threading.Event().wait(600)
"""
    lines: list[bytes] = []
    with ChildProcesses(os.environ, never, lambda _, line: lines.append(line)) as children:
        children.start("relay", python(polite))
        until(lambda: b"here\n" in lines)
    assert lines == [b"here\n", b"bye\n"]


def unstoppable(here: Path) -> list[str]:
    return python(
        "import pathlib, signal, threading;"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        f"pathlib.Path({str(here)!r}).touch();"
        "threading.Event().wait(600)"
    )


def test_a_child_that_ignores_sigterm_is_killed_when_its_time_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_processes, "GRACE_SECONDS", 0.3)
    with ChildProcesses(os.environ, never, show_line) as children:
        children.start("it", unstoppable(tmp_path / "here"))
        until((tmp_path / "here").exists)
    assert children.ended() == ("it", -SIGKILL)


def test_a_child_that_ignores_sigterm_is_killed_at_once_when_aborted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_processes, "GRACE_SECONDS", 2 * DEADLINE_SECONDS)
    with ChildProcesses(os.environ, lambda: True, show_line) as children:
        children.start("it", unstoppable(tmp_path / "here"))
        until((tmp_path / "here").exists)
        began = time.monotonic()
    assert time.monotonic() - began < DEADLINE_SECONDS


def test_a_port_is_waited_for_while_it_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        threading.Timer(0.3, taken.close).start()
        wait_until_free("127.0.0.1", taken.getsockname()[1])
        assert taken.fileno() == -1


def test_a_port_that_stays_taken_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_processes, "PORT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        began = time.monotonic()
        wait_until_free("127.0.0.1", taken.getsockname()[1])
    assert time.monotonic() - began >= 0.2


def test_an_address_that_is_not_ours_is_not_waited_for() -> None:
    began = time.monotonic()
    wait_until_free("192.0.2.1", 9100)
    assert time.monotonic() - began < 1
