"""Where processes spend their time: py-spy looks at them a hundred times a second from outside.

It counts threads that run Python (that hold its lock), and not those that wait.
"""

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LOOKS_PER_SECOND = 100
TOP = 12
PY_SPY = Path(sys.executable).with_name("py-spy")

Profile = dict[str, Any]


@contextmanager
def profiled(pids: Mapping[str, int], seconds: int, folder: Path) -> Iterator[dict[str, Profile]]:
    """Profile these processes for so long; what is given is filled when left.

    Where the system forbids looking into processes, a profile holds nothing but ``error``.
    """
    profiles: dict[str, Profile] = {}
    files = {name: folder / f"{name}.stacks" for name in pids}
    looking = {name: _look(pid, seconds, files[name]) for name, pid in pids.items()}
    yield profiles
    for name, process in looking.items():
        _, said = process.communicate(timeout=seconds + 30)
        if process.returncode == 0:
            profiles[name] = summary(files[name].read_text())
        else:
            profiles[name] = {"error": said.decode(errors="replace").strip()[-200:]}


def summary(stacks: str) -> Profile:
    """The share in percent of functions and packages, by who was on top of the stack.

    ``stacks`` has a stack in each line, frames joined by semicolons, and how often it was seen.
    """
    functions: Counter[str] = Counter()
    packages: Counter[str] = Counter()
    for line in stacks.splitlines():
        stack, _, seen = line.rpartition(" ")
        function, _, place = stack.rpartition(";")[2].rpartition(" (")
        file = place.rstrip(")").partition(":")[0]
        functions[f"{function} ({file})"] += int(seen)
        packages[_package(file)] += int(seen)
    total = functions.total() or 1
    return {
        "looks": functions.total(),
        "functions": _shares(functions, total),
        "packages": _shares(packages, total),
    }


def _shares(counted: Counter[str], total: int) -> list[tuple[str, float]]:
    return [(name, round(100 * number / total, 1)) for name, number in counted.most_common(TOP)]


def _package(file: str) -> str:
    return file.partition("/")[0].removesuffix(".py")


def _look(pid: int, seconds: int, file: Path) -> subprocess.Popen[bytes]:
    options = ["--rate", str(LOOKS_PER_SECOND), "--gil", "--format", "raw", "--output", str(file)]
    return subprocess.Popen(  # noqa: S603
        [PY_SPY, "record", "--pid", str(pid), "--duration", str(seconds), *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
