"""What a deployment may set."""

from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from kratos_sync.application.ports.purge import Retention
from kratos_sync.domain.id_range import ALL_IDS
from kratos_sync.infrastructure.settings import Settings

TAKEN = [
    "Content-Type",
    "content-length",
    "Host",
    "Transfer-Encoding",
    "Connection",
    "Cookie",
    "User-Agent",
    "Accept",
    "Accept-Encoding",
    "X-Forwarded-For",
    "Ory-Webhook-Trigger-Id",
    "X-Kratos-Hook",
]
REQUIRED = {
    "DATABASE_URL": "postgresql://ada:lovelace@db/kratos",
    "BROKER_URL": "redis://:byron@valkey:6379/0",
}
ADA, GRACE = "ada-of-16-letter", "grace-with-more-than-16-letters"
NAMES = [name.upper() for name in Settings.model_fields]


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings but the test's own, in a folder without a .env."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def from_environment() -> Settings:
    return Settings.model_validate({})


def settings_of(monkeypatch: pytest.MonkeyPatch, **environment: str) -> Settings:
    for name, value in {**REQUIRED, **environment}.items():
        monkeypatch.setenv(name, value)
    return from_environment()


def test_two_settings_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(monkeypatch)

    assert settings.database_url.get_secret_value() == REQUIRED["DATABASE_URL"]
    assert settings.broker_url.get_secret_value() == REQUIRED["BROKER_URL"]
    assert settings.kratos_webhook_api_keys == ()
    assert settings.kratos_webhook_api_key_header == "X-Api-Key"
    assert (settings.log_format, settings.log_level) == ("console", "INFO")
    assert settings.lease == timedelta(seconds=settings.lease_seconds)


def test_settings_are_read_from_a_file(tmp_path: Path) -> None:
    lines = [f"{name}={value}" for name, value in REQUIRED.items()]
    (tmp_path / ".env").write_text("\n".join([*lines, "LOG_FORMAT=json", "SOMEBODY_ELSES=1"]))

    assert from_environment().log_format == "json"


def test_the_environment_wins_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("LOG_LEVEL=ERROR")

    assert settings_of(monkeypatch, LOG_LEVEL="DEBUG").log_level == "DEBUG"


@pytest.mark.parametrize(
    ("given", "keys"),
    [
        (ADA, [ADA]),
        (f"{ADA},{GRACE}", [ADA, GRACE]),
        (f" {ADA} , {GRACE} ,", [ADA, GRACE]),
        (f'["{ADA}"]', [f'["{ADA}"]']),
        ("", []),
        (" , ", []),
    ],
)
def test_api_keys_are_separated_by_commas(
    monkeypatch: pytest.MonkeyPatch, given: str, keys: list[str]
) -> None:
    settings = settings_of(monkeypatch, KRATOS_WEBHOOK_API_KEYS=given)

    assert [key.get_secret_value() for key in settings.kratos_webhook_api_keys] == keys


@pytest.mark.parametrize(("given", "held"), [("", "0-f"), ("0-7", "0-7"), ("A", "a")])
def test_a_deployment_holds_some_identities_or_all(
    monkeypatch: pytest.MonkeyPatch, given: str, held: str
) -> None:
    assert str(settings_of(monkeypatch, IDENTITY_IDS=given).identity_ids) == held
    monkeypatch.delenv("IDENTITY_IDS")
    assert from_environment().identity_ids == ALL_IDS


