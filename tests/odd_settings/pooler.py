"""A stand-in of a pooler in transaction mode: it drops start-up options, and keys are its own."""

import socket
import struct
import threading
from contextlib import suppress
from typing import Self

OTHER_PID = 4_711


class DroppingPooler:
    """Listens on loopback, before a PostgreSQL at a Unix socket."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.dropped = 0
        self._open: list[socket.socket] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._server)
                self._open += [client, server]
                threading.Thread(target=self._serve, args=(client, server), daemon=True).start()

    def _serve(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError, EOFError):
            (size,) = struct.unpack("!i", _read(client, 4))
            words = _read(client, size - 4)[4:].rstrip(b"\0").split(b"\0")
            given = dict(zip(words[::2], words[1::2], strict=True))
            self.dropped += given.pop(b"options", None) is not None
            start = struct.pack("!i", 196_608)
            start += b"".join(key + b"\0" + value + b"\0" for key, value in given.items()) + b"\0"
            server.sendall(struct.pack("!i", len(start) + 4) + start)
            kind = b""
            while kind != b"Z":
                kind = _read(server, 1)
                (size,) = struct.unpack("!i", _read(server, 4))
                body = _read(server, size - 4)
                if kind == b"K":
                    body = struct.pack("!i", OTHER_PID) + body[4:]
                client.sendall(kind + struct.pack("!i", size) + body)
            threading.Thread(target=_copy, args=(client, server), daemon=True).start()
        _copy(server, client)


def _read(source: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        if not (more := source.recv(size - len(data))):
            raise EOFError
        data += more
    return data


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
    for each in (source, sink):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
