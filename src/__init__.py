"""Keeps an application's own copy of its Ory Kratos identities up to date: the public API.

Loaded on demand: every command and module of the package imports this one first.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kratos_sync.application.application import Application, serve
    from kratos_sync.application.consumer import Consumer, RetryLater
    from kratos_sync.application.typed_traits import TraitsDoNotFit, traits_of
    from kratos_sync.domain.events import (
        AddressVerified,
        DomainEvent,
        IdentityCredentialsChanged,
        IdentityDeleted,
        IdentityDeletionRequested,
        IdentityDiscovered,
        IdentityLoggedIn,
        IdentityRecovered,
        IdentityRegistered,
        IdentityStateChanged,
        IdentityTraitsChanged,
        KratosIdentityGone,
        KratosIdentityHinted,
        KratosIdentityUpdated,
        KratosTemplateFailed,
        TraitChange,
    )
    from kratos_sync.domain.identity import Identity
    from kratos_sync.domain.kratos_identities import KratosIdentities
    from kratos_sync.domain.kratos_identity import KratosIdentity
    from kratos_sync.domain.session import KratosSession
    from kratos_sync.infrastructure.postgres.transaction import Transaction

__all__ = [
    "AddressVerified",
    "Application",
    "Consumer",
    "DomainEvent",
    "Identity",
    "IdentityCredentialsChanged",
    "IdentityDeleted",
    "IdentityDeletionRequested",
    "IdentityDiscovered",
    "IdentityLoggedIn",
    "IdentityRecovered",
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
]

_ELSEWHERE: Final = {
    "Application": "application.application",
    "serve": "application.application",
    "Consumer": "application.consumer",
    "RetryLater": "application.consumer",
    "Identity": "domain.identity",
    "KratosIdentities": "domain.kratos_identities",
    "KratosIdentity": "domain.kratos_identity",
    "KratosSession": "domain.session",
    "TraitsDoNotFit": "application.typed_traits",
    "traits_of": "application.typed_traits",
    "Transaction": "infrastructure.postgres.transaction",
}


def __getattr__(name: str) -> object:
    """Import what a public name stands for, when it is first used."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"{__name__}.{_ELSEWHERE.get(name, 'domain.events')}")
    value: object = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