@pytest.mark.parametrize(
    ("name", "value", "parsed"),
    [
        ("DATABASE_URL", "postgres://db/kratos", None),
        ("BROKER_URL", "rediss://valkey", None),
        ("BROKER_URL", "unix:///run/valkey.sock", None),
        ("BROKER_URL", "memory://", None),
        ("BROKER_URL", "amqp://rabbit/%2f", None),
        ("BROKER_URL", "amqps://ada:love%40lace@rabbit:5671/kratos", None),
        ("KRATOS_WEBHOOK_API_KEY_HEADER", "Authorization", "Authorization"),
        ("KRATOS_ADMIN_URL", "http://kratos:4434", None),
        ("KRATOS_ADMIN_URL", "https://ada:love%40lace@[::1]:4434/kratos/", None),
        ("KRATOS_PUBLIC_URL", "https://slug.projects.oryapis.com", None),
        ("KRATOS_ADMIN_TOKEN", "ory_pat_lovelace", None),
        ("LOG_FORMAT", "json", "json"),
        ("LOG_LEVEL", "WARNING", "WARNING"),
        ("DATABASE_POOL_SIZE", "20", 20),
        ("WORKER_THREADS", "64", 64),
        ("LEASE_SECONDS", "3600", 3600),
        ("CONSOLE_OIDC_ISSUER", "https://id.example/realms/acme/", None),
        ("CONSOLE_OIDC_ISSUER", "http://localhost:8080/realms/acme", None),
        ("CONSOLE_OIDC_ISSUER", "http://127.8.0.1", None),
        ("CONSOLE_OIDC_ISSUER", "http://[::1]:8080", None),
        ("CONSOLE_OIDC_SCOPES", "groups openid", "groups openid"),
        ("CONSOLE_OIDC_SECOND_FACTOR_ACR", "gold, urn:acme:2", ("gold", "urn:acme:2")),
        ("CONSOLE_SESSION_HOURS", "24", 24),
    ],
)
def test_each_setting_is_parsed(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, parsed: object
) -> None:
    found = getattr(settings_of(monkeypatch, **{name: value}), name.lower())

    assert (found.get_secret_value() if parsed is None else found) == (parsed or value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "mysql://ada:lovelace@db/kratos"),
        ("DATABASE_URL", "lovelace"),
        ("DATABASE_URL", ""),
        ("DATABASE_URL", "mysql://ada:love[lace]@db/kratos"),
        ("DATABASE_URL", "mysql://ada:lovelace℀@db/kratos"),
        ("BROKER_URL", "kafka://ada:lovelace@broker"),
        ("BROKER_URL", "amqp://ada:love/lace@rabbit"),
        ("BROKER_URL", "amqp://ada@rabbit"),
        ("BROKER_URL", "amqp://ada:lovelace@rabbit?lovelace=1"),
        ("BROKER_URL", "amqp:lovelace"),
        ("BROKER_URL", "redis:lovelace"),
        ("BROKER_URL", "memory://lovelace"),
        ("KRATOS_WEBHOOK_API_KEY_HEADER", "X Lovelace"),
        ("KRATOS_ADMIN_URL", "lovelace:4434"),
        ("KRATOS_ADMIN_URL", "ftp://ada:lovelace@kratos"),
        ("KRATOS_ADMIN_URL", "http://"),
        ("KRATOS_ADMIN_URL", "http://:4434/lovelace"),
        ("CONSOLE_OIDC_ISSUER", "http://lovelace.example"),
        ("CONSOLE_OIDC_ISSUER", "http://192.0.2.1/lovelace"),
        ("CONSOLE_OIDC_ISSUER", "https://id.example?lovelace"),
        ("CONSOLE_OIDC_ISSUER", "lovelace"),
        ("CONSOLE_OIDC_CLIENT_SECRET", "love lace"),
        ("CONSOLE_OIDC_SCOPES", "lovelace"),
        ("CONSOLE_OIDC_ROLES_CLAIM", ""),
        ("CONSOLE_SESSION_HOURS", "25"),
        ("KRATOS_ADMIN_URL", "http://ada:love/lace@kratos"),
        ("KRATOS_ADMIN_URL", "http://ada:love[lace@kratos"),
        ("KRATOS_ADMIN_URL", "http://ada:lovelace℀@kratos"),
        ("KRATOS_ADMIN_URL", "http://kratos:lovelace"),
        ("KRATOS_ADMIN_URL", "http://kratos/?lovelace"),
        ("KRATOS_ADMIN_URL", "http://kratos/#lovelace"),
        ("KRATOS_ADMIN_URL", "http://kratos/love lace"),
        ("KRATOS_PUBLIC_URL", "lovelace"),
        ("KRATOS_ADMIN_TOKEN", "love lace"),
        ("KRATOS_ADMIN_TOKEN", "lovelace\r\nX-Evil: 1"),
        ("KRATOS_BROWSER_URL", "lovelace"),
        ("KRATOS_WEBHOOK_API_KEY_HEADER", ""),
        ("KRATOS_WEBHOOK_API_KEY_HEADER", "X-Lovelace:"),
        ("KRATOS_WEBHOOK_API_KEY_HEADER", "X-Lovelace\n"),
        *(("KRATOS_WEBHOOK_API_KEY_HEADER", taken) for taken in TAKEN),
        ("LOG_FORMAT", "lovelace"),
        ("LOG_LEVEL", "lovelace"),
        ("DATABASE_POOL_SIZE", "lovelace"),
        ("DATABASE_POOL_SIZE", "1"),
        ("WORKER_THREADS", "0"),
        ("WORKER_THREADS", "65"),
        ("LEASE_SECONDS", "4"),
        ("EVENTS_RETENTION_DAYS", "0"),
        ("EVENTS_RETENTION_DAYS", "lovelace"),
        ("ATTEMPTS_RETENTION_DAYS", "-1"),
        ("ATTEMPTS_RETENTION_DAYS", "never"),
        ("PURGE_EVERY_HOURS", "0"),
        ("PURGE_EVERY_HOURS", "forever"),
        ("LEASE_SECONDS", "lovelace"),
    ],
)
def test_a_wrong_setting_is_refused_by_name_without_its_value(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    with pytest.raises(ValidationError) as refusal:
        settings_of(monkeypatch, **{name: value})

    text = str(refusal.value)
    assert f"\n{name.lower()}\n" in text
    assert "lovelace" not in text.lower()


@pytest.mark.parametrize("keys", ["x", "lovelace", "lovelace-15-let", f"{ADA},x", f"x,{ADA}"])
def test_a_short_key_is_refused_without_being_printed(
    monkeypatch: pytest.MonkeyPatch, keys: str
) -> None:
    with pytest.raises(ValidationError, match="a key has at least 16 characters") as refusal:
        settings_of(monkeypatch, KRATOS_WEBHOOK_API_KEYS=keys)

    assert "lovelace" not in str(refusal.value)


URL, TOKEN = "KRATOS_ADMIN_URL", "KRATOS_ADMIN_TOKEN"


@pytest.mark.parametrize(
    ("file", "environment"),
    [
        ({URL: "https://evil.example"}, {TOKEN: "lovelace"}),
        ({URL: "https://evil.example", TOKEN: "x"}, {TOKEN: "lovelace"}),
        ({URL.lower(): "https://evil.example", TOKEN: ""}, {TOKEN.lower(): "lovelace"}),
        ({TOKEN: "lovelace"}, {URL: "https://kratos.example"}),
        ({TOKEN: "lovelace", URL: "https://other.example"}, {URL: "https://kratos.example"}),
    ],
)
def test_an_admin_url_and_a_token_from_different_places_are_refused(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    file: dict[str, str],
    environment: dict[str, str],
) -> None:
    (tmp_path / ".env").write_text("".join(f"{name}={text}\n" for name, text in file.items()))

    with pytest.raises(ValidationError, match="both be in the environment, or both in") as refusal:
        settings_of(monkeypatch, **environment)

    assert "lovelace" not in str(refusal.value)


@pytest.mark.parametrize(
    ("written", "given"),
    [
        ("CONSOLE_OIDC_ISSUER=https://evil.example", {"CONSOLE_OIDC_CLIENT_SECRET": "lovelace"}),
        ("CONSOLE_OIDC_CLIENT_SECRET=lovelace", {"CONSOLE_OIDC_ISSUER": "https://a.example"}),
    ],
)
def test_an_issuer_and_the_secret_that_it_gets_are_from_one_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, written: str, given: dict[str, str]
) -> None:
    (tmp_path / ".env").write_text(written)

    settings_of(monkeypatch)
    with pytest.raises(ValidationError, match="OIDC_ISSUER and CONSOLE_OIDC_CLIENT_SECRET must"):
        settings_of(monkeypatch, **given)


