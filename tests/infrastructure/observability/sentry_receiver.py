"""Plays Sentry, in this process: receives envelopes over HTTP."""

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.waiting import until

KEY = "0123456789abcdef0123456789abcdef"


class SentryReceiver:
    """Keeps what it receives, in order. While ``answers`` is cleared, senders wait."""

    def __init__(self) -> None:
        self.raw: list[bytes] = []
        self.events: list[dict[str, Any]] = []
        self.answers = threading.Event()
        self.answers.set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.answers.wait()
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                receiver.keep(f"{self.path}\n{self.headers}\n".encode(), body)
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.dsn = f"http://{KEY}@127.0.0.1:{self._server.server_port}/7"

    def keep(self, head: bytes, body: bytes) -> None:
        self.raw.append(head + body)
        _, *items = body.split(b"\n")
        for header, payload in zip(items[::2], items[1::2], strict=False):
            if json.loads(header)["type"] == "event":
                self.events.append(json.loads(payload))

    def received(self, what: str) -> dict[str, Any]:
        """A report of that, as soon as there is one."""
        return until(lambda: next((e for e in self.events if e["tags"]["what"] == what), None))

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.answers.set()
            self._server.shutdown()
            self._server.server_close()


@contextmanager
def receiving() -> Iterator[SentryReceiver]:
    """Run a receiver."""
    receiver = SentryReceiver()
    with receiver.running():
        yield receiver
