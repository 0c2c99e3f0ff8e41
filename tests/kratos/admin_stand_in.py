"""A stand-in of Kratos' Admin API: a real HTTP server on loopback, whose people a test decides on.

In a process of its own, with a population that is made up while it is listed:

    python -m tests.kratos.admin_stand_in --identities 1000000 --port 0

It prints its URL, and serves until it is ended.
"""

import argparse
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self

from kratos_sync.testing.kratos import Documents
from tests.kratos.answers import answer, error
from tests.kratos.population import Population
from tests.kratos.reply import HTTPStatus, Reply, Trouble

LOOPBACK = "127.0.0.1"
SEEN_AT_MOST = 10_000


class Seen(NamedTuple):
    """A request that came; names of headers are lower case."""

    method: str
    target: str
    headers: Mapping[str, str]


class AdminStandIn:
    """Serves `people` while entered; all of its attributes may be changed meanwhile.

    ``prefix`` is a path that a proxy in front would take off. ``before`` is called before each
    answer with the number of requests so far: what it does to the people, the answer shows.
    ``always`` spoils every answer, ``authorization`` is what that header must be.
    """

    def __init__(
        self, people: Documents, port: int = 0, prefix: str = "", address: str = LOOPBACK
    ) -> None:
        self.people = people
        self.prefix = prefix
        self.before: Callable[[int], None] = lambda _: None
        self.always: Trouble | None = None
        self.authorization: str | None = None
        self.seen: deque[Seen] = deque(maxlen=SEEN_AT_MOST)
        self._troubles: deque[Trouble | None] = deque()
        self._closing = threading.Event()
        self._server = _Server((address, port), self)

    @property
    def url(self) -> str:
        """Where it is."""
        address, port = self._server.server_address[:2]
        return f"http://{address!s}:{port}{self.prefix}"

    def next(self, *troubles: Trouble | None) -> None:
        """Spoil the next answers, one each; None leaves one as it is."""
        self._troubles.extend(troubles)

    def reply_to(self, seen: Seen) -> Reply:
        """Answer a request."""
        self.seen.append(seen)
        self.before(len(self.seen))
        if self.authorization and seen.headers.get("authorization") != self.authorization:
            return error(HTTPStatus.UNAUTHORIZED, "The request could not be authorized")
        if not seen.target.startswith(self.prefix):
            return Reply(404, {"Content-Type": "text/html"}, b"<h1>404 Not Found</h1>")
        reply = answer(self.people, seen.method, seen.target.removeprefix(self.prefix))
        trouble = self._troubles.popleft() if self._troubles else None
        for spoil in (self.always, trouble):
            reply = reply if spoil is None else spoil(reply)
        return reply

    def wait(self, seconds: float) -> None:
        """Let time pass, but not when it is being closed."""
        self._closing.wait(seconds)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.hang_up()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 60
    server: "_Server"

    def do_GET(self) -> None:
        stand_in = self.server.stand_in
        headers = {name.lower(): value for name, value in self.headers.items()}
        reply = stand_in.reply_to(Seen(self.command, self.path, headers))
        stand_in.wait(reply.after)
        raw = reply.raw
        piece = reply.piece or len(raw)
        for start in range(0, len(raw), piece):
            self.wfile.write(raw[start : start + piece])
            stand_in.wait(reply.pause)
        self.close_connection = self.close_connection or reply.cut_at is not None

    def do_DELETE(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # named by its base
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # joined when it is closed
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], stand_in: AdminStandIn) -> None:
        self.stand_in = stand_in
        self._connections: set[socket.socket] = set()
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that went away is no error of ours.
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

    def hang_up(self) -> None:
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def main() -> None:
    """Serve a population until ended."""
    parser = argparse.ArgumentParser(
        description="A stand-in of Kratos' Admin API, with a population."
    )
    parser.add_argument("--identities", type=int, default=1_000_000)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0, help="another seed is another Kratos")
    parser.add_argument("--missing-every", type=int, default=0, metavar="N")
    parser.add_argument("--changed-every", type=int, default=0, metavar="N")
    given = parser.parse_args()
    population = Population(given.identities, given.seed, given.missing_every, given.changed_every)
    with AdminStandIn(population, given.port) as stand_in, suppress(KeyboardInterrupt):
        print(stand_in.url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
