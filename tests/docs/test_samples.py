"""The samples of a page are run in their order, and their tests too."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from http import HTTPStatus
from typing import Any, Final
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import Engine, text

from kratos_sync import IdentityRegistered
from tests.docs.pages import blocks

PAGES: Final = sorted({block.page for block in blocks("python")})


def run(page: str) -> dict[str, Any]:
    """What the samples of a page define."""
    names: dict[str, Any] = {"__name__": f"samples of {page}"}
    for block in blocks("python"):
        if block.page == page:
            code = compile("\n" * (block.line - 1) + block.text, page, "exec", dont_inherit=True)
            exec(code, names)
    return names


@pytest.mark.parametrize("page", PAGES)
def test_the_samples_of_a_page_run_and_their_tests_pass(page: str) -> None:
    defined = run(page)
    assert defined.keys() > {"__name__"}
    tests: list[Callable[[], None]] = [
        value for name, value in defined.items() if name.startswith("test_")
    ]
    # One that fails raises.
    assert [test() for test in tests] == [None] * len(tests)


def test_pages_with_tests_of_their_own() -> None:
    assert {page for page in PAGES if any(name.startswith("test_") for name in run(page))} >= {
        "README.md",
        "docs/parse-hooks.md",
    }


def test_a_consumer_can_ask_for_an_event_later() -> None:
    sample = run("docs/consumers.md")
    night = datetime(2026, 11, 23, 3, tzinfo=UTC)
    changed = sample["IdentityTraitsChanged"](uuid4(), night, uuid4(), 2, ())

    with pytest.raises(sample["RetryLater"]) as raised:
        sample["UpdateCrm"]().consume(changed)

    assert raised.value.delay == timedelta(hours=1)


def test_a_parse_handler_may_let_people_in() -> None:
    handler = run("docs/parse-hooks.md")["parse_handler"]
    assert isinstance(handler, partial)
    assert handler.keywords == {"on_failure": "let_in"}


def test_nobody_without_a_session_gets_at_the_people() -> None:
    app = run("docs/sessions.md")["app"]

    async def ask() -> int:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
            return (await client.get("/people")).status_code

    assert asyncio.run(ask()) == HTTPStatus.FORBIDDEN


class RecordingSubscribers:
    def __init__(self) -> None:
        self.put_emails: list[str] = []

    def put(self, identity_id: UUID, email: str) -> None:
        self.put_emails.append(email)


@pytest.mark.parametrize(
    ("traits", "written"), [({"email": "ada@example.org"}, ["ada@example.org"]), ({}, [])]
)
def test_a_person_without_an_address_is_no_subscriber(
    traits: dict[str, str], written: list[str]
) -> None:
    sample, subscribers = run("docs/consumers.md"), RecordingSubscribers()
    now = datetime.now(UTC)

    sample["KeepSubscribers"](subscribers).consume(
        IdentityRegistered(uuid4(), now, uuid4(), 1, traits, now)
    )

    assert subscribers.put_emails == written


def test_a_subscriber_may_be_put_again(engine: Engine) -> None:
    sample, ada = run("docs/consumers.md"), uuid4()
    with engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA acme_sync"))
        table = "CREATE TABLE acme_sync.subscribers (id uuid PRIMARY KEY, email text)"
        connection.execute(text(table))
        subscribers = sample["PostgresSubscribers"](connection)

        subscribers.put(ada, "ada@example.org")
        subscribers.put(ada, "countess@example.org")

        rows = connection.execute(text("SELECT id, email FROM acme_sync.subscribers")).all()
        assert rows == [(ada, "countess@example.org")]
