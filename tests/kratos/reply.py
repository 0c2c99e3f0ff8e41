"""What a stand-in sends back, and how it misbehaves while it does."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus


@dataclass(frozen=True)
class Reply:
    """An answer. It begins ``after`` some seconds, is cut off at ``cut_at`` bytes of its body, and
    comes in pieces of ``piece`` bytes with a ``pause`` between them."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    after: float = 0.0
    cut_at: int | None = None
    piece: int | None = None
    pause: float = 0.0

    @property
    def raw(self) -> bytes:
        """All of it as it goes over the wire, up to where it is cut."""
        lines = [f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}"]
        length = {} if self.status == 204 else {"Content-Length": str(len(self.body))}
        lines += [f"{name}: {value}" for name, value in {**length, **self.headers}.items()]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + self.body[: self.cut_at]


Trouble = Callable[[Reply], Reply]
"""Spoils an answer."""


def too_many(retry_after: str | None) -> Trouble:
    """429, with such a header or without."""
    return broken(429, retry_after)


def broken(status: int = 503, retry_after: str | None = None) -> Trouble:
    """A server's error, with a body that no one should log."""
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    return lambda _: Reply(status, headers, b"<h1>ada@example.org broke it</h1>")


def says(body: bytes, status: int = 200, **headers: str) -> Trouble:
    """Another answer altogether; an underscore in a header's name is a hyphen."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: Reply(status, {"Content-Type": "application/json", **named}, body)


def linking(link: str) -> Trouble:
    """The right answer, with such a `Link`."""
    return lambda reply: replace(reply, headers={**reply.headers, "Link": link})


def slow(seconds: float) -> Trouble:
    """The right answer, late."""
    return lambda reply: replace(reply, after=seconds)


def trickling(piece: int, pause: float) -> Trouble:
    """The right answer, headers and all, a few bytes at a time."""
    return lambda reply: replace(reply, piece=piece, pause=pause)


def cut_at(size: int) -> Trouble:
    """The right answer, of which only so many bytes of the body come before the connection ends."""
    return lambda reply: replace(reply, cut_at=size)


def nothing(reply: Reply) -> Reply:
    """An empty listing, as if Kratos had nobody at all."""
    return replace(reply, headers={"Content-Type": "application/json"}, body=b"[]\n")
