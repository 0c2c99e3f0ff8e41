"""HTTP by hand: bytes as a client of ill will, or a broken one, may send them."""

import json
import select
import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self
from uuid import UUID, uuid4

from tests.waiting import DEADLINE_SECONDS

SYNC = "/kratos/sync-identity"
KEY = "a-key-of-no-worth"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The one message of an answer in Kratos' form."""
        ((message,),) = (each["messages"] for each in json.loads(self.body)["messages"])
        assert self.headers["content-type"] == "application/json"
        assert (message["id"], message["type"], message["context"]) == (self.status, "error", None)
        text: str = message["text"]
        return text


class Wire:
    """One connection to a port of this machine."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_SECONDS)
        self._read = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._read.close()
        self.socket.close()

    def send(self, *chunks: bytes) -> Self:
        """Send as much of it as the other side takes."""
        with suppress(ConnectionError):
            for chunk in chunks:
                self.socket.sendall(chunk)
        return self

    def answer(self) -> Answer:
        """Read one answer."""
        version, status, *_ = self._read.readline().split(maxsplit=2)
        assert version in {b"HTTP/1.1", b"HTTP/1.0"}
        headers = {}
        while line := self._read.readline().strip():
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        length = int(headers["content-length"])
        return Answer(int(status), headers, self._read.read(length))

    def has_something_to_say(self, seconds: float) -> bool:
        """Wait for the other side to answer, or to end the connection."""
        poll = select.poll()  # for any number of sockets
        poll.register(self.socket, select.POLLIN)
        return bool(poll.poll(1000 * seconds))

    def is_ended(self) -> bool:
        """Wait for the other side to end the connection; false if it says something instead."""
        try:
            return self._read.peek(1) == b""
        except ConnectionError:
            return True


def head(
    *lines: str, method: str = "POST", path: str = SYNC, version: str = "1.1", key: str | None = KEY
) -> bytes:
    """A request's head, of JSON and with a key unless it says otherwise."""
    given = [f"{method} {path} HTTP/{version}", "Host: test", "Content-Type: application/json"]
    if key is not None:
        given.append(f"X-Api-Key: {key}")
    return "\r\n".join([*given, *lines, "", ""]).encode("latin-1")


def call(body: bytes, *lines: str, version: str = "1.1", key: str | None = KEY) -> bytes:
    """A whole request with a body of that length."""
    length = f"Content-Length: {len(body)}"
    return head(length, *lines, version=version, key=key) + body


def identity(**fields: Any) -> bytes:
    """A body with an identity of its own."""
    return json.dumps({"identity": {"id": str(uuid4()), **fields}}).encode()


def of_person(person: UUID, rest: bytes) -> bytes:
    """A body whose identity is that person's and goes on with this text."""
    return b'{"identity": {"id": "%s", %s}}' % (str(person).encode(), rest)


def chunked(chunks: Iterable[bytes]) -> Iterable[bytes]:
    """A body in chunks, with its end."""
    for chunk in chunks:
        yield b"%x\r\n%s\r\n" % (len(chunk), chunk)
    yield b"0\r\n\r\n"