@pytest.mark.parametrize("given", ["${LOVELACE}", "${KRATOS_ADMIN_TOKEN}", "${NO:-lovelace}"])
def test_a_file_takes_nothing_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: str
) -> None:
    (tmp_path / ".env").write_text(f"{URL}=https://evil.example\n{TOKEN}={given}\n")
    monkeypatch.setenv("LOVELACE", "lovelace")

    settings = settings_of(monkeypatch)

    assert settings.kratos_admin_token is not None
    assert settings.kratos_admin_token.get_secret_value() == given
    with pytest.raises(ValidationError, match="both be in the environment, or both in"):
        settings_of(monkeypatch, KRATOS_ADMIN_TOKEN="lovelace")


@pytest.mark.parametrize(
    ("file", "environment", "sent"),
    [
        ({}, {URL: "https://a.example", TOKEN: "t"}, ("https://a.example", "t")),
        ({URL: "https://a.example", TOKEN: "t"}, {}, ("https://a.example", "t")),
        (
            {URL: "https://b.example", TOKEN: "u"},
            {URL: "https://a.example", TOKEN: "t"},
            ("https://a.example", "t"),
        ),
        (
            {URL: "https://b.example"},
            {URL: "https://a.example", TOKEN: "t"},
            ("https://a.example", "t"),
        ),
        ({URL: "https://a.example", TOKEN: "t"}, {TOKEN: "t"}, ("https://a.example", "t")),
        ({URL: "https://a.example"}, {TOKEN: ""}, ("https://a.example", None)),
        ({URL: "https://a.example"}, {}, ("https://a.example", None)),
        ({TOKEN: "t"}, {URL: ""}, (None, "t")),
    ],
)
def test_an_admin_url_and_a_token_from_one_place_are_used(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    file: dict[str, str],
    environment: dict[str, str],
    sent: tuple[str | None, str | None],
) -> None:
    (tmp_path / ".env").write_text("".join(f"{name}={text}\n" for name, text in file.items()))

    settings = settings_of(monkeypatch, **environment)
    found = (settings.kratos_admin_url, settings.kratos_admin_token)

    assert tuple(each and each.get_secret_value() for each in found) == sent


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ada:love[lace]@db/kratos",
        "postgresql://ada:love[lace@db/kratos",
        "postgresql://ada:lovelace℀@db/kratos",
        "postgresql://ada:love/lace@db:x/kratos",
    ],
)
def test_an_odd_password_is_never_quoted(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    try:
        text = repr(settings_of(monkeypatch, DATABASE_URL=url))
    except ValidationError as refusal:
        text = str(refusal)

    assert "lace" not in text


@pytest.mark.parametrize(
    ("host", "parameters", "reason"),
    [
        ("db", "sslmode=required", "has a sslmode that is none of disable, allow, prefer, require"),
        ("a,b", "target_session_attrs=master", "has a target_session_attrs that is none of any,"),
        ("db", "gssencmode=", "has a gssencmode that is none of disable, prefer, require"),
        ("db", "channel_binding=on", "has a channel_binding that is none of disable, prefer"),
        ("a,b", "load_balance_hosts=yes", "has a load_balance_hosts that is none of disable"),
        ("db", "ssl_mode=require", "has a parameter that libpq does not know"),
        ("db", "statement_timeout=5", "has a parameter that libpq does not know"),
        ("db", "prepare_threshold=0", "has a parameter that libpq does not know"),
        ("db", "autocommit=true", "has a parameter that libpq does not know"),
        ("db:99999", "", "has a port that is not between 1 and 65535"),
        ("db", "port=0", "has a port that is not between 1 and 65535"),
        ("a:1,b:2", "port=1,2,3", "has neither one port nor one for each host"),
    ],
)
def test_what_libpq_would_refuse_at_each_connection_is_refused_at_the_start(
    monkeypatch: pytest.MonkeyPatch, host: str, parameters: str, reason: str
) -> None:
    url = f"postgresql://ada:lovelace@{host}/kratos?{parameters}"

    with pytest.raises(ValidationError) as refused:
        settings_of(monkeypatch, DATABASE_URL=url)

    (error,) = refused.value.errors()
    assert reason in error["msg"]
    assert "lovelace" not in str(refused.value)


def test_a_missing_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValidationError, match=r"\ndatabase_url\n.*Field required"):
        from_environment()


