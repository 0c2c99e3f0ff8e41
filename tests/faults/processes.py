"""The service's own processes, started through the suite's program."""

import subprocess
import sys
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGTERM, Signals
from typing import Final, Self

import psutil

from tests.parent_pipe import ParentPipe
from tests.parts import part_of

ROOT: Final = Path(__file__).parents[2]
PROGRAM: Final = (sys.executable, "-m", "tests.faults.program")
STOP_SECONDS: Final = 15.0
COMMAND_SECONDS: Final = 60.0


class ServiceProcess:
    """An api, relay or worker; what it writes is appended to one file.

    ``within`` makes of a command the one that runs it somewhere else.
    """

    def __init__(
        self,
        name: str,
        command: list[str],
        environment: Mapping[str, str],
        folder: Path,
        parent_pipe: ParentPipe,
        *,
        within: Callable[[list[str]], list[str]] = list,
    ) -> None:
        self.name = name
        self._within = within
        self._command = [*PROGRAM, *command]
        self._environment = {
            **environment,
            **parent_pipe.environment,
            "PYTHONPATH": str(ROOT),
        }
        self._folder = folder
        self._parent_pipe = parent_pipe
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it."""
        with (self._folder / f"{self.name}.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._within(self._command),
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[self._parent_pipe.inherited],
                start_new_session=True,
            )

    def run(self, *command: str) -> str:
        """Run another command where it runs, and give what that prints."""
        ran = subprocess.run(
            self._within([*PROGRAM, *command]),
            cwd=self._folder,
            env=self._environment,
            pass_fds=[self._parent_pipe.inherited],
            stdout=subprocess.PIPE,
            timeout=COMMAND_SECONDS,
            check=True,
            text=True,
        )
        return ran.stdout

    def is_alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    def tree(self) -> list[psutil.Process]:
        """The process, and those that it started."""
        if self._process is None or self._process.poll() is not None:
            return []
        with suppress(psutil.NoSuchProcess):
            first = psutil.Process(self._process.pid)
            return [first, *first.children(recursive=True)]
        return []

    def at_work(self) -> list[psutil.Process]:
        """Those of them that do the work: a supervisor's children, or the process itself."""
        tree = self.tree()
        return tree[1:] or tree

    def end(self) -> int | None:
        """Ask it to end, and return its exit code; None if it had to be killed."""
        tree = self.tree()
        signal_all(tree, SIGCONT)
        if self._process is None:
            return 0
        signal_all(tree[:1], SIGTERM)
        try:
            return self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            return None
        finally:
            signal_all(self.tree() or tree, SIGKILL)
            self._process.wait(STOP_SECONDS)


class ServiceProcesses:
    """Processes by name, yet to be started; they end on leaving, or when the suite is killed."""

    def __init__(self, folder: Path) -> None:
        self.by_name: dict[str, ServiceProcess] = {}
        self._folder = folder
        self._parent_pipe = ParentPipe()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        end_all(self.by_name.values())
        self._parent_pipe.close()

    def add(
        self,
        name: str,
        command: list[str],
        environment: Mapping[str, str],
        within: Callable[[list[str]], list[str]] = list,
    ) -> None:
        """Add one, as `ServiceProcess` takes it."""
        self.by_name[name] = ServiceProcess(
            name, command, environment, self._folder, self._parent_pipe, within=within
        )


class Part:
    """A process of `kratos-sync all`, under its supervisor."""

    def __init__(self, whole: ServiceProcess, name: str) -> None:
        self._whole = whole
        self._name = name

    def is_alive(self) -> bool:
        """Whether it runs."""
        return bool(self.tree())

    def at_work(self) -> list[psutil.Process]:
        """The process, in a list; there is none while it is being replaced."""
        return self.tree()

    def tree(self) -> list[psutil.Process]:
        """The same: it starts no other."""
        return [each for each in self._whole.tree()[1:] if part_of(each) == self._name]


def with_parts(whole: ServiceProcess, names: Collection[str]) -> dict[str, ServiceProcess | Part]:
    """Give it and its parts by name."""
    return {whole.name: whole, **{name: Part(whole, name) for name in names}}


def end_all(processes: Collection[ServiceProcess]) -> None:
    """Ask all of them to end, at the same time."""
    with ThreadPoolExecutor(max(len(processes), 1)) as threads:
        list(threads.map(ServiceProcess.end, processes))


def signal_all(processes: list[psutil.Process], number: Signals) -> int:
    """Send each of them the signal, and return how many received it."""
    received = 0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)
            received += 1
    return received
