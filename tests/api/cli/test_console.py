"""`kratos-sync console` says in one sentence which setting is missing."""

import pytest
from pydantic import SecretStr

from kratos_sync.api.cli.console import _sign_in
from kratos_sync.api.http.console.oidc import SignInByOidc
from kratos_sync.infrastructure.settings import Settings
from tests.api.cli.invoking import kratos_sync

OIDC = {
    "CONSOLE_SIGN_IN": "oidc",
    "CONSOLE_ORIGIN": "https://console.example",
    "CONSOLE_OIDC_ISSUER": "https://id.example",
    "CONSOLE_OIDC_CLIENT_ID": "console",
    "CONSOLE_OIDC_CLIENT_SECRET": "of-no-worth",
}


@pytest.fixture
def addresses(database_url: str, broker_url: str) -> dict[str, str]:
    return {"DATABASE_URL": database_url, "BROKER_URL": broker_url}


@pytest.mark.parametrize("name", [name for name in OIDC if name != "CONSOLE_SIGN_IN"])
def test_openid_connect_needs_each_of_its_settings(addresses: dict[str, str], name: str) -> None:
    result = kratos_sync("console", **addresses, **{**OIDC, name: ""})
    assert result.exit_code == 2
    assert f"Error: CONSOLE_SIGN_IN=oidc needs {name}.\n" in result.output


@pytest.mark.parametrize("name", ["CONSOLE_ORIGIN", "CONSOLE_OIDC_ISSUER"])
def test_openid_connect_needs_https_except_on_this_machine(
    addresses: dict[str, str], name: str
) -> None:
    result = kratos_sync("console", **addresses, **{**OIDC, name: "http://192.0.2.1:8100"})
    assert result.exit_code == 2
    assert name in result.output
    assert "https" in result.output
    assert "Traceback" not in result.output


def test_without_its_extra_it_says_what_to_install_whoever_installs_it(
    addresses: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kratos_sync.api.cli.console.is_installed", lambda: False)
    result = kratos_sync("console", **addresses)
    assert result.exit_code == 1
    said = 'The console needs an extra: install "kratos-identity-sync[console]", with pip or uv.'
    assert said in result.output


def test_the_settings_of_openid_connect_are_enough() -> None:
    given = {name.lower(): value for name, value in OIDC.items()}
    settings = Settings(
        database_url=SecretStr("postgresql://db/kratos"),
        broker_url=SecretStr("redis://valkey"),
        _env_file=None,
        **given,
    )
    assert isinstance(_sign_in(settings), SignInByOidc)
