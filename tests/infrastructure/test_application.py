"""Loading somebody's application, and refusing a wrong one in a sentence."""

import sys
from collections.abc import Iterator
from functools import partial
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from textwrap import dedent
from typing import Any, Protocol

import pytest
from pydantic_settings import BaseSettings

from kratos_sync import Application, Consumer, IdentityRegistered, KratosSession, serve
from kratos_sync.application.application import InvalidApplication
from kratos_sync.infrastructure import application as loading
from kratos_sync.infrastructure.application import (
    adapters_of,
    application_path,
    load_application,
    subscriptions_with,
)


class Mail(Protocol):
    def send(self, to: str) -> None: ...


class SmtpMail:
    def __init__(self, host: str) -> None:
        self.host = host

    def send(self, to: str) -> None:
        raise NotImplementedError


class AcmeSettings(BaseSettings):
    smtp_host: str


class SendWelcomeEmail(Consumer[IdentityRegistered]):
    name = "SendWelcomeEmail"

    def __init__(self, mail: Mail) -> None:
        self.mail = mail

    def consume(self, event: IdentityRegistered) -> None:
        raise NotImplementedError


def smtp(settings: AcmeSettings) -> SmtpMail:
    return SmtpMail(settings.smtp_host)


def nothing(settings: AcmeSettings) -> SmtpMail:
    raise ConnectionError(f"no {settings.smtp_host} here")


app = Application(
    subscriptions={IdentityRegistered: [SendWelcomeEmail]},
    adapters=[serve(Mail).by(smtp)],
    settings=AcmeSettings,
)
HERE = f"{__name__}:app"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with a module of somebody's in it that can be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("acme_")]:
        del sys.modules[name]


def loaded(path: str | None) -> Application[Any, Any] | None:
    return load_application(application_path(path))


def refusal(path: str | None) -> str:
    with pytest.raises(InvalidApplication) as refused:
        loaded(path)
    return str(refused.value)


def test_the_application_is_the_object_that_is_named() -> None:
    assert loaded(HERE) is app


def test_without_a_name_there_is_none() -> None:
    assert loaded(None) is None


def test_an_installed_application_needs_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = [EntryPoint("acme", HERE, loading.GROUP)]
    monkeypatch.setattr(loading, "entry_points", lambda group: EntryPoints(installed))

    assert loaded(None) is app


def test_of_several_that_are_installed_one_has_to_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = [EntryPoint(name, f"{name}:app", loading.GROUP) for name in ("zeta", "acme")]
    monkeypatch.setattr(loading, "entry_points", lambda group: EntryPoints(installed))

    assert refusal(None) == (
        "several are installed: set KRATOS_SYNC_APP to one of acme:app, zeta:app"
    )


@pytest.mark.parametrize(
    ("module", "path", "sentence"),
    [
        ("", "acme_none:app", "ModuleNotFoundError: No module named 'acme_none'"),
        ("import nonsense", "acme_one:app", "ModuleNotFoundError: No module named 'nonsense'"),
        ("app = None", "acme_one:other", "module 'acme_one' has no attribute 'other'"),
        ("app = None", "acme_one:app", "acme_one:app is no kratos_sync.Application"),
        ("raise ValueError('bad')", "acme_one:app", "cannot be imported: ValueError: bad"),
        ("app = None", "acme_one", "'acme_one' is no module:attribute, such as acme_sync:app"),
    ],
)
def test_what_cannot_be_loaded_is_refused(
    folder: Path, module: str, path: str, sentence: str
) -> None:
    (folder / "acme_one.py").write_text(dedent(module))

    assert sentence in refusal(path)


def test_our_own_consumers_stay_subscribed() -> None:
    subscriptions = subscriptions_with(app)

    assert subscriptions.consumers_of("identity.registered") == (
        "CountRegistrations",
        "SendWelcomeEmail",
    )
    assert "SyncKratosIdentity" in subscriptions.consumers


def test_adapters_are_made_from_the_settings_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    monkeypatch.setenv("SMTP_HOST", "mail.acme.example")

    mail = adapters_of(app)[Mail]

    assert isinstance(mail, SmtpMail)
    assert mail.host == "mail.acme.example"


def test_they_are_read_from_dot_env_beside_those_of_the_service(folder: Path) -> None:
    (folder / ".env").write_text("SMTP_HOST=mail.acme.example\nDATABASE_URL=postgresql://x/y\n")

    mail = adapters_of(app)[Mail]

    assert isinstance(mail, SmtpMail)
    assert mail.host == "mail.acme.example"


