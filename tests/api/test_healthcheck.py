"""`kratos-sync healthcheck`: what it asks, and what it makes of the answer."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kratos_sync.api.healthcheck import Question, answer_to, question_of
from tests.api.cli.invoking import kratos_sync
from tests.ports import free_port
from tests.waiting import DEADLINE_SECONDS

OK = {"status": "ok", "process": "relay"}
HEAVY = {
    "asyncio",
    "click",
    "dotenv",
    "http.client",
    "kratos_sync.api.cli",
    "pydantic",
    "structlog",
}


class Answering:
    """A process that gives one answer to all."""

    def __init__(self, answer: bytes, family: int = socket.AF_INET) -> None:
        self._answer = answer
        self._listener = socket.socket(family)
        self._listener.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        self._listener.listen()
        self.port: int = self._listener.getsockname()[1]
        self.asked: list[str] = []
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                self.asked.append(connection.recv(1_000).decode().split("\r\n")[0])
                connection.sendall(self._answer)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


Answer = Callable[..., Answering]


@pytest.fixture
def answering() -> Iterator[Answer]:
    """Starts what answers with a document, or with these bytes."""
    started: list[Answering] = []

    def answer(
        document: object = OK, status: str = "200 OK", family: int = socket.AF_INET
    ) -> Answering:
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        started.append(Answering(f"HTTP/1.1 {status}\r\n\r\n".encode() + body, family))
        return started[-1]

    yield answer
    for each in started:
        each.close()


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("METRICS_PORT", "METRICS_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("words", "question"),
    [
        ([], Question()),
        (["relay"], Question("relay")),
        (["--port", "9464", "worker"], Question("worker", 9464)),
        (["api", "--live"], Question("api", None, live=True)),
        (["--help"], None),
        (["--port"], None),
        (["--port", "0"], None),
        (["--port", "65536"], None),
        (["--port", "9" * 5_000], None),
        (["--port=9464"], None),
        (["dance"], None),
        (["relay", "worker"], None),
    ],
)
def test_what_is_not_plain_is_left_to_the_command_line(
    words: list[str], question: Question | None
) -> None:
    assert question_of(words) == question


@pytest.mark.parametrize(
    ("live", "path", "said"), [(False, "ready", "ready"), (True, "live", "live")]
)
def test_a_process_that_is_well_is_asked_for_its_readiness_or_its_liveness(
    answering: Answer, live: bool, path: str, said: str
) -> None:
    process = answering()

    assert answer_to(Question("relay", process.port, live)) == (True, said)
    assert process.asked == [f"GET /health/{path} HTTP/1.1"]


@pytest.mark.parametrize(
    ("document", "line"),
    [
        (
            {"process": "relay", "down": ["loop", "broker"], "reasons": {"broker": "away"}},
            "not ready: loop: down; broker: away",
        ),
        ({"down": ["database"]}, "not ready: database: down"),
        ({"down": ["\x1b[2J"]}, "not ready: \N{REPLACEMENT CHARACTER}[2J: down"),
        (b"Service Unavailable\n", "not ready: it answers with 503"),
        ([], "not ready: it answers with 503"),
        ({"down": 7}, "not ready: it answers with 503"),
    ],
)
def test_a_process_that_is_not_well_is_said_to_lack_something(
    answering: Answer, document: object, line: str
) -> None:
    process = answering(document, "503 Service Unavailable")

    assert answer_to(Question("relay", process.port)) == (False, line)


def test_another_process_on_the_port_is_not_well(answering: Answer) -> None:
    port = answering().port

    assert answer_to(Question("worker", port)) == (
        False,
        f"on port {port} answers the relay, and not the worker",
    )


def test_the_port_of_the_api_itself_can_be_asked_too(answering: Answer) -> None:
    assert answer_to(Question("api", answering({"status": "ok"}).port)) == (True, "ready")


def test_what_is_no_http_is_not_well(answering: Answer) -> None:
    server = Answering(b"+PONG\r\n")

    assert answer_to(Question(port=server.port)) == (
        False,
        f"no answer from port {server.port}: HTTP",
    )
    server.close()


def test_a_port_on_which_nothing_listens_is_unhealthy() -> None:
    port = free_port()

    assert answer_to(Question(port=port)) == (
        False,
        f"no answer from port {port}: Connection refused",
    )


def test_without_a_port_it_says_what_to_set() -> None:
    assert answer_to(Question()) == (
        False,
        "METRICS_PORT is not set: a process says there how it is",
    )


def test_the_port_is_that_of_the_process_in_the_environment_or_in_dotenv(
    answering: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    process, other = answering(), free_port()
    Path(".env").write_text(f"METRICS_PORT={process.port}\n")
    assert answer_to(Question())[0]

    monkeypatch.setenv("METRICS_PORT", str(other))
    assert not answer_to(Question())[0]
    assert answer_to(Question(port=process.port))[0]


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1", "localhost", ""])
def test_a_process_that_listens_everywhere_is_asked_on_loopback(
    answering: Answer, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv("METRICS_HOST", host)

    assert answer_to(Question(port=answering().port))[0]


def test_it_asks_by_version_6_too(answering: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METRICS_HOST", "::")

    assert answer_to(Question(port=answering(family=socket.AF_INET6).port))[0]


def test_the_command_line_answers_the_same(answering: Answer) -> None:
    well, ill = answering(), answering({"down": ["broker"]}, "503 Service Unavailable")

    said = kratos_sync("healthcheck", f"--port={well.port}", "relay")
    assert (said.exit_code, said.stdout) == (0, "ready\n")
    said = kratos_sync("healthcheck", f"--port={ill.port}")
    assert (said.exit_code, said.stderr) == (1, "Error: not ready: broker: down\n")
    assert kratos_sync("healthcheck", "dance").exit_code == 2


def test_it_loads_nothing_of_the_service_and_answers_by_its_exit_code(answering: Answer) -> None:
    program = (
        "import atexit, sys; from kratos_sync.api.entry import main;"
        "atexit.register(lambda: print(*sys.modules, file=sys.stderr)); main()"
    )

    def run(port: int) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-c", program, "healthcheck", "relay", "--port", str(port)]
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
            check=False,
            env={**os.environ, "METRICS_HOST": "127.0.0.1"},
        )

    well = run(answering().port)
    assert (well.returncode, well.stdout) == (0, "ready\n")
    assert not HEAVY & set(well.stderr.split())
    assert run(free_port()).returncode == 1
