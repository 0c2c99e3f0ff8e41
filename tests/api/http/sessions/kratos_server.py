"""A Kratos that answers `/sessions/whoami` as a real one was recorded to, over real HTTP."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.waiting import DEADLINE_SECONDS

RECORDINGS = Path(__file__).parents[3] / "recordings" / "sessions.json"
COOKIE = "MTc5NTQwNDMzMnw="
TOKEN = "ory_st_of_no_worth"
TWO_FACTOR_TOKEN = "ory_st_of_somebody_with_two_factors"
INACTIVE_TOKEN = "ory_st_of_somebody_inactive"


@dataclass
class Answer:
    """What the server says, and in which manner."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    hangs_up: bool = False


@cache
def recorded(case: str) -> Answer:
    """One recorded answer."""
    said = json.loads(RECORDINGS.read_text())[case]
    return Answer(said["status"], json.dumps(said["body"]).encode(), said.get("headers", {}))


def session(**changes: Any) -> dict[str, Any]:
    """The session that was recorded, ending long after this test."""
    body: dict[str, Any] = json.loads(recorded("cookie").body)
    return {**body, "expires_at": "2126-11-24T03:25:32.437297Z", **changes}


class KratosServer:
    """Where it is, and what was asked; `answers` are given first, then those to known proofs.

    While `go` is not set, none is given.
    """

    def __init__(self) -> None:
        self.url = ""
        self.calls: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.answers: list[Answer] = []
        self.go = threading.Event()
        self.go.set()

    def answer_to(self, headers: dict[str, str]) -> Answer:
        """What a Kratos says to these headers."""
        self.calls.append(headers)
        self.go.wait(DEADLINE_SECONDS)
        if self.answers:
            return self.answers.pop(0)
        token, cookie = headers.get("x-session-token"), headers.get("cookie")
        if token == TWO_FACTOR_TOKEN:
            return recorded("token")
        if token == INACTIVE_TOKEN:
            return recorded("inactive identity")
        if token == TOKEN or cookie == f"ory_kratos_session={COOKIE}":
            return Answer(200, json.dumps(session()).encode())
        return recorded("bad token" if token or cookie else "no token")


class Server(ThreadingHTTPServer):
    """Lets many connect at once, and waits for no thread at the end."""

    request_queue_size = 128
    daemon_threads = True
    block_on_close = False


@contextmanager
def running_kratos() -> Iterator[KratosServer]:
    """A server on a port of loopback."""
    kratos = KratosServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            kratos.paths.append(self.path)
            answer = kratos.answer_to({name.lower(): text for name, text in self.headers.items()})
            if answer.hangs_up:
                self.close_connection = True
                return
            self.send_response(answer.status)
            for name, text in {"Content-Type": "application/json", **answer.headers}.items():
                self.send_header(name, text)
            self.send_header("Content-Length", str(len(answer.body)))
            with suppress(ConnectionError):  # who asked has gone
                self.end_headers()
                self.wfile.write(answer.body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with Server(("127.0.0.1", 0), Handler) as server:
        kratos.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield kratos
        finally:
            kratos.go.set()
            server.shutdown()
            thread.join(DEADLINE_SECONDS)
