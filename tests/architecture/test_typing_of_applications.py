"""A type checker accepts a right application, and rejects an adapter that does not fit its port."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.api.cli.invoking import kratos_sync

APPLICATION = """
from typing import Protocol

from pydantic_settings import BaseSettings
from sqlalchemy import text

from kratos_sync import (
    Application, Consumer, IdentityDeleted, IdentityRegistered, Transaction, serve
)


class Mail(Protocol):
    def send(self, *, to: str, idempotency_key: str) -> None: ...


class Subscribers(Protocol):
    def remove(self, identity_id: object) -> None: ...


class AcmeSettings(BaseSettings):
    smtp_host: str


class SmtpMail:
    def __init__(self, host: str) -> None: ...

    @classmethod
    def from_settings(cls, settings: AcmeSettings) -> "SmtpMail":
        return cls(settings.smtp_host)

    def send(self, *, to: str, idempotency_key: str) -> None: ...


class PostgresSubscribers:
    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def remove(self, identity_id: object) -> None:
        self._transaction.execute(text("DELETE FROM s WHERE id = :id"), {"id": identity_id})


class SendWelcomeEmail(Consumer[IdentityRegistered]):
    name, batch_size = "SendWelcomeEmail", 1

    def __init__(self, mail: Mail) -> None:
        self._mail = mail

    def consume(self, event: IdentityRegistered) -> None:
        self._mail.send(to=str(event.traits.get("email")), idempotency_key=str(event.id))


class KeepSubscribers(Consumer[IdentityRegistered | IdentityDeleted]):
    name = "KeepSubscribers"

    def __init__(self, subscribers: Subscribers) -> None:
        self._subscribers = subscribers

    def consume(self, event: IdentityRegistered | IdentityDeleted) -> None:
        match event:
            case IdentityRegistered():
                print(event.traits)
            case IdentityDeleted():
                self._subscribers.remove(event.identity_id)


app = Application(
    subscriptions={
        IdentityRegistered: [SendWelcomeEmail, KeepSubscribers],
        IdentityDeleted: [KeepSubscribers],
    },
    adapters=[serve(Mail).by(SmtpMail.from_settings)],
    adapters_in_transaction=[serve(Subscribers).by(PostgresSubscribers)],
    settings=AcmeSettings,
    migrations="acme_sync:migrations",
)
"""
RIGHT = "serve(Mail).by(SmtpMail.from_settings)"
MINIMAL = """
from kratos_sync import Application, Consumer, IdentityDeleted


class Print(Consumer[IdentityDeleted]):
    name = "Print"

    def consume(self, event: IdentityDeleted) -> None:
        print(event)


app = Application(subscriptions={IdentityDeleted: [Print]})
"""


SCOPES = """
from collections.abc import Iterable

from kratos_sync import Application, KratosSession
from kratos_sync.api.http.sessions import KratosSessionBackend


def roles(session: KratosSession) -> Iterable[str]:
    return [session.aal or ""]


app = Application(subscriptions={}, session_scopes=roles)
none = Application(subscriptions={})
KratosSessionBackend("http://kratos", scopes=app.session_scopes)
KratosSessionBackend("http://kratos", scopes=none.session_scopes)
"""
TRAITS = """
from typing import NotRequired, TypedDict

from kratos_sync import (
    Consumer, Identity, IdentityDiscovered, IdentityLoggedIn, IdentityRegistered, traits_of
)


class Traits(TypedDict):
    email: str
    phone: NotRequired[str]


class SendWelcomeEmail(Consumer[IdentityRegistered | IdentityDiscovered]):
    name = "SendWelcomeEmail"

    def consume(self, event: IdentityRegistered | IdentityDiscovered) -> None:
        traits = traits_of(event, Traits)
        address: str = traits["email"]
        phone: str | None = traits.get("phone")
        print(address, phone)


def name_of(identity: Identity, event: IdentityLoggedIn) -> str:
    return traits_of(identity, Traits)["email"]
