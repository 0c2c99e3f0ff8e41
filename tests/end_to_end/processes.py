"""Commands of the service as processes, with settings of each one's own."""

import subprocess
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import httpx

from tests.environment import environment, with_direct_url
from tests.parent_pipe import ParentPipe
from tests.ports import free_port
from tests.waiting import DEADLINE_SECONDS, until

LINES_SHOWN = 200
"""Lines of each process that are shown when a test fails."""
KRATOS_SYNC = (str(Path(sysconfig.get_path("scripts"), "kratos-sync")),)


class Processes:
    """Processes by name; what each says is kept in one file, and all are ended together."""

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        self.folder = folder
        self._settings = environment(**settings)
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._parent_pipe = ParentPipe()
        self._port = free_port()
        self.http = httpx.Client(
            base_url=f"http://127.0.0.1:{self._port}",
            timeout=DEADLINE_SECONDS,
            trust_env=False,
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        names = list(self._running)
        try:
            self.stop(*names)
            # Shown for a test that fails; a fixture does not learn whether it did.
            for name in names:
                print(f"--- {name}", *self.said(name).splitlines()[-LINES_SHOWN:], sep="\n")
        finally:
            self.http.close()
            self._parent_pipe.close()

    def start_api(self, program: Sequence[str] = KRATOS_SYNC, **settings: str) -> None:
        """Start the api, and wait until it is ready."""
        self.start("api", "api", "--port", str(self._port), program=program, **settings)
        until(self._is_ready)

    def start(
        self,
        name: str,
        *command: str,
        program: Sequence[str] = KRATOS_SYNC,
        pass_fds: Sequence[int] = (),
        **settings: str,
    ) -> None:
        """Start a process of that name."""
        with self._file(name).open("ab") as log:
            self._running[name] = subprocess.Popen(
                [*program, *command],
                cwd=self.folder,
                env={**self._environment_of(command, settings), **self._parent_pipe.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[self._parent_pipe.inherited, *pass_fds],
            )

    def run(
        self, *command: str, program: Sequence[str] = KRATOS_SYNC, **settings: str
    ) -> tuple[int, str]:
        """Run a command to its end: its exit code, and all it said."""
        done = subprocess.run(
            [*program, *command],
            cwd=self.folder,
            env=self._environment_of(command, settings),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=DEADLINE_SECONDS,
            check=False,
        )
        return done.returncode, done.stdout.decode(errors="replace")

    def stop(self, *names: str) -> dict[str, int]:
        """Ask processes to end, and give their exit codes; one that does not is killed."""
        stopping = {name: self._running.pop(name) for name in names}
        for process in stopping.values():
            process.terminate()
        try:
            return {name: process.wait(DEADLINE_SECONDS) for name, process in stopping.items()}
        finally:
            for process in stopping.values():
                process.kill()
                process.wait(DEADLINE_SECONDS)

    def pids(self) -> list[int]:
        """The processes that were started and not yet ended."""
        return [process.pid for process in self._running.values()]

    def pid_of(self, name: str) -> int:
        """The process of that name."""
        return self._running[name].pid

    def said(self, name: str) -> str:
        """All that processes of that name wrote, on either stream."""
        return self._file(name).read_text(errors="replace")

    def wait_for(self, name: str, words: str) -> None:
        """Wait until a process of that name has said this."""
        until(lambda: words in self.said(name))

    def _environment_of(
        self, command: Sequence[str], settings: Mapping[str, str]
    ) -> dict[str, str]:
        return with_direct_url(command[0], {**self._settings, **settings})

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def _is_ready(self) -> bool:
        try:
            return self.http.get("/health/ready").status_code == 200
        except httpx.TransportError:
            return False
