import os
import subprocess
import sys
import time
from pathlib import Path
from signal import SIGINT, SIGKILL

import pytest

from kratos_sync.api.cli import lifeline
from kratos_sync.api.cli.lifeline import Children, Interruptions, Stopped
from tests.api.cli.waiting import lives, until

CHILD = """
import os, signal, sys, threading
from kratos_sync.api.cli import lifeline
lifeline.GRACE_SECONDS = 0.2
lifeline.hold(os.environ)
if sys.argv[1] == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(os.getpid(), flush=True)
threading.Event().wait(60)
"""
PARENT = f"""
import os, sys, threading
from kratos_sync.api.cli.lifeline import Children
children = Children(os.environ, hurried=lambda: False)
children.start("child", [sys.executable, "-c", {CHILD!r}, sys.argv[1]])
threading.Event().wait(60)
"""


def never() -> bool:
    return False


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


@pytest.mark.parametrize("hearing", ["good", "deaf"])
def test_a_child_ends_with_a_parent_that_is_killed(hearing: str) -> None:
    with subprocess.Popen([*python(PARENT), hearing], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline().split(b"|")[1])
        assert lives(child)
        parent.send_signal(SIGKILL)
    until(lambda: not lives(child))


def test_a_process_without_a_lifeline_is_left_alone() -> None:
    environment = {"PATH": "/bin"}
    lifeline.hold(environment)
    assert environment == {"PATH": "/bin"}


def test_each_line_stands_under_its_process(capsys: pytest.CaptureFixture[str]) -> None:
    with Children(os.environ, never) as children:
        children.start("api", python("import sys; print('one'); print('two', file=sys.stderr)"))
        until(lambda: children.ended() is not None)
    assert capsys.readouterr().out == "    api | one\n    api | two\n"


def test_a_child_that_ends_by_itself_is_told_once_with_its_exit_code() -> None:
    told: list[tuple[str, int]] = []
    with Children(os.environ, never) as children:
        children.start("worker", python("raise SystemExit(7)"))
        until(lambda: told.extend(filter(None, [children.ended()])) or bool(told))
        assert children.ended() is None
    assert told == [("worker", 7)]


def test_children_may_take_their_leave(capsys: pytest.CaptureFixture[str]) -> None:
    polite = """
import signal, sys, threading
signal.signal(signal.SIGTERM, lambda *_: (print("bye"), sys.exit()))
print("here")
threading.Event().wait(60)
"""
    seen = ""
    with Children(os.environ, never) as children:
        children.start("relay", python(polite))
        while "here" not in seen:
            seen += capsys.readouterr().out
    assert "bye" in capsys.readouterr().out


def deaf(here: Path) -> list[str]:
    return python(
        "import pathlib, signal, threading;"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        f"pathlib.Path({str(here)!r}).touch();"
        "threading.Event().wait(60)"
    )


def test_a_deaf_child_is_killed_when_its_time_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifeline, "GRACE_SECONDS", 0.3)
    with Children(os.environ, never) as children:
        children.start("deaf", deaf(tmp_path / "here"))
        until((tmp_path / "here").exists)
    assert children.ended() == ("deaf", -SIGKILL)


def test_a_deaf_child_is_killed_at_once_in_a_hurry(tmp_path: Path) -> None:
    with Children(os.environ, hurried=lambda: True) as children:
        children.start("deaf", deaf(tmp_path / "here"))
        until((tmp_path / "here").exists)
        began = time.monotonic()
    assert time.monotonic() - began < lifeline.GRACE_SECONDS / 2


def test_ctrl_c_is_counted_and_noticed_at_the_next_pause() -> None:
    with Interruptions() as asked:
        asked.pause(0)
        os.kill(os.getpid(), SIGINT)
        os.kill(os.getpid(), SIGINT)
        with pytest.raises(Stopped):
            asked.pause(60)
        assert asked.count == 2


def test_ctrl_c_is_what_it_was_afterwards() -> None:
    with Interruptions():
        pass
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), SIGINT)
