"""What is decided below HTTP: transfer codings, and the internals of uvicorn that it takes."""

import ast
import asyncio
import contextlib
import inspect
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from importlib.metadata import version

import pytest
import uvicorn
from starlette.responses import PlainTextResponse
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from kratos_sync.api.http import connections
from kratos_sync.api.http.connections import (
    NOT_HTTP,
    UNKNOWN_CODING,
    ConnectionLimits,
    bounded_http,
    coding_problem,
)
from tests.waiting import until_on_loop

ATTRIBUTES = {
    *("connections", "cycle", "expect_100_continue", "flow", "headers", "loop", "parser"),
    *("pipeline", "scope", "transport"),
}
OVERRIDDEN = {
    **dict.fromkeys(("on_message_begin", "on_headers_complete", "on_response_complete"), ()),
    "connection_made": ("transport",),
    "connection_lost": ("exc",),
    "data_received": ("data",),
    "eof_received": (),
    "on_header": ("name", "value"),
    "on_body": ("body",),
    "send_400_response": ("msg",),
    "shutdown": (),
}
OF_A_CYCLE = {
    *("body", "disconnected", "keep_alive", "message_event", "more_body", "response_complete"),
    *("scope", "transport"),
}
OF_ITS_TRANSPORT = {"close", "is_closing", "write"}


@pytest.mark.parametrize("line", [b"chunked", b" Chunked\t"])
def test_chunked_is_known(line: bytes) -> None:
    assert coding_problem([line], "1.1") is None


def test_no_coding_is_known_in_http_1_0() -> None:
    assert coding_problem([b"chunked"], "1.0") == NOT_HTTP


@pytest.mark.parametrize("line", [b"gzip, chunked", b"chunked\x0b", b"\x0cchunked"])
def test_what_is_not_exactly_chunked_is_another_coding(line: bytes) -> None:
    assert coding_problem([line], "1.1") == UNKNOWN_CODING


@contextlib.asynccontextmanager
async def stopping(*sent_before: bytes) -> AsyncIterator[tuple[StreamReader, StreamWriter]]:
    """A connection of a server that has begun to stop, after those requests and their answers."""
    config = uvicorn.Config(
        PlainTextResponse("done"),
        port=0,
        http=bounded_http(ConnectionLimits(9)),
        lifespan="off",
        log_config=None,
    )
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    port = server.servers[0].sockets[0].getsockname()[1]
    reading, writing = await asyncio.open_connection("127.0.0.1", port)
    try:
        for request in sent_before:
            writing.write(request)
            await reading.readuntil(b"done")
        await until_on_loop(lambda: len(server.server_state.connections) == 1)
        (connection,) = server.server_state.connections
        connection.shutdown()
        yield reading, writing
    finally:
        writing.close()
        server.servers[0].close()
        await until_on_loop(lambda: not server.server_state.connections)


GET = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"


@pytest.mark.parametrize("before", [[], [GET]], ids=["its first", "another"])
def test_a_request_that_is_on_its_way_when_the_api_stops_is_answered_and_is_the_last(
    before: list[bytes],
) -> None:
    async def last_answer() -> bytes:
        async with stopping(*before) as (reading, writing):
            writing.write(GET)
            return await reading.read()

    answer = asyncio.run(last_answer())

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nconnection: close\r\n" in answer.lower()


def test_a_connection_without_a_request_ends_when_the_api_stops() -> None:
    async def rest() -> bytes:
        async with stopping() as (reading, _):
            return await reading.read()

    assert asyncio.run(rest()) == b""


def test_an_unfinished_head_is_not_waited_for_when_the_api_stops() -> None:
    async def answer() -> bytes:
        async with stopping() as (reading, writing):
            writing.write(GET[:-2])
            return await reading.read()

    assert asyncio.run(answer()).startswith(b"HTTP/1.1 408 ")


def names_used(owner: str, source: object) -> set[str]:
    """The attributes of a variable, such as those of `self`, in a class's source."""
    tree = ast.parse(inspect.getsource(source))  # type: ignore[arg-type]
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    return {node.attr for node in attributes if ast.unparse(node.value) == owner}


class Connection(asyncio.Transport):
    """One that knows whether it was ended."""

    is_ended = False

    def abort(self) -> None:
        self.is_ended = True


def test_connections_that_are_too_many_are_counted_whichever_of_them_ends() -> None:
    limits = ConnectionLimits(2)
    first, second, third, newest = (Connection() for _ in range(4))
    for number, connection in enumerate((first, second, third), start=1):
        limits.idle(connection)
        assert limits.admit(number, connection)
    assert (limits.refused, first.is_ended) == (1, True)
    limits.busy(second)
    limits.busy(third)
    limits.idle(newest)
    assert not limits.admit(3, newest)
    assert limits.refused == 2


def test_the_internals_of_uvicorn_that_are_used_are_these_and_exist() -> None:
    names = names_used("self", connections.BoundedConnection)
    ours = {*vars(connections.BoundedConnection), "limits"}
    used = {name for name in names - ours if not name.startswith("_")}

    async def made() -> HttpToolsProtocol:
        config = uvicorn.Config(lambda: None, log_config=None)
        config.load()
        return HttpToolsProtocol(config, ServerState(), {})

    protocol = asyncio.run(made())
    assert used == ATTRIBUTES
    assert all(hasattr(protocol, name) for name in ATTRIBUTES - {"scope"})
    assert "self.scope = " in inspect.getsource(HttpToolsProtocol.on_message_begin)


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_the_methods_of_uvicorn_that_are_overridden_exist(name: str) -> None:
    theirs = inspect.signature(getattr(HttpToolsProtocol, name)).parameters

    assert name in vars(connections.BoundedConnection)
    assert tuple(theirs)[1:] == OVERRIDDEN[name]


def test_the_internals_of_a_cycle_that_are_used_are_these_and_exist() -> None:
    used = names_used("cycle", connections.BoundedConnection)
    used |= names_used("self.cycle", connections.BoundedConnection)
    theirs = names_used("self", RequestResponseCycle)

    assert used <= OF_A_CYCLE <= theirs


def test_a_cycle_uses_no_more_of_its_transport_than_is_given_to_it() -> None:
    assert names_used("self.transport", RequestResponseCycle) == OF_ITS_TRANSPORT
    assert set(connections._Output.__slots__) == OF_ITS_TRANSPORT


def test_the_tested_uvicorn_is_the_only_one_that_is_allowed() -> None:
    assert version("uvicorn").startswith("0.54.")