def test_dot_env_takes_nothing_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    monkeypatch.setenv("LOVELACE", "lovelace")
    (folder / ".env").write_text("SMTP_HOST=${LOVELACE}.evil.example\n")

    mail = adapters_of(app)[Mail]

    assert isinstance(mail, SmtpMail)
    assert mail.host == "${LOVELACE}.evil.example"


def test_an_adapter_that_cannot_be_made_is_refused(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    monkeypatch.setenv("SMTP_HOST", "mail")
    broken = Application(
        subscriptions={}, adapters=[serve(Mail).by(nothing)], settings=AcmeSettings
    )

    with pytest.raises(InvalidApplication) as refused:
        adapters_of(broken)

    assert str(refused.value) == (
        "its adapter of Mail cannot be made: ConnectionError: no mail here"
    )


NO_TABLE = "its subscriptions are no mapping of events to lists of consumers"
NO_SETTINGS = "its settings are no subclass of pydantic_settings.BaseSettings"


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"subscriptions": [SendWelcomeEmail]}, NO_TABLE),
        ({"subscriptions": {IdentityRegistered: SendWelcomeEmail}}, NO_TABLE),
        ({"subscriptions": {IdentityRegistered: "SendWelcomeEmail"}}, NO_TABLE),
        ({"adapters": {Mail: smtp}}, "its adapters are no list of serve(port).by(make)"),
        ({"adapters": serve(Mail).by(smtp)}, "its adapters are no list of serve(port).by(make)"),
        (
            {"adapters_in_transaction": [serve(Mail)]},
            "its adapters_in_transaction are no list of serve(port).by(make)",
        ),
        (
            {"adapters_in_transaction": [serve(Mail).by(None)]},  # type: ignore[arg-type]  # wrong
            "its adapters_in_transaction are no list of serve(port).by(make)",
        ),
        ({"settings": dict}, NO_SETTINGS),
        ({"settings": "AcmeSettings"}, NO_SETTINGS),
        (
            {"migrations": Path("migrations")},
            "its migrations are no package:folder, such as acme_sync:migrations",
        ),
        (
            {"migrations": "acme_none:migrations"},
            "its migrations are in no package acme_none",
        ),
        (
            {"migrations": "public:migrations"},
            "the schema of its migrations cannot be named 'public'",
        ),
        (
            {"parse_handler": "a handler"},
            "its parse_handler makes no KratosIdentityParseHandler",
        ),
    ],
)
def test_a_field_that_cannot_be_used_is_refused(
    monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], sentence: str
) -> None:
    wrong = Application(**{"subscriptions": {}, **fields})
    monkeypatch.setattr(sys.modules[__name__], "app", wrong)

    assert refusal(HERE) == sentence


def test_migrations_of_a_package_that_can_be_imported_are_accepted(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    (folder / "acme_two" / "migrations").mkdir(parents=True)
    (folder / "acme_two" / "__init__.py").touch()
    right = Application(subscriptions={}, migrations="acme_two:migrations")
    monkeypatch.setattr(sys.modules[__name__], "app", right)

    assert loaded(HERE) is right


async def asynchronous_scopes(session: KratosSession) -> list[str]:
    raise NotImplementedError


@pytest.mark.parametrize(
    "scopes",
    [["admin"], "admin", None, lambda: ["admin"], asynchronous_scopes],
    ids=["a list", "a text", "none", "of nothing", "a coroutine function"],
)
def test_session_scopes_that_are_no_function_of_a_session_are_refused(
    monkeypatch: pytest.MonkeyPatch, scopes: Any
) -> None:
    wrong = Application(subscriptions={}, session_scopes=scopes)
    monkeypatch.setattr(sys.modules[__name__], "app", wrong)

    assert refusal(HERE) == "its session_scopes is no function of a session"


@pytest.mark.parametrize(
    "scopes",
    [lambda session: [session.aal], partial(getattr, None), tuple, str.split],
    ids=["a function", "a partial", "a class", "a method in C"],
)
def test_session_scopes_may_be_anything_that_takes_a_session(
    monkeypatch: pytest.MonkeyPatch, scopes: Any
) -> None:
    right = Application(subscriptions={}, session_scopes=scopes)
    monkeypatch.setattr(sys.modules[__name__], "app", right)

    assert loaded(HERE) is right
