"""Webhooks at a constant rate: ``python -m benchmarks.steady PORT PATH KEY BODIES RATE SECONDS TO``

An open loop: a call is sent when it is due, whether or not those before it were answered. Its
latency counts from the moment when it was due, not from when it was sent: so neither a server that
stalls nor a sender that is late hides anything (no coordinated omission). What it measured is
written into the file TO, as JSON.

wrk knows no rate. What packages have (hey, h2load, vegeta) counts from the sending, and sends no
header that differs each time but for vegeta; wrk2 and oha, which would do, are in neither Debian
nor PyPI. So this is one of our own.
"""

import asyncio
import json
import sys
from collections import Counter, deque
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from time import perf_counter
from typing import cast
from uuid import uuid4

import httptools
import uvloop

CONNECTIONS = 128
TICK_SECONDS = 0.001
LAST_ANSWERS_SECONDS = 10.0


class Connection(asyncio.Protocol):
    """A kept-alive connection that carries one call at a time."""

    def __init__(self, sender: "Sender") -> None:
        self._sender = sender
        self._parser = httptools.HttpResponseParser(self)
        self._due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Be ready for a call."""
        self._transport = cast("asyncio.WriteTransport", transport)
        self._sender.free.append(self)

    def send(self, due: float, request: bytes) -> None:
        """Send a call that was due then."""
        self._due = due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Feed the parser."""
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        """Return how long it took, and be ready for the next call."""
        self._sender.answered(self, self._parser.get_status_code(), perf_counter() - self._due)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002
        """Nobody waits for an answer here any more: the sender misses it in the end."""
        self._sender.lost += 1


class Sender:
    """Sends calls when they are due, on whichever connection is free."""

    def __init__(self, path: str, key: str, bodies: list[bytes]) -> None:
        self._requests = cycle(_parts(path, key, body) for body in bodies)
        self.free: deque[Connection] = deque()
        self.waiting: deque[float] = deque()
        self.latencies: list[float] = []
        self.statuses: Counter[int] = Counter()
        self.lost = 0

    async def run(self, port: int, rate: float, seconds: float) -> dict[str, object]:
        """Send for so long, wait for the last answers, and give the figures."""
        loop = asyncio.get_running_loop()
        for _ in range(CONNECTIONS):
            await loop.create_connection(lambda: Connection(self), "127.0.0.1", port)
        began, planned, count = perf_counter(), 0, round(rate * seconds)
        while planned < count:
            due = min(count, int((perf_counter() - began) * rate))
            self.waiting.extend(began + number / rate for number in range(planned, due))
            planned = due
            self._send_what_waits()
            await asyncio.sleep(TICK_SECONDS)
        deadline = perf_counter() + LAST_ANSWERS_SECONDS
        while len(self.latencies) < count and perf_counter() < deadline:
            await asyncio.sleep(TICK_SECONDS)
        return {
            "sent": count,
            "answered": len(self.latencies),
            "statuses": {str(status): number for status, number in self.statuses.items()},
            "lost_connections": self.lost,
            "milliseconds": [round(1_000 * latency, 3) for latency in sorted(self.latencies)],
        }

    def answered(self, connection: Connection, status: int, latency: float) -> None:
        """Note an answer; its connection is free again."""
        self.statuses[status] += 1
        self.latencies.append(latency)
        self.free.append(connection)
        self._send_what_waits()

    def _send_what_waits(self) -> None:
        while self.waiting and self.free:
            head, tail = next(self._requests)
            trigger = str(uuid4()).encode()
            self.free.popleft().send(self.waiting.popleft(), head + trigger + tail)


def _parts(path: str, key: str, body: bytes) -> tuple[bytes, bytes]:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Api-Key: {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        "Ory-Webhook-Trigger-Id: "
    )
    return head.encode(), b"\r\n\r\n" + body


def main(arguments: Sequence[str]) -> None:
    """Run with the arguments of the command line."""
    port, path, key, bodies, rate, seconds, figures = arguments
    sender = Sender(path, key, Path(bodies).read_bytes().splitlines())
    # Into a file: the loop may leave a pipe non-blocking, and what does not fit into it is lost.
    Path(figures).write_text(
        json.dumps(uvloop.run(sender.run(int(port), float(rate), float(seconds))))
    )


if __name__ == "__main__":
    main(sys.argv[1:])
