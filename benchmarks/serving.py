"""Serving rivals' applications as ours is: uvicorn, uvloop, httptools, one process."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import httpx

from benchmarks.commands import ROOT
from benchmarks.wrk import PATH
from tests.end_to_end.service import KEY
from tests.waiting import until

UVICORN = (
    *(sys.executable, "-m", "uvicorn", "--loop", "uvloop", "--http", "httptools"),
    *("--no-access-log", "--log-level", "warning"),
)


@contextmanager
def served(modules: Sequence[str], database_url: str) -> Iterator[list[str]]:
    """Give the addresses of modules of benchmarks.rivals, all served until left."""
    url = database_url.replace("postgresql://", "postgresql+psycopg://")
    environment = {"PATH": os.environ["PATH"], "DATABASE_URL": url, "API_KEY": KEY}
    ports = [_free_port() for _ in modules]
    servers = [
        subprocess.Popen(  # noqa: S603
            [*UVICORN, f"benchmarks.rivals.{module}:app", "--port", port],
            cwd=ROOT,
            env=environment,
        )
        for module, port in zip(modules, ports, strict=True)
    ]
    try:
        addresses = [f"http://127.0.0.1:{port}" for port in ports]
        until(lambda: all(map(_answers, addresses)), seconds=60)
        yield addresses
    finally:
        for server in servers:
            server.terminate()
            server.wait(60)


def _free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return str(free.getsockname()[1])


def _answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}{PATH}", trust_env=False).status_code > 0
    except httpx.TransportError:
        return False
