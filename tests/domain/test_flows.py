"""What the label of a hook says, and nothing that it does not."""

import pytest

from kratos_sync.domain.events import (
    IdentityCredentialsChanged,
    IdentityLoggedIn,
    IdentityRecovered,
    fact_of_flow,
)
from tests.domain.people import ADA, NOON, cause


@pytest.mark.parametrize(
    ("hook", "kind", "method"),
    [
        ("login.after.password", IdentityLoggedIn, "password"),
        ("login.after.oidc", IdentityLoggedIn, "oidc"),
        ("login.after", IdentityLoggedIn, None),
        ("recovery.after", IdentityRecovered, None),
        ("recovery.after.code", IdentityRecovered, "code"),
        ("settings.after.password", IdentityCredentialsChanged, "password"),
        ("settings.after.totp", IdentityCredentialsChanged, "totp"),
        ("settings.after.webauthn", IdentityCredentialsChanged, "webauthn"),
    ],
)
def test_a_label_says_what_happened(hook: str, kind: type, method: str | None) -> None:
    fact = fact_of_flow(hook, ADA, NOON, cause(1))

    assert type(fact) is kind
    assert (fact.subject, fact.date_occurred, fact.to_json()["method"]) == (ADA, NOON, method)


@pytest.mark.parametrize(
    "hook",
    [
        None,
        "",
        "login",
        "login.before",
        "login.before.password",
        "registration.after.password",
        "settings.after",
        "settings.after.profile",
        "verification.after",
        "my-own-label",
        "relogin.after.password",
    ],
)
def test_any_other_label_says_nothing(hook: str | None) -> None:
    assert fact_of_flow(hook, ADA, NOON, cause(1)) is None


def test_the_same_call_brings_about_the_same_fact() -> None:
    first, again = (fact_of_flow("login.after.code", ADA, NOON, cause(1)) for _ in range(2))
    other = fact_of_flow("login.after.code", ADA, NOON, cause(2))

    assert first == again
    assert first is not None
    assert other is not None
    assert first.id != other.id
