"""When a `parse` hook's own code fails: nobody waits for long, and closed or open is a choice."""

import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from kratos_sync.api.http.webhooks.parse_identity import (
    IdentityChanges,
    KratosIdentityParseHandler,
    ParsedIdentity,
    RefuseIdentity,
)
from kratos_sync.api.http.webhooks.rejections import DetailedMessage
from tests.api.http.client import PARSE, Api, config, message, recorded_parse_calls
from tests.waiting import DEADLINE_SECONDS

REGISTRATION = recorded_parse_calls()[0]
SORRY = (None, 503, "This could not be checked just now. Please try again in a moment.")
SHORT = timedelta(milliseconds=20)


class Failing(KratosIdentityParseHandler):
    """Quotes people in its errors."""

    def parse(self, identity: ParsedIdentity) -> IdentityChanges:
        raise LookupError(identity.traits["email"])


class FailingLater(KratosIdentityParseHandler):
    """Quotes people in its errors, from the event loop."""

    async def parse(self, identity: ParsedIdentity) -> IdentityChanges:
        raise LookupError(identity.traits["email"])


class Answering(KratosIdentityParseHandler):
    """Answers whatever a test wants."""

    def __init__(self, answer: Any, **options: Any) -> None:
        super().__init__(config(), **options)
        self.answer = answer

    def parse(self, identity: ParsedIdentity) -> IdentityChanges:
        return self.answer  # type: ignore[no-any-return]


class Hanging(KratosIdentityParseHandler):
    """Comes back when it is let go."""

    def __init__(self, **options: Any) -> None:
        super().__init__(config(), budget=SHORT, concurrency=1, **options)
        self.go = threading.Event()
        self.calls = 0

    def parse(self, identity: ParsedIdentity) -> None:
        self.calls += 1
        self.go.wait(DEADLINE_SECONDS)


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    handler = Hanging()
    yield handler
    handler.go.set()


@pytest.mark.parametrize("kind", [Failing, FailingLater])
def test_an_override_that_raises_refuses_with_a_message_for_the_person(
    kind: type[KratosIdentityParseHandler],
) -> None:
    with capture_logs() as logs:
        answer = Api(parse=kind(config())).post(PARSE, REGISTRATION.content, REGISTRATION.headers)
    assert answer.status_code == 422
    assert message(answer) == SORRY
    assert "@" not in str(logs)
    (line,) = logs
    assert (line["event"], line["log_level"]) == ("parse_failed_closed", "error")
    assert (line["hook"], line["reason"]) == ("registration.after.password", "parse raised")
    assert line["error"] == "builtins.LookupError"
    assert line["places"][-1].endswith(" parse")


def test_an_error_that_is_its_own_cause_is_a_failure_like_any_other() -> None:
    class Kind(KratosIdentityParseHandler):
        def parse(self, identity: ParsedIdentity) -> IdentityChanges:
            error = LookupError()
            raise error from error

    with capture_logs() as logs:
        answer = Api(parse=Kind(config())).post(PARSE, REGISTRATION.content)
    assert message(answer) == SORRY
    assert (logs[0]["error"], logs[0]["causes"]) == ("builtins.LookupError", [])


def test_an_application_may_choose_to_let_people_in() -> None:
    with capture_logs() as logs:
        answer = Api(parse=Failing(config(), on_failure="let_in")).post(PARSE, REGISTRATION.content)
    assert (answer.status_code, answer.json()) == (200, {})
    assert [line["event"] for line in logs] == ["parse_failed_open"]
    assert "@" not in str(logs)


def test_an_application_may_replace_the_failure_message() -> None:
    class Kind(Failing):
        failure_message = DetailedMessage(17, "Versuchen Sie es bitte gleich noch einmal.")

    answer = Api(parse=Kind(config())).post(PARSE, REGISTRATION.content)
    assert message(answer) == (None, 17, "Versuchen Sie es bitte gleich noch einmal.")


def test_a_parse_that_takes_too_long_is_abandoned(hanging: Hanging) -> None:
    with capture_logs() as logs:
        answer = Api(parse=hanging).post(PARSE, REGISTRATION.content)
    assert message(answer) == SORRY
    assert logs[0]["reason"] == "the call took too long"


