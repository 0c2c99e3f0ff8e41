"""Connections to a broker are made in one place: each follows a failover, and verifies by TLS."""

import re
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"


@pytest.mark.parametrize(
    ("makes", "door"),
    [
        (r"\b(Redis|Sentinel|StrictRedis)\(|\.from_(url|pool)\(", "redis_clients.py"),
        (r"\b(URL|Connection)Parameters\(", "rabbitmq_hosts.py"),
    ],
)
def test_only_one_module_says_how_to_connect(makes: str, door: str) -> None:
    found = {
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*.py")
        if re.search(makes, path.read_text())
    }
    assert found == {f"infrastructure/bus/{door}"}
