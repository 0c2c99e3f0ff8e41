"""What the claims of an ID token say of an operator."""

from typing import Any

import pytest

from kratos_sync.api.http.console.access import NoRole, Operator, Role
from kratos_sync.api.http.console.oidc import ClaimRules, own_path
from kratos_sync.api.http.console.openid_provider import SignInRefused

RULES = ClaimRules(second_factor_acr=frozenset({"gold"}))
CLAIMS = {"sub": "ada", "kratos_sync_roles": ["operator"]}


@pytest.mark.parametrize(
    ("path", "claims"),
    [
        ("groups", {"groups": ["privacy"]}),
        ("realm_access.roles", {"realm_access": {"roles": ["offline_access", "privacy"]}}),
        ("https://acme.example/roles", {"https://acme.example/roles": ["privacy"]}),
    ],
)
def test_roles_are_in_the_claim_that_the_setting_names(path: str, claims: dict[str, Any]) -> None:
    found = ClaimRules(roles=path).operator({"sub": "ada", **claims})
    assert found == Operator("ada", frozenset({Role.VIEWER, Role.PRIVACY}))


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"realm_access": ["operator"]},
        {"realm_access": {"roles": "operator"}},
        {"realm_access": {"roles": [["operator"], {}, None, "root"]}},
        {"realm_access": {"roles": {"operator": True}}},
    ],
)
def test_without_a_role_in_a_list_nobody_is_an_operator(claims: dict[str, Any]) -> None:
    with pytest.raises(NoRole):
        ClaimRules(roles="realm_access.roles").operator({"sub": "ada", **claims})


@pytest.mark.parametrize(
    "claims",
    [
        {"amr": ["mfa"]},
        {"amr": ["pwd", "otp"]},
        {"amr": ["hwk", "fpt"]},
        {"amr": ["user", "pin", "swk"]},
        {"acr": "gold"},
    ],
)
def test_a_second_factor_is_mfa_or_two_kinds_or_a_listed_acr(claims: dict[str, Any]) -> None:
    found = RULES.operator({**CLAIMS, **claims})
    assert found.second_factor


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"amr": ["pwd"]},
        {"amr": ["pwd", "pin"]},
        {"amr": ["otp", "sms"]},
        {"amr": ["pwd", "geo", "user", "wia", "mca"]},
        {"amr": "mfa"},
        {"amr": [["mfa"], {"pwd": "otp"}, None]},
        {"acr": "silver"},
        {"acr": ["gold"]},
        {"acr": {"gold": "gold"}},
    ],
)
def test_anything_else_is_no_second_factor(claims: dict[str, Any]) -> None:
    found = RULES.operator({**CLAIMS, **claims})
    assert not found.second_factor


@pytest.mark.parametrize("name", [None, "", 7, ["ada"], "ada\nlovelace", "a" * 201])
def test_a_name_that_the_audit_trail_cannot_keep_is_refused(name: object) -> None:
    with pytest.raises(SignInRefused, match="the claim sub is no name"):
        RULES.operator({**CLAIMS, "sub": name})


def test_the_name_is_in_the_claim_that_the_setting_names() -> None:
    found = ClaimRules(name="email").operator({**CLAIMS, "email": "ada@example.org"})
    assert found.name == "ada@example.org"


@pytest.mark.parametrize("path", ["/", "/failures?hook=login&page=2", "/events/1#main"])
def test_a_sign_in_leads_on_to_a_page_of_the_console(path: str) -> None:
    assert own_path(path) == path


@pytest.mark.parametrize(
    "path",
    [
        None,
        "",
        "failures",
        "//evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "https://evil.example/",
        "javascript:alert(1)",
        "/\t/evil.example",
        "/a b",
        "/ä",
        "/failures\n",
        "/" + "a" * 600,
    ],
)
def test_a_sign_in_leads_nowhere_else(path: str | None) -> None:
    assert own_path(path) == "/"
