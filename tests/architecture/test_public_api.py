"""The names that other people's code imports from `kratos_sync`."""

import subprocess
import sys
from types import FunctionType

import pytest

import kratos_sync
from kratos_sync.domain import events

PUBLIC = {
    "AddressVerified",
    "Application",
    "Consumer",
    "DomainEvent",
    "Identity",
    "IdentityCredentialsChanged",
    "IdentityDeleted",
    "IdentityLoggedIn",
    "IdentityRecovered",
    "IdentityDeletionRequested",
    "IdentityDiscovered",
    "IdentityRegistered",
    "IdentityStateChanged",
    "IdentityTraitsChanged",
    "KratosIdentities",
    "KratosIdentity",
    "KratosIdentityGone",
    "KratosIdentityHinted",
    "KratosIdentityUpdated",
    "KratosSession",
    "KratosTemplateFailed",
    "RetryLater",
    "TraitChange",
    "TraitsDoNotFit",
    "Transaction",
    "serve",
    "traits_of",
}


def test_the_public_api_is_exactly_these_names() -> None:
    assert set(kratos_sync.__all__) == PUBLIC
    assert set(dir(kratos_sync)) >= PUBLIC


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_each_public_name_is_the_class_or_function_of_that_name(name: str) -> None:
    public = getattr(kratos_sync, name)

    assert isinstance(public, type | FunctionType)
    assert public.__name__ == name
    assert public.__module__.startswith("kratos_sync.")


def test_every_event_is_public() -> None:
    assert {kind.__name__ for kind in events.EVENTS.values()} < PUBLIC


def test_another_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = kratos_sync.Nonsense


def test_importing_the_package_alone_imports_nothing_else_of_it() -> None:
    code = (
        "import sys, kratos_sync;"
        "before = [m for m in sys.modules if m.startswith('kratos_sync.')];"
        "kratos_sync.Consumer, kratos_sync.IdentityRegistered;"
        "heavy = {'structlog', 'msgspec', 'sqlalchemy'} & sys.modules.keys(); print(before, heavy)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert run.stdout.strip() == "[] set()"
