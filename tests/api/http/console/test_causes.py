"""A fact leads to the event because of which it was raised, and back: in pages and commands."""

import re

import pytest
from sqlalchemy import Engine, text

from kratos_sync.infrastructure.ledger.history import PostgresHistory
from tests.api.cli.invoking import kratos_sync
from tests.api.http.console.visiting import SYNC, Visitor
from tests.domain.people import ADA
from tests.end_to_end.console.lives import register
from tests.suites.reconciling import world_on_postgres

LINKS = re.compile(r"<dt>(Because of|Led to)</dt><dd>(.*?)</dd>")
EVENT = re.compile(r'href="/events/([0-9a-f-]{36})">([a-z_.]+)<')


@pytest.fixture
def events(engine: Engine) -> dict[str, list[str]]:
    """Ada was seen and then changed her traits: the ids of her events by name, oldest first."""
    register(world_on_postgres(engine))
    found = PostgresHistory(engine).of(ADA, 100)
    assert found is not None
    events: dict[str, list[str]] = {}
    for each in found.events:
        events.setdefault(each.name, []).append(str(each.id))
    return events


def links(page: str) -> dict[str, list[tuple[str, str]]]:
    return {term: EVENT.findall(there) for term, there in LINKS.findall(page)}


def test_a_fact_and_the_webhook_that_caused_it_lead_to_each_other(
    visitor: Visitor, events: dict[str, list[str]]
) -> None:
    registered, changed = events["kratos_identity.updated"]
    (fact,) = events["identity.discovered"]
    webhook = "kratos_identity.updated"
    caused = links(visitor.get(f"/events/{fact}").text)
    assert caused["Because of"] == [(registered, webhook)]
    assert links(visitor.get(f"/events/{registered}").text)["Led to"] == [
        (fact, "identity.discovered")
    ]
    (traits,) = events["identity.traits_changed"]
    assert links(visitor.get(f"/events/{traits}").text)["Because of"] == [(changed, webhook)]
    story = visitor.get(f"/identity/{ADA}").text
    assert f'from {SYNC} because of <a href="#{registered}">{webhook} of' in story
    assert f'id="{registered}"' in story


def test_a_fact_whose_cause_is_not_known_leads_nowhere(
    visitor: Visitor, engine: Engine, events: dict[str, list[str]]
) -> None:
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM kratos_sync.attempts"))
    (fact,) = events["identity.discovered"]
    assert links(visitor.get(f"/events/{fact}").text) == {}
    assert "because of" not in visitor.get(f"/identity/{ADA}").text


def test_the_command_names_the_cause_too(
    monkeypatch: pytest.MonkeyPatch, database_url: str, events: dict[str, list[str]]
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    printed = kratos_sync("history", str(ADA)).stdout
    for cause in events["kratos_identity.updated"]:
        assert f"because of kratos_identity.updated {cause}" in printed