def test_when_all_threads_hang_the_choice_applies_at_once(hanging: Hanging) -> None:
    api = Api(parse=hanging)
    with capture_logs() as logs:
        answers = [api.post(PARSE, REGISTRATION.content) for _ in range(3)]
    assert [message(answer) for answer in answers] == [SORRY] * 3
    assert hanging.calls == 1
    assert [line["reason"] for line in logs[1:]] == ["all calls hang"] * 2


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"email": "ada@example.org"}, "email is no field that Kratos takes"),
        ({"ada@example.org": 1}, "? is no field that Kratos takes"),
        ({1: 1}, "? is no field that Kratos takes"),
        (["ada@example.org"], " is not a mapping"),
        ({"external_id": 4711}, "external_id is not a string"),
        ({"external_id": ""}, "external_id is empty, which Kratos ignores"),
        ({"metadata_public": float("nan")}, "metadata_public is not JSON"),
        ({"metadata_admin": {"at": timedelta()}}, "metadata_admin is not JSON"),
        ({"metadata_admin": {"name": "A\x00da"}}, "metadata_admin has a character that cannot"),
        ({"metadata_admin": {"name": "A\ud800da"}}, "metadata_admin has a character that cannot"),
        ({"traits": "ada@example.org"}, "traits is not an object"),
        ({"traits": None}, "traits is not an object"),
        ({"state": "ada@example.org"}, "state is neither active nor inactive"),
        ({"state": True}, "state is neither active nor inactive"),
        ({"schema_id": None}, "schema_id is not a string"),
        ({"verifiable_addresses": {}}, "verifiable_addresses is not a list"),
        ({"verifiable_addresses": []}, "verifiable_addresses is empty, which Kratos ignores"),
        ({"recovery_addresses": ["ada@example.org"]}, "recovery_addresses[0] is not an object"),
        ({"recovery_addresses": [{"via": "email"}]}, "recovery_addresses[0].value is not a str"),
        ({"metadata_public": "x" * 4_200_000}, " is too large"),
    ],
)
def test_an_answer_that_kratos_would_not_take_as_meant_is_a_failure(
    answer: Any, reason: str
) -> None:
    with capture_logs() as logs:
        said = Api(parse=Answering(answer)).post(PARSE, REGISTRATION.content)
    assert said.status_code == 422
    assert message(said) == SORRY
    (line,) = logs
    assert line["event"] == "parse_failed_closed"
    assert line["reason"].startswith(reason)
    assert "@" not in str(line)


def test_a_circle_in_an_answer_is_a_failure_too() -> None:
    circle: list[Any] = []
    circle.append(circle)
    assert (
        Api(parse=Answering({"metadata_public": circle})).post(PARSE, REGISTRATION.content).json()
        == Api(parse=Failing(config())).post(PARSE, REGISTRATION.content).json()
    )


@pytest.mark.parametrize(
    "message_to_send",
    [
        DetailedMessage(4, "no", context={"at": timedelta()}),  # type: ignore[dict-item]
        DetailedMessage("4", "no"),  # type: ignore[arg-type]
        DetailedMessage(4, "n\ud800o"),
    ],
)
def test_a_refusal_that_cannot_be_sent_refuses_even_if_failures_let_people_in(
    message_to_send: DetailedMessage,
) -> None:
    class Choosy(KratosIdentityParseHandler):
        def parse(self, identity: ParsedIdentity) -> None:
            raise RefuseIdentity.at("#/traits/email", message_to_send)

    with capture_logs() as logs:
        answer = Api(parse=Choosy(config(), on_failure="let_in")).post(PARSE, REGISTRATION.content)
    assert answer.status_code == 422
    assert message(answer) == SORRY
    assert [line["event"] for line in logs] == ["parse_refusal_unreadable"]


@pytest.mark.parametrize("seconds", [0, -1, 20, 30])
def test_kratos_must_still_be_there_when_the_budget_is_over(seconds: int) -> None:
    with pytest.raises(ValueError, match="less than 30 s"):
        KratosIdentityParseHandler(config(), budget=timedelta(seconds=seconds))


def test_the_time_for_the_body_counts() -> None:
    within = config(timeout=timedelta(seconds=1))
    KratosIdentityParseHandler(within, budget=timedelta(seconds=28))
    with pytest.raises(ValueError, match="less than 30 s"):
        KratosIdentityParseHandler(within, budget=timedelta(seconds=29))


def test_a_choice_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="refuse or let_in"):
        KratosIdentityParseHandler(config(), on_failure="open")  # type: ignore[arg-type]