"""
# The right one, and what is wrong with it once a part is replaced.
OTHERS = {
    "scopes": (SCOPES, "", "", ""),
    "scopes that are numbers": (
        SCOPES,
        'Iterable[str]:\n    return [session.aal or ""]',
        "Iterable[int]:\n    return [1]",
        'Argument "session_scopes" to "Application" has incompatible type',
    ),
    "scopes of nothing": (
        SCOPES,
        "session_scopes=roles",
        "session_scopes=lambda: []",
        "Cannot infer type of lambda",
    ),
    "traits": (TRAITS, "", "", ""),
    "a trait that is misspelt": (
        TRAITS,
        'traits["email"]',
        'traits["emial"]',
        'TypedDict "Traits" has no key "emial"',
    ),
    "a trait that may be missing": (
        TRAITS,
        "phone: str | None = traits",
        "phone: str = traits",
        'expression has type "str | None", variable has type "str"',
    ),
    "an event without traits": (
        TRAITS,
        "traits_of(identity, Traits)",
        "traits_of(event, Traits)",
        '"IdentityLoggedIn"; expected "HasTraits"',
    ),
    "a type that is no TypedDict": (
        TRAITS,
        "traits_of(identity, Traits)",
        "traits_of(identity, Identity)",
        'Value of type variable "Traits" of "traits_of" cannot be "Identity"',
    ),
}

INSTEAD = {
    "right": (RIGHT, ""),
    "of another port": (
        "serve(Mail).by(PostgresSubscribers)",
        'incompatible type "type[PostgresSubscribers]"',
    ),
    "anything": ("serve(Mail).by(lambda settings: object())", '"object", expected "Mail"'),
    "of a transaction outside of it": (
        "serve(Subscribers).by(PostgresSubscribers)",
        "Cannot infer value",
    ),
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where mypy keeps what it knows of the service and its dependencies."""
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def complaints(cache: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What mypy says of each application, strictly, in one run."""
    folder = tmp_path_factory.mktemp("applications")
    sources = {name: APPLICATION.replace(RIGHT, given) for name, (given, _) in INSTEAD.items()}
    for name, (source, part, instead, _) in OTHERS.items():
        sources[name] = source.replace(part, instead) if part else source
        assert (sources[name] != source) is bool(part)
    files = {name: folder / f"{name.replace(' ', '_')}.py" for name in [*sources, "minimal"]}
    for name, file in files.items():
        file.write_text(sources.get(name, MINIMAL))
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-error-summary"),
            *("--cache-dir", cache, *map(str, files.values())),
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert not ran.stderr
    lines = ran.stdout.splitlines()
    return {
        name: "\n".join(line for line in lines if line.startswith(f"{file}:"))
        for name, file in files.items()
    }


@pytest.mark.parametrize("name", [*INSTEAD, *OTHERS])
def test_mypy_accepts_what_fits_and_rejects_what_does_not(
    complaints: dict[str, str], name: str
) -> None:
    expected = {**INSTEAD, **OTHERS}[name][-1]
    found = complaints[name]

    assert bool(found) is bool(expected), found
    assert expected in found


def test_an_application_needs_nothing_but_subscriptions(complaints: dict[str, str]) -> None:
    assert complaints["minimal"] == ""


@pytest.mark.usefixtures("complaints")  # the cache is full
def test_mypy_accepts_a_new_project(cache: str, tmp_path: Path) -> None:
    written = kratos_sync("new", "shop_events", "--into", str(tmp_path / "project"))
    assert written.exit_code == 0, written.output

    ran = subprocess.run(
        [sys.executable, "-m", "mypy"],
        cwd=tmp_path / "project",
        env={**os.environ, "PYTHONPATH": str(tmp_path / "project"), "MYPY_CACHE_DIR": cache},
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )

    assert ran.returncode == 0, ran.stdout + ran.stderr
