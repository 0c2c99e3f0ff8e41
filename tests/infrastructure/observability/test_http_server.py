"""The small server for metrics and health: what it answers, and what it does not wait for."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

import httpx
import pytest

from kratos_sync.infrastructure.observability import http_server
from kratos_sync.infrastructure.observability.http_server import (
    MOST_HEAD_BYTES,
    THREADS,
    CannotListen,
    ObservabilityServer,
    Response,
)
from tests.ports import free_port
from tests.waiting import until

CANARY = "robin@example.org"


def broken() -> Response:
    raise ValueError(f"no such person: {CANARY}")


ROUTES = {
    "/metrics": lambda: Response(b"up 1\n", "text/plain; version=1"),
    "/health/ready": lambda: Response(b"no", status=HTTPStatus.SERVICE_UNAVAILABLE),
    "/broken": broken,
}


@contextmanager
def serving(server: ObservabilityServer) -> Iterator[httpx.Client]:
    server.start()
    try:
        with httpx.Client(
            base_url=f"http://127.0.0.1:{server.port}", trust_env=False, timeout=30
        ) as client:
            yield client
    finally:
        server.stop()


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with serving(ObservabilityServer("127.0.0.1", 0, ROUTES)) as client:
        yield client


def raw(client: httpx.Client) -> socket.socket:
    return socket.create_connection((client.base_url.host, client.base_url.port or 0), timeout=30)


def received(connection: socket.socket) -> bytes:
    parts = []
    while part := connection.recv(65_536):
        parts.append(part)
    return b"".join(parts)


def test_a_route_answers_with_its_body_status_and_type(client: httpx.Client) -> None:
    answer = client.get("/metrics?name=up")
    assert (answer.status_code, answer.text) == (200, "up 1\n")
    assert answer.headers["content-type"] == "text/plain; version=1"
    assert client.get("/health/ready").status_code == 503


@pytest.mark.parametrize("path", ["/", "/metrics/", "/health", "//metrics", "/METRICS"])
def test_no_other_path_exists(client: httpx.Client, path: str) -> None:
    assert client.get(path).status_code == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS"])
def test_nothing_but_get_is_answered(client: httpx.Client, method: str) -> None:
    answer = client.request(method, "/metrics")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET")


@pytest.mark.parametrize(
    "head", [b"GET /metrics\r\n\r\n", b"nothing\r\n\r\n", b"GET /metrics SMTP/1.1\r\n\r\n"]
)
def test_what_is_not_http_is_refused(client: httpx.Client, head: bytes) -> None:
    with raw(client) as connection:
        connection.sendall(head)
        assert received(connection).startswith(b"HTTP/1.1 400 ")


def test_a_head_that_is_too_large_is_not_read_to_its_end(client: httpx.Client) -> None:
    with raw(client) as connection, pytest.raises(OSError):  # noqa: PT011, PT012  # closed or reset
        connection.sendall(b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 2 * MOST_HEAD_BYTES)
        if not received(connection):
            raise ConnectionResetError
    assert client.get("/metrics").status_code == 200


def test_slow_callers_do_not_keep_others_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "REQUEST_SECONDS", 0.2)
    with serving(ObservabilityServer("127.0.0.1", 0, ROUTES)) as client:
        slow = [raw(client) for _ in range(2 * THREADS)]
        for connection in slow:
            connection.sendall(b"GET /met")
        assert client.get("/metrics").status_code == 200
        for connection in slow:
            assert received(connection) == b""
            connection.close()


def test_a_route_that_fails_shows_nothing_of_its_error(
    client: httpx.Client, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = client.get("/broken")
    assert (answer.status_code, answer.text) == (500, "Internal Server Error\n")
    written = capsys.readouterr()
    assert "observability_route_failed" in written.out + written.err
    assert CANARY not in written.out + written.err


def test_a_taken_port_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CannotListen) as refused:
            ObservabilityServer("127.0.0.1", port, ROUTES).start()
    assert str(refused.value) == (
        f"Cannot listen on 127.0.0.1, port {port} (Address already in use):"
        " choose another METRICS_PORT or METRICS_HOST."
    )


def test_an_address_that_is_not_ours_is_one_sentence() -> None:
    with pytest.raises(CannotListen, match=r"Cannot listen on no\.such\.host\.invalid, port 9100"):
        ObservabilityServer("no.such.host.invalid", 9100, ROUTES).start()


def test_a_successor_takes_the_port_once_it_is_free() -> None:
    port = free_port()
    predecessor = ObservabilityServer("127.0.0.1", port, ROUTES)
    successor = ObservabilityServer("127.0.0.1", port, {"/new": ROUTES["/metrics"]})
    predecessor.start()
    successor.start_when_free()
    predecessor.stop()
    try:
        url = f"http://127.0.0.1:{port}/new"

        def answers() -> bool:
            try:
                return httpx.get(url, trust_env=False).status_code == 200
            except httpx.TransportError:
                return False

        until(answers)
    finally:
        successor.stop()


def test_a_stopped_server_frees_its_port() -> None:
    server = ObservabilityServer("127.0.0.1", 0, ROUTES)
    with serving(server) as client:
        assert client.get("/metrics").status_code == 200
        port = server.port
    with socket.create_server(("127.0.0.1", port)):
        pass
