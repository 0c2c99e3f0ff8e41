"""Wires to servers on this machine, which break in every way that a wire can break."""

import asyncio
import re
import threading
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeVar

import uvloop

T = TypeVar("T")
COMMIT: Final = re.compile(rb"COMMIT\x00|^B.{4}\x00record_group\x00", re.DOTALL)
"""What asks PostgreSQL to commit: a worker's COMMIT, the one statement of the api."""
ANYTHING: Final = re.compile(rb".", re.DOTALL)
CHUNK: Final = 65_536
DRIP_BYTES: Final = 64
Lost = Literal["request", "answer"]
Connect = Callable[[], Awaitable[tuple[StreamReader, StreamWriter]]]


class Loop:
    """An event loop in a thread of its own, a quick one: everything is carried by it."""

    def __init__(self) -> None:
        self.loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.run(_cancel_others())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(timeout=10)
        self.loop.close()

    def run(self, coroutine: Coroutine[Any, Any, T], seconds: float = 30) -> T:
        """Run it there, and give its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(seconds)


class Wire:
    """A wire that carries connections to a server, at a TCP port of its own.

    Made and used from any thread; it works on the loop's.
    """

    def __init__(self, loop: Loop, connect: Connect) -> None:
        self._loop = loop
        self._connect = connect
        self._lines: set[tuple[StreamWriter, StreamWriter]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._delay = 0.0
        self._loses: tuple[Lost, re.Pattern[bytes]] | None = None
        self._left = 0
        self.lost = 0
        """Requests or answers that it has lost so far."""
        self.port = loop.run(self._listen())

    def cut(self) -> int:
        """Cut every connection, and return how many there were."""
        return self._loop.run(self._cut_all())

    def stall(self) -> None:
        """Carry nothing until ``flow``; connections stay."""
        self._loop.loop.call_soon_threadsafe(self._flowing.clear)

    def flow(self) -> None:
        """Carry everything again, as fast as it comes."""
        self._delay, self._loses, self._left = 0.0, None, 0
        self._loop.loop.call_soon_threadsafe(self._flowing.set)

    def drip(self, delay: float) -> None:
        """Carry what comes in small pieces, and each thing so many seconds late."""
        self._delay = delay

    def lose(self, what: Lost, after: re.Pattern[bytes], times: int) -> None:
        """Cut the connection instead of carrying such a request, or instead of its answer."""
        self._loses, self._left = (what, after), times

    def close(self) -> None:
        """Listen no more."""
        self._loop.loop.call_soon_threadsafe(self._server.close)

    async def _listen(self) -> int:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def _carry(self, client: StreamReader, to_client: StreamWriter) -> None:
        await self._flowing.wait()
        try:
            server, to_server = await self._connect()
        except OSError:
            to_client.transport.abort()
            return
        line = to_client, to_server
        self._lines.add(line)
        losing = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._carry_there(client, to_server, line, losing))
                group.create_task(self._carry_back(server, to_client, line, losing))
        except* OSError:
            pass
        finally:
            self._cut(line)

    async def _carry_there(
        self,
        client: StreamReader,
        to_server: StreamWriter,
        line: tuple[StreamWriter, StreamWriter],
        losing: asyncio.Event,
    ) -> None:
        while data := await client.read(CHUNK):
            await self._flowing.wait()
            if self._loses is not None and self._left and self._loses[1].search(data):
                self._left -= 1
                if self._loses[0] == "request":
                    self.lost += 1
                    break
                losing.set()
            await self._write(to_server, data)
        self._cut(line)

    async def _carry_back(
        self,
        server: StreamReader,
        to_client: StreamWriter,
        line: tuple[StreamWriter, StreamWriter],
        losing: asyncio.Event,
    ) -> None:
        while data := await server.read(CHUNK):
            if losing.is_set():
                self.lost += 1
                break
            await self._flowing.wait()
            await self._write(to_client, data)
        self._cut(line)

    async def _write(self, to: StreamWriter, data: bytes) -> None:
        if not self._delay:
            _send(to, data)
        else:
            await asyncio.sleep(self._delay)
            for start in range(0, len(data), DRIP_BYTES):
                _send(to, data[start : start + DRIP_BYTES])
                await asyncio.sleep(0)
        await to.drain()

    async def _cut_all(self) -> int:
        lines = list(self._lines)
        for line in lines:
            self._cut(line)
        return len(lines)

    def _cut(self, line: tuple[StreamWriter, StreamWriter]) -> None:
        self._lines.discard(line)
        for end in line:
            with suppress(OSError):
                end.transport.abort()


def _send(to: StreamWriter, data: bytes) -> None:
    if to.transport.is_closing():
        raise ConnectionResetError  # uvloop would raise RuntimeError
    to.write(data)


def unix_server(path: Path) -> Connect:
    """Connect to a unix socket."""
    return lambda: asyncio.open_unix_connection(path)


def tcp_server(port: int) -> Connect:
    """Connect to a port of this machine."""
    return lambda: asyncio.open_connection("127.0.0.1", port)


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
