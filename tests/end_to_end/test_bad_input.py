"""What no Kratos sends, by hand, to the running API: the right answer each time, and never 500."""

import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from itertools import repeat
from uuid import UUID, uuid4

import pytest

from tests.end_to_end.running_api import RunningApi
from tests.end_to_end.wire import KEY, SYNC, call, chunked, head, identity, of_person
from tests.waiting import DEADLINE_SECONDS

MEBIBYTE = 1_048_576
PERSON = UUID("3f0c9cc2-9a5a-4d58-9e55-f9c6a5a1e9aa")


JSON_BODIES = {
    "nested 100,000 deep": (of_person(PERSON, b'"traits": ' + b"[" * 10**5 + b"]" * 10**5), 400),
    "nested in objects": (b'{"a":' * 10**5 + b"1" + b"}" * 10**5, 400),
    "nested and never closed": (b"[" * 10**6, 400),
    "a number of 100,000 digits": (of_person(PERSON, b'"traits": ' + b"9" * 10**5), 400),
    "a number beyond doubles": (of_person(PERSON, b'"traits": 1e400'), 400),
    "a number below doubles": (of_person(uuid4(), b'"traits": 1e-400'), 200),
    "an exponent without an end": (of_person(PERSON, b'"traits": 1e' + b"9" * 10**5), 400),
    "NaN": (of_person(PERSON, b'"traits": NaN'), 400),
    "Infinity": (of_person(PERSON, b'"traits": {"n": -Infinity}'), 400),
    "keys that are there twice": (of_person(uuid4(), b'"traits": {"a": 1, "a": 2}'), 200),
    "two identities": (
        b'{"identity": null, "identity": {"id": "%s"}}' % str(uuid4()).encode(),
        200,
    ),
    "100,000 keys": (identity(traits={str(n): n for n in range(10**5 // 2)}), 200),
    "a byte order mark": (b"\xef\xbb\xbf" + identity(), 400),
    "UTF-16": (identity().decode().encode("utf-16"), 400),
    "UTF-16 without a mark": (identity().decode().encode("utf-16-le"), 400),
    "UTF-32": (identity().decode().encode("utf-32-be"), 400),
    "no UTF-8": (of_person(PERSON, b'"traits": "\xc3\x28"'), 400),
    "a surrogate in UTF-8": (of_person(PERSON, b'"traits": "\xed\xa0\x80"'), 400),
    "a NUL as it is": (of_person(PERSON, b'"traits": "\x00"'), 400),
    "nothing": (b"", 200),
    "blanks": (b" " * 1000, 400),
    "two documents": (identity() + identity(), 400),
    "a comma too many": (b'{"identity": {"id": "x",}}', 400),
    "a list": (b"[]", 422),
    "a string": (b'"identity"', 422),
    "an id of a wrong kind": (b'{"identity": {"id": {"$ne": null}}}', 422),
    "an id of zeros": (b'{"identity": {"id": "%s"}}' % str(UUID(int=0)).encode(), 422),
    "a time of the year 10000": (identity(updated_at="10000-01-01T00:00:00Z"), 422),
    "addresses of a wrong kind": (identity(verifiable_addresses=[None] * 1000), 422),
}


@pytest.mark.parametrize(("body", "status"), JSON_BODIES.values(), ids=JSON_BODIES)
def test_a_body_is_judged_by_what_it_says(api: RunningApi, body: bytes, status: int) -> None:
    answer = api.ask(call(body))
    assert answer.status == status
    assert answer.headers["content-type"] == "application/json"
    assert api.events_of(PERSON) == []


def test_an_identity_with_characters_that_jsonb_refuses_is_kept_without_them(
    api: RunningApi,
) -> None:
    person = uuid4()
    body = of_person(
        person,
        rb'"traits": {"name": "A\u0000da \ud800\udbffx", "k\u0000ey": 1,'
        rb' "kept": "Zo\u00eb \ud83d\ude00"}'
        rb', "state": "ac\u0000tive", "new\u0000field": ["\udc00"]',
    )
    assert api.ask(call(body)).status == 200
    ((event,),) = (api.events_of(person),)
    assert event["identity"] == {
        "id": str(person),
        "traits": {"name": "A\ufffdda \ufffd\ufffdx", "k\ufffdey": 1, "kept": "Zoë 😀"},
        "state": "ac\ufffdtive",
        "new\ufffdfield": ["\ufffd"],
    }
    (line,) = [line for line in api.log() if line["event"] == "webhook_characters_replaced"]
    assert line["level"] == "warning"
    assert line["fields"] == {
        "identity.traits": 4,
        "identity.state": 1,
        "identity": 1,
        "identity.?": 1,
    }


REQUESTS: dict[str, tuple[Callable[[], Iterable[bytes]], int, str]] = {
    "no HTTP at all": (
        lambda: [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"],
        400,
        "is not HTTP",
    ),
    "HTTP of another age": (lambda: [b"GET / HTTP/9.9\r\n\r\n"], 400, "is not HTTP"),
    "a method that is none": (lambda: [b"GIVE / HTTP/1.1\r\n\r\n"], 400, "is not HTTP"),
    "a path that is none": (lambda: [head(path="no path")], 400, "is not HTTP"),
    "a header without a name": (lambda: [head(": nothing")], 400, "is not HTTP"),
    "a line that is no header": (lambda: [head("nothing at all")], 400, "is not HTTP"),
    "a negative length": (lambda: [head("Content-Length: -1"), identity()], 400, "is not HTTP"),
    "a length of words": (lambda: [head("Content-Length: many"), identity()], 400, "is not HTTP"),
    "a length beyond 64 bits": (lambda: [head(f"Content-Length: {10**20}")], 400, "is not HTTP"),
    "two lengths": (
        lambda: [head("Content-Length: 5", "Content-Length: 6"), b"123456"],
        400,
        "is not HTTP",
    ),
    "a length and chunks": (
        lambda: [head("Content-Length: 5", "Transfer-Encoding: chunked"), b"0\r\n\r\n"],
        400,
        "is not HTTP",
    ),
    "a chunk without a size": (
        lambda: [head("Transfer-Encoding: chunked"), b"zz\r\n12345\r\n"],
        400,
        "is not HTTP",
    ),
    "a length that is too small": (
        lambda: [head("Content-Length: 7"), b'{"a": 1}\r\n'],
        400,
        "the body is not JSON",
    ),
    "a call that would rather be another protocol": (
        lambda: [call(identity(), "Connection: Upgrade", "Upgrade: h2c")],
        400,
        "there is no protocol to upgrade to",
    ),
    "a declared giant": (lambda: [head(f"Content-Length: {10**12}")], 413, "too large"),
    "a sent giant": (
        lambda: [head(f"Content-Length: {64 * MEBIBYTE}"), *repeat(b" " * MEBIBYTE, 64)],
        413,
        "too large",
    ),
    "chunks without an end": (
        lambda: [
            head("Transfer-Encoding: chunked"),
            *repeat(b"10000\r\n" + b" " * 65536 + b"\r\n", 500),
        ],
        413,
        "too large",
    ),
    "one byte more than a mebibyte": (lambda: [call(b" " * (MEBIBYTE + 1))], 413, "too large"),
    "a compressed body": (
        lambda: [call(identity(), "Content-Encoding: gzip")],
        415,
        "the body is compressed",
    ),
    "a form": (
        lambda: [
            b"POST %s HTTP/1.1\r\nHost: t\r\nX-Api-Key: %s\r\n" % (SYNC.encode(), KEY.encode()),
            b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 3\r\n\r\na=b",
        ],
        415,
        "the body is not application/json",
    ),
    "no key and a giant": (
        lambda: [head(f"Content-Length: {10**12}", key=None), *repeat(b" " * MEBIBYTE, 32)],
        403,
        "the API key is missing or wrong",
    ),
    "a header without an end": (
        lambda: [head()[:-4], b"\r\nX: ", *repeat(b"x" * 65536, 200)],
        431,
        "the headers are too large",
    ),
    "more lines of headers than anybody sends": (
        lambda: [head(*("X: y" for _ in range(101))) + identity()],
        431,
        "too many headers",
    ),
    "lines of headers without an end": (
        lambda: [head()[:-2], *repeat(b"a:\r\n" * 3000, 200)],
        431,
        "too many headers",
    ),
    "a head that is too large and comes at once": (
        lambda: [head("X: " + "x" * 100_000) + identity()],
        431,
        "the headers are too large",
    ),
    "a trailer without an end": (
        lambda: [head("Transfer-Encoding: chunked"), b"0\r\nX: ", *repeat(b"x" * 65536, 200)],
        431,
        "the headers are too large",
    ),
    "a chunk's extension without an end": (
        lambda: [head("Transfer-Encoding: chunked"), b"2;x=", *repeat(b"x" * 65536, 200)],
        431,
        "the headers are too large",
    ),
    "a body that is compressed on its way": (
        lambda: [head("Transfer-Encoding: gzip, chunked"), *chunked([identity()])],
        501,
        "coding is not known",
    ),
    "a coding in a line of its own": (
        lambda: [
            head("Transfer-Encoding: gzip", "Transfer-Encoding: chunked"),
            *chunked([identity()]),
        ],
        501,
        "coding is not known",
    ),
    "a coding that nobody knows": (
        lambda: [head("Transfer-Encoding: chunk"), *chunked([identity()])],
        501,
        "coding is not known",
    ),
    "chunks in chunks": (
        lambda: [head("Transfer-Encoding: chunked, Chunked"), *chunked([identity()])],
        400,
        "is not HTTP",
    ),
    "no coding at all": (
        lambda: [head("Transfer-Encoding:"), *chunked([identity()])],
        400,
        "is not HTTP",
    ),
    "chunks in HTTP/1.0": (
        lambda: [head("Transfer-Encoding: chunked", version="1.0"), *chunked([identity()])],
        400,
        "is not HTTP",
    ),
    "headers without an end": (
        lambda: [head()[:-2], *repeat(b"X-Bomb: %s\r\n" % (b"x" * 4000) * 15, 200)],
        431,
        "the headers are too large",
    ),
    "a path without an end": (
        lambda: [b"GET /", *repeat(b"x" * 65536, 200)],
        431,
        "the headers are too large",
    ),
}


@pytest.mark.parametrize(("chunks", "status", "text"), REQUESTS.values(), ids=REQUESTS)
def test_a_request_that_is_wrong_in_itself_is_answered_so(
    api: RunningApi, chunks: Callable[[], Iterable[bytes]], status: int, text: str
) -> None:
    with api.wire() as wire:
        answer = wire.send(*chunks()).answer()
        assert answer.status == status
        assert text in answer.text
        assert status == 415 or wire.is_ended()
    assert api.takes_webhooks()


def test_memory_stays_flat_whatever_comes(api: RunningApi) -> None:
    def send_all() -> int:
        for body, status in JSON_BODIES.values():
            assert api.ask(call(body)).status == status
        for chunks, status, _ in REQUESTS.values():
            assert api.ask(*chunks()).status == status
        rss: int = api.process.memory_info().rss
        return rss

    send_all()
    before = send_all()
    after = [send_all() for _ in range(8)]
    print([f"{rss / 1e6:.0f} MB" for rss in (before, *after)])
    assert after[-1] - before < 16 * MEBIBYTE


def test_every_way_of_sending_a_right_call_is_taken(api: RunningApi) -> None:
    assert api.ask(call(identity(), version="1.0")).headers["connection"] == "close"
    assert api.ask(head("Transfer-Encoding: chunked"), *chunked([identity()])).status == 200
    assert api.ask(call(identity(), "Content-Encoding: identity")).status == 200
    bytewise = chunked(bytes([byte]) for byte in identity())
    assert api.ask(head("Transfer-Encoding: chunked"), *bytewise).status == 200
    with api.wire() as wire:
        body = identity()
        wire.send(head(f"Content-Length: {len(body)}", "Expect: 100-continue"))
        assert wire.socket.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert wire.send(body).answer().status == 200


def test_what_follows_a_chunked_body_is_no_header(api: RunningApi) -> None:
    trailer = b"0\r\nX-Api-Key: %s\r\n\r\n" % KEY.encode()
    answer = api.ask(head("Transfer-Encoding: chunked", key=None), b"2\r\n{}\r\n", trailer)
    assert answer.status == 403


def test_a_caller_may_stop_sending_and_is_still_answered(api: RunningApi) -> None:
    with api.wire() as wire:
        wire.send(call(identity()))
        wire.socket.shutdown(socket.SHUT_WR)
        assert wire.answer().status == 200
        assert wire.is_ended()


def test_a_caller_that_stops_in_the_middle_records_nothing(api: RunningApi) -> None:
    person = uuid4()
    with api.wire() as wire:
        wire.send(call(of_person(person, b'"traits": {}'))[:-1])
        wire.socket.shutdown(socket.SHUT_WR)
        assert wire.is_ended()
    assert api.takes_webhooks()
    assert api.events_of(person) == []


def test_requests_sent_ahead_are_answered_in_order(api: RunningApi) -> None:
    with api.wire() as wire:
        wire.send(call(identity()) + call(b"[]") + call(b"") + call(identity()))
        assert [wire.answer().status for _ in range(4)] == [200, 422, 200, 200]
    with api.wire() as wire:
        wire.send(call(identity()) * 1000)
        assert [wire.answer().status for _ in range(17)] == [200] * 17
        assert wire.is_ended()
    assert api.takes_webhooks()


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_slow_senders_are_disconnected_and_delay_no_other_call(
    api: RunningApi, closing: ExitStack
) -> None:
    body = head("Content-Length: 100") + b"{"
    slow = {
        "says nothing": (b"", b"", None),
        "blank lines": (b"\r\n", b"\r\n", None),
        "a head": (head()[:-4], b"x", 408),
        "a second head": (call(identity()) + b"POST", b" ", 408),
        "a body": (body, b" ", 408),
        "a chunk": (head("Transfer-Encoding: chunked") + b"50\r\n{", b" ", 408),
        "the size of a chunk": (head("Transfer-Encoding: chunked") + b"1", b"0", 408),
        "a body for another": (call(identity()) + body, b" ", 408),
    }
    wires = {name: closing.enter_context(api.wire()) for name in slow}
    for name, (begin, _, _) in slow.items():
        wires[name].send(begin)
    assert wires["a second head"].answer().status == 200
    assert wires["a body for another"].answer().status == 200
    ended: dict[str, int | None] = {}
    began = time.monotonic()
    while ended.keys() != wires.keys():
        for name in wires.keys() - ended.keys():
            wires[name].send(slow[name][1])
            if wires[name].has_something_to_say(seconds=0.1):
                ended[name] = None if wires[name].is_ended() else wires[name].answer().status
        assert api.takes_webhooks()
        assert time.monotonic() - began < DEADLINE_SECONDS
    assert ended == {name: status for name, (_, _, status) in slow.items()}
    assert all(wire.is_ended() for wire in wires.values())


def test_callers_without_a_key_who_send_a_body_slowly_are_disconnected(api: RunningApi) -> None:
    with api.wire() as wire:
        assert wire.send(head("Content-Length: 100", key=None)).answer().status == 403
        began = time.monotonic()
        while not wire.has_something_to_say(seconds=0.1):
            wire.send(b" ")
            assert time.monotonic() - began < DEADLINE_SECONDS
        assert wire.is_ended()