def test_without_a_broker_it_is_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", REQUIRED["DATABASE_URL"])

    assert from_environment().broker_url.get_secret_value() == "memory://"


def test_every_wrong_setting_is_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValidationError) as refusal:
        settings_of(monkeypatch, LOG_LEVEL="LOUD", LEASE_SECONDS="0")

    assert {error["loc"] for error in refusal.value.errors()} == {
        ("log_level",),
        ("lease_seconds",),
    }


def test_no_secret_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(
        monkeypatch,
        KRATOS_WEBHOOK_API_KEYS="enchantress-of-numbers,of-numbers-enchantress",
        KRATOS_ADMIN_URL="http://ada:lovelace@kratos",
        KRATOS_ADMIN_TOKEN="byron",
    )

    text = f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    for secret in ("lovelace", "byron", "enchantress", "of-numbers"):
        assert secret not in text


@pytest.mark.parametrize(
    "name",
    ["KRATOS_ADMIN_URL", "KRATOS_PUBLIC_URL", "KRATOS_BROWSER_URL", "KRATOS_ADMIN_TOKEN"],
)
def test_what_says_where_kratos_is_may_be_left_out(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    assert getattr(settings_of(monkeypatch), name.lower()) is None
    assert getattr(settings_of(monkeypatch, **{name: ""}), name.lower()) is None


def test_events_are_kept_for_longer_than_attempts_if_nothing_else_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = settings_of(monkeypatch)

    assert settings.retention == Retention(timedelta(days=90), timedelta(days=30))
    assert settings.purge_every == timedelta(hours=1)


def test_what_is_kept_may_be_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(
        monkeypatch,
        EVENTS_RETENTION_DAYS="forever",
        ATTEMPTS_RETENTION_DAYS="7",
        PURGE_EVERY_HOURS="never",
    )

    assert settings.retention == Retention(None, timedelta(days=7))
    assert settings.purge_every is None
