"""`POST /kratos/parse-identity`: having a say before Kratos stores."""

import json
from typing import Any
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from kratos_sync.api.http.webhooks.parse_identity import (
    IdentityChanges,
    KratosIdentityParseHandler,
    ParsedIdentity,
    RefuseIdentity,
)
from kratos_sync.api.http.webhooks.rejections import DetailedMessage, ErrorMessage
from tests.api.http.client import (
    ADA,
    PARSE,
    Api,
    Recorded,
    config,
    message,
    recorded_parse_calls,
    recorded_webhooks,
)

REGISTRATION = recorded_parse_calls()[0]


class Looking(KratosIdentityParseHandler):
    """Keeps what it was shown."""

    def __init__(self) -> None:
        super().__init__(config())
        self.seen: list[ParsedIdentity] = []

    def parse(self, identity: ParsedIdentity) -> IdentityChanges | None:
        self.seen.append(identity)
        return None


class Filling(KratosIdentityParseHandler):
    """Gives customers a number."""

    def parse(self, identity: ParsedIdentity) -> IdentityChanges:
        return {"metadata_public": {"customer": 17}, "external_id": "crm-4711"}


class Choosy(KratosIdentityParseHandler):
    """Lets nobody in from example.org."""

    def parse(self, identity: ParsedIdentity) -> None:
        text, context = "this domain is not allowed", {"domain": "example.org"}
        if str(identity.traits["email"]).endswith("example.org"):
            raise RefuseIdentity.at("#/traits/email", DetailedMessage(4, text, context=context))


@pytest.mark.parametrize("call", recorded_parse_calls(), ids=lambda call: call.name)
def test_a_registration_without_id_and_times_goes_through_unchanged(call: Recorded) -> None:
    api = Api()
    answer = api.post(PARSE, call.content, call.headers)
    assert (answer.status_code, answer.json()) == (200, {})
    assert api.bus.attempts == 0


def test_an_override_sees_the_identity_as_it_would_be_stored() -> None:
    handler = Looking()
    Api(parse=handler).post(PARSE, REGISTRATION.content)
    (seen,) = handler.seen
    assert seen.is_registration
    assert (seen.id, seen.schema_id, seen.state, seen.external_id) == (
        None,
        "person",
        "active",
        None,
    )
    assert seen.traits == REGISTRATION.body["identity"]["traits"]
    assert seen.document == REGISTRATION.body["identity"]
    assert seen.metadata_public is None
    assert "@" not in repr(seen)


def test_in_settings_the_identity_has_its_id() -> None:
    handler = Looking()
    Api(parse=handler).post(PARSE, recorded_webhooks()[3].content)
    assert handler.seen[0].id == ADA
    assert not handler.seen[0].is_registration


@pytest.mark.parametrize("identity", [{}, {"id": ""}, {"id": None}, {"id": str(UUID(int=0))}])
def test_no_id_in_any_form_is_a_registration(identity: dict[str, Any]) -> None:
    handler = Looking()
    assert _ask(handler, {"traits": None, **identity}).status_code == 200
    assert handler.seen[0].is_registration
    assert handler.seen[0].traits == {}


def test_an_override_may_change_what_is_stored() -> None:
    answer = Api(parse=Filling(config())).post(PARSE, REGISTRATION.content)
    assert answer.status_code == 200
    assert answer.json() == {
        "identity": {"metadata_public": {"customer": 17}, "external_id": "crm-4711"}
    }


def test_an_override_may_refuse_at_a_field() -> None:
    answer = Api(parse=Choosy(config())).post(PARSE, REGISTRATION.content)
    assert answer.status_code == 422
    assert answer.json() == {
        "messages": [
            {
                "instance_ptr": "#/traits/email",
                "messages": [
                    {
                        "id": 4,
                        "text": "this domain is not allowed",
                        "type": "error",
                        "context": {"domain": "example.org"},
                    }
                ],
            }
        ]
    }


def test_the_text_of_a_refusal_is_not_logged() -> None:
    with capture_logs() as logs:
        Api(parse=Choosy(config())).post(PARSE, REGISTRATION.content, REGISTRATION.headers)
    assert logs == [
        {
            "event": "identity_refused",
            "log_level": "info",
            "hook": "registration.after.password",
            "pointers": ["#/traits/email"],
        }
    ]


def test_what_is_changed_is_logged_by_field() -> None:
    with capture_logs() as logs:
        Api(parse=Filling(config())).post(PARSE, REGISTRATION.content)
    assert [line["changed"] for line in logs] == [["external_id", "metadata_public"]]


@pytest.mark.parametrize("messages", [[], [ErrorMessage("#/traits/email", [])]])
def test_a_refusal_needs_a_message_or_kratos_would_not_understand_it(
    messages: list[ErrorMessage],
) -> None:
    with pytest.raises(ValueError, match="needs a message"):
        RefuseIdentity(messages)


def test_no_identity_is_refused_here_too() -> None:
    assert message(Api().post(PARSE, b"{}")) == (None, 1, "identity is null")
    assert message(Api().post(PARSE, b'{"identity": 1}'))[1] == 3
    assert message(Api().post(PARSE, b'{"identity": {"id": "ada"}}'))[1] == 3


def _ask(handler: KratosIdentityParseHandler, identity: dict[str, Any]) -> Any:
    return Api(parse=handler).post(PARSE, json.dumps({"identity": identity}).encode())
