"""What an application says of a session, and what happens when it fails to."""

import asyncio
import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from starlette.requests import HTTPConnection
from structlog.testing import capture_logs

from kratos_sync import Application, KratosSession
from kratos_sync.api.http.sessions import (
    KratosSessionBackend,
    SessionFunctionFailed,
    session_error_response,
)
from tests.api.http.sessions.kratos_server import TOKEN, Answer, KratosServer, session

ADDRESS = "verified@example.org"
REQUEST = HTTPConnection(
    {"type": "http", "headers": [(b"x-session-token", TOKEN.encode())], "path": "/"}
)


def roles(session: KratosSession) -> list[str]:
    public = session.identity.metadata_public
    return [str(role) for role in public["roles"]] if isinstance(public, dict) else []


async def authenticated(kratos: KratosServer, **options: Any) -> tuple[list[str], str]:
    """The scopes and the name of who asks."""
    backend = KratosSessionBackend(kratos.url, cache_for=timedelta(), **options)
    try:
        found = await backend.authenticate(REQUEST)
    finally:
        await backend.aclose()
    assert found is not None
    credentials, user = found
    return list(credentials.scopes), user.display_name


def failure(kratos: KratosServer, run: Callable[..., Any], **options: Any) -> SessionFunctionFailed:
    with pytest.raises(SessionFunctionFailed) as failed:
        run(authenticated(kratos, **options))
    return failed.value


@pytest.fixture
def run() -> Iterator[Callable[..., Any]]:
    with asyncio.Runner() as runner:
        yield runner.run


def test_an_application_says_which_scopes_a_session_has(
    kratos: KratosServer, run: Callable[..., Any]
) -> None:
    application = Application(subscriptions={}, session_scopes=roles)
    identity = {**session()["identity"], "metadata_public": {"roles": ["admin", "editor"]}}
    kratos.answers = [Answer(200, json.dumps(session(identity=identity)).encode())]

    scopes, _ = run(authenticated(kratos, scopes=application.session_scopes))

    assert scopes == ["authenticated", "admin", "editor"]


def test_without_scopes_of_its_own_a_session_is_authenticated_and_no_more(
    kratos: KratosServer, run: Callable[..., Any]
) -> None:
    application = Application(subscriptions={})

    scopes, _ = run(authenticated(kratos, scopes=application.session_scopes))

    assert scopes == ["authenticated"]


def raises(session: KratosSession) -> list[str]:
    raise LookupError(f"no role for {session.identity.traits}")


def raises_midway(session: KratosSession) -> Iterator[str]:
    yield "admin"
    raises(session)


WRONG: dict[str, Callable[[KratosSession], Any]] = {
    "raises": raises,
    "raises after the first": raises_midway,
    "a text": lambda _: "admin",
    "nothing": lambda _: None,
    "numbers": lambda _: [1, 2],
    "no collection": lambda session: session.id,
}


@pytest.mark.parametrize("scopes", WRONG.values(), ids=WRONG)
def test_somebody_whose_scopes_fail_is_neither_anonymous_nor_let_in(
    kratos: KratosServer, run: Callable[..., Any], scopes: Callable[[KratosSession], Any]
) -> None:
    failed = failure(kratos, run, scopes=scopes)

    answer = session_error_response(REQUEST, failed)
    assert answer.status_code == 500
    assert json.loads(bytes(answer.body))["error"]["message"] == "something went wrong"


def test_a_name_that_fails_is_a_failure_too(kratos: KratosServer, run: Callable[..., Any]) -> None:
    assert str(failure(kratos, run, display_name=raises)) == (
        "display_name failed for this session"
    )
    assert str(failure(kratos, run, display_name=lambda _: None)) == (
        "display_name failed for this session"
    )


def test_the_log_says_where_it_failed_and_nothing_of_the_person(
    kratos: KratosServer, run: Callable[..., Any]
) -> None:
    with capture_logs() as logs:
        failed = failure(kratos, run, scopes=raises)

    line = raises.__code__.co_firstlineno + 1
    assert logs == [
        {
            "event": "session_function_failed",
            "log_level": "error",
            "function": "scopes",
            "error": "LookupError",
            "at": f"test_scopes.py:{line}",
        }
    ]
    assert ADDRESS in json.dumps(session())
    assert (failed.__cause__, failed.__context__) == (None, None)
    assert ADDRESS not in str(failed)
