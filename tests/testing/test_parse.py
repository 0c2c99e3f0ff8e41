"""Asking a `parse` without a server, as an application's own tests do."""

import asyncio
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kratos_sync.api.http.webhooks.parse_identity import (
    DetailedMessage,
    IdentityChanges,
    KratosIdentityParseHandler,
    ParsedIdentity,
    ParseFailed,
    RefuseIdentity,
    field,
)
from kratos_sync.testing.parse import CONFIG, Refused, Stored, ask, asked


class Registrations(KratosIdentityParseHandler):
    """What an application would write."""

    async def parse(self, identity: ParsedIdentity) -> IdentityChanges | None:
        if not str(identity.traits["email"]).endswith("@example.org"):
            message = DetailedMessage(4, "this domain is not allowed")
            raise RefuseIdentity.at(field("email"), message)
        if not identity.is_registration:
            return None
        return {"traits": {**identity.traits, "team": "unknown"}, "external_id": "crm-4711"}


def test_a_registration_is_filled_in() -> None:
    answer = ask(Registrations(CONFIG), {"email": "ada@example.org"})
    assert isinstance(answer, Stored)
    assert answer.changed == {"traits", "external_id"}
    assert answer.traits == {"email": "ada@example.org", "team": "unknown"}
    assert answer.external_id == "crm-4711"
    assert answer.metadata_public is None
    assert answer.metadata_admin is None


def test_a_registration_is_refused_at_its_field() -> None:
    answer = ask(Registrations(CONFIG), {"email": "ada@example.com"})
    assert isinstance(answer, Refused)
    assert [each.text for each in answer.at("#/traits/email")] == ["this domain is not allowed"]
    assert answer.at(None) == []


def test_settings_come_with_an_id_and_with_whatever_else_a_test_gives() -> None:
    answer = ask(
        Registrations(CONFIG), {"email": "ada@example.org"}, registration=False, external_id="x"
    )
    assert isinstance(answer, Stored)
    assert (answer.changed, answer.external_id) == (frozenset(), "x")


def test_a_failure_is_shown_to_the_developer_with_its_cause() -> None:
    with pytest.raises(ParseFailed, match="parse raised") as failed:
        ask(Registrations(CONFIG, on_failure="let_in"), {})
    assert isinstance(failed.value.__cause__, KeyError)


def test_a_wrong_answer_is_shown_to_the_developer_by_field() -> None:
    class Wrong(KratosIdentityParseHandler):
        def parse(self, identity: ParsedIdentity) -> IdentityChanges:
            return {"external_id": 17}  # type: ignore[typeddict-item]

    with pytest.raises(ParseFailed, match="external_id is not a string"):
        ask(Wrong(CONFIG), {})


def test_a_coroutine_may_ask() -> None:
    async def run() -> object:
        return await asked(Registrations(CONFIG), {"email": "ada@example.com"})

    assert isinstance(asyncio.run(run()), Refused)


def test_traits_may_be_handed_back_as_they_came() -> None:
    class Same(KratosIdentityParseHandler):
        def parse(self, identity: ParsedIdentity) -> IdentityChanges:
            return {"traits": identity.traits}

    answer = ask(Same(CONFIG), {"big": 2**60 + 1})
    assert isinstance(answer, Stored)
    assert answer.traits == {"big": 2**60 + 1}


def test_the_services_own_handler_changes_nothing() -> None:
    answer = ask(KratosIdentityParseHandler(CONFIG), {"email": "ada@example.org"})
    assert isinstance(answer, Stored)
    assert answer.changed == frozenset()


@pytest.mark.parametrize(
    ("path", "pointer"),
    [
        (("email",), "#/traits/email"),
        (("name", "first"), "#/traits/name/first"),
        (("phones", 0), "#/traits/phones/0"),
        (("a/b", "c~d"), "#/traits/a~1b/c~0d"),
        (("50%", "é"), "#/traits/50%25/%C3%A9"),
    ],
)
def test_a_field_is_a_json_pointer(path: tuple[str | int, ...], pointer: str) -> None:
    assert field(*path) == pointer


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=4))
def test_kratos_reads_a_field_as_it_was_meant(path: list[str]) -> None:
    assert _as_kratos_reads(field(*path)) == ["traits", *path]


def test_a_field_without_a_name_is_none() -> None:
    with pytest.raises(ValueError, match="a field has a name"):
        field()


def _as_kratos_reads(pointer: str) -> list[str]:
    """Ory's JSONPointerToDotNotation, before it joins the names with dots."""
    items = pointer.removeprefix("#/").split("/")
    return [unquote(item.replace("~1", "/").replace("~0", "~"), errors="strict") for item in items]
