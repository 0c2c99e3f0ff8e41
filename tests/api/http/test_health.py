"""What probes learn about this process."""

import asyncio
from datetime import timedelta
from threading import Event

import pytest
from starlette.requests import Request
from structlog.testing import capture_logs

from kratos_sync.api.http.app import Health
from kratos_sync.application.ports.event_bus import LedgerUnavailable
from tests.api.http.client import Api
from tests.waiting import DEADLINE_SECONDS


class Up:
    name = "database"

    def check(self) -> None:
        pass


class Down:
    def __init__(self, name: str = "database") -> None:
        self.name = name

    def check(self) -> None:
        raise ConnectionError("postgresql://kratos:secret@10.0.0.7/app refused")


class Hanging:
    name = "database"

    def __init__(self) -> None:
        self.release = Event()
        self.calls = 0

    def check(self) -> None:
        self.calls += 1
        assert self.release.wait(DEADLINE_SECONDS)


def test_a_process_that_answers_is_alive_whatever_is_down() -> None:
    answer = Api(checks=[Down()]).request("GET", "/health/live")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize("checks", [[], [Up()], [Up(), Up()]])
def test_it_is_ready_when_all_it_needs_is_there(checks: list[Up]) -> None:
    answer = Api(checks=checks).request("GET", "/health/ready")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_a_check_that_fails_is_named_without_its_error() -> None:
    api = Api(checks=[Up(), Down("database"), Down("archive")])
    with capture_logs() as logs:
        answer = api.request("GET", "/health/ready")
    assert answer.status_code == 503
    assert answer.json() == {"status": "unavailable", "down": ["database", "archive"]}
    assert sorted((line["check"], line["error"]) for line in logs) == [
        ("archive", "ConnectionError"),
        ("database", "ConnectionError"),
    ]
    assert "secret" not in str(logs)


def test_a_reason_in_our_own_words_is_shown() -> None:
    class Refused(Down):
        def check(self) -> None:
            raise LedgerUnavailable("PostgreSQL cannot be used: it wants a password") from (
                ConnectionError("postgresql://kratos:secret@10.0.0.7/app refused")
            )

    api = Api(checks=[Refused("database"), Down("archive")])
    with capture_logs() as logs:
        answer = api.request("GET", "/health/ready")
    assert answer.json() == {
        "status": "unavailable",
        "down": ["database", "archive"],
        "reasons": {"database": "PostgreSQL cannot be used: it wants a password"},
    }
    assert "it wants a password" in str(logs)
    assert "secret" not in str(logs)


def test_a_check_that_hangs_is_down_and_is_not_started_again() -> None:
    hanging = Hanging()
    health = Health([hanging], timeout=timedelta(milliseconds=5))
    request = Request({"type": "http"})

    async def probe() -> list[int]:
        answers = [(await health.ready(request)).status_code for _ in range(3)]
        hanging.release.set()
        again = Health([hanging])
        return [*answers, (await again.ready(request)).status_code]

    assert asyncio.run(probe()) == [503, 503, 503, 200]
    assert hanging.calls == 2
