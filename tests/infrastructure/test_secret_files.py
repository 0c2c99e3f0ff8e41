"""Settings that stand in files, as Docker, Kubernetes and systemd mount secrets."""

import os
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from kratos_sync.infrastructure.secret_files import FROM_FILES, MOST_BYTES
from kratos_sync.infrastructure.settings import Settings
from tests.api.cli.invoking import kratos_sync

URL, TOKEN = "KRATOS_ADMIN_URL", "KRATOS_ADMIN_TOKEN"
GIVEN = {
    "database_url": "postgresql://ada:lovelace@db/kratos",
    "broker_url": "redis://:byron@valkey:6379/0",
    "kratos_webhook_api_keys": "enchantress-of-numbers",
    "kratos_admin_url": "http://kratos:4434",
    "kratos_public_url": "http://kratos:4433",
    "kratos_browser_url": "https://id.example.org",
    "kratos_admin_token": "ory_pat_lovelace",
    "database_direct_url": "postgresql://lovelace@db.internal/app",
    "console_oidc_issuer": "https://login.example.org/lovelace",
    "console_oidc_client_secret": "lovelace-of-the-engine",
    "sentry_dsn": "https://lovelace@sentry.example.org/7",
}


@pytest.fixture(autouse=True)
def required(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The two settings that are required, and none else, in a folder without a .env."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
        monkeypatch.delenv(f"{name.upper()}_FILE", raising=False)
    for name in ("database_url", "broker_url"):
        monkeypatch.setenv(name.upper(), GIVEN[name])
    monkeypatch.chdir(tmp_path)


def settings() -> Settings:
    return Settings.model_validate({})


def refusal(name: str) -> str:
    """The reason why this setting is refused, which is the only one that is."""
    with pytest.raises(ValidationError) as refused:
        settings()
    (error,) = refused.value.errors()
    assert error["loc"] == (name.lower(),)
    assert "lovelace" not in str(refused.value)
    return str(error["msg"])


def in_file(monkeypatch: pytest.MonkeyPatch, name: str, content: str | bytes) -> Path:
    """Give a setting as a file, and nothing else for it."""
    file = Path(f"secret of {name}")
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv(f"{name.upper()}_FILE", str(file))
    return file


def shown(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(shown, value))
    assert isinstance(value, SecretStr)
    return value.get_secret_value()


def test_every_secret_and_every_url_may_be_in_a_file() -> None:
    secret = {
        name for name, field in Settings.model_fields.items() if "Secret" in str(field.annotation)
    }
    assert secret == {*FROM_FILES} == GIVEN.keys()


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n"])
@pytest.mark.parametrize("name", FROM_FILES)
def test_a_setting_is_read_from_its_file_without_the_end_of_the_line(
    monkeypatch: pytest.MonkeyPatch, name: str, end: str
) -> None:
    in_file(monkeypatch, name, GIVEN[name] + end)

    assert shown(getattr(settings(), name)) == GIVEN[name]


def test_spaces_are_part_of_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    in_file(monkeypatch, TOKEN, "love lace\n")

    assert "must be printable ASCII without spaces" in refusal(TOKEN)


def test_keys_may_stand_one_to_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    in_file(monkeypatch, "kratos_webhook_api_keys", "the-first-key-of-all\r\nthe-second-key-of-two")

    keys = [key.get_secret_value() for key in settings().kratos_webhook_api_keys]
    assert keys == ["the-first-key-of-all", "the-second-key-of-two"]


def test_names_of_files_may_be_in_lower_case(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("token").write_text("ory_pat_lovelace")
    monkeypatch.setenv("kratos_admin_token_file", "token")

    assert shown(settings().kratos_admin_token) == "ory_pat_lovelace"


def test_a_secret_that_is_also_in_the_environment_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    in_file(monkeypatch, "database_url", GIVEN["database_url"])
    monkeypatch.setenv("DATABASE_URL", "postgresql://ada:lovelace@other/kratos")

    assert refusal("database_url").endswith(
        "DATABASE_URL and DATABASE_URL_FILE are both set: remove one"
    )


@pytest.mark.parametrize("empty", ["DATABASE_URL", "KRATOS_ADMIN_TOKEN_FILE"])
def test_what_is_empty_is_not_given(monkeypatch: pytest.MonkeyPatch, empty: str) -> None:
    in_file(monkeypatch, "database_url", GIVEN["database_url"])
    monkeypatch.setenv(empty, "")

    assert shown(settings().database_url) == GIVEN["database_url"]


def test_a_file_wins_over_a_dotenv_as_the_environment_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    in_file(monkeypatch, "database_url", GIVEN["database_url"])
    Path(".env").write_text("DATABASE_URL=postgresql://elsewhere/kratos\n")

    assert shown(settings().database_url) == GIVEN["database_url"]


def test_a_file_that_is_not_there_is_refused_without_its_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Somebody may give the secret itself.
    monkeypatch.delenv("DATABASE_URL")
    monkeypatch.setenv("DATABASE_URL_FILE", GIVEN["database_url"])

    assert refusal("database_url").endswith(
        "the file that DATABASE_URL_FILE names cannot be read: No such file or directory"
    )


def test_a_file_that_may_not_be_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    in_file(monkeypatch, "database_url", GIVEN["database_url"]).chmod(0)
    if os.geteuid() == 0:
        pytest.skip("root may read everything")

    assert "cannot be read: Permission denied" in refusal("database_url")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("lovelace" * MOST_BYTES, "the file that DATABASE_URL_FILE names is larger than 64 KiB"),
        (b"lovelace\xff", "the file that DATABASE_URL_FILE names is no UTF-8 text"),
        ("", "must be a URL that starts with postgresql or postgres"),
        ("mysql://ada:lovelace@db", "must be a URL that starts with postgresql or postgres"),
    ],
)
def test_a_file_with_something_else_is_refused_without_being_quoted(
    monkeypatch: pytest.MonkeyPatch, content: str | bytes, reason: str
) -> None:
    in_file(monkeypatch, "database_url", content)

    assert refusal("database_url").endswith(reason)


def test_neither_a_pipe_that_nobody_writes_to_nor_a_folder_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    os.mkfifo("pipe")
    monkeypatch.delenv("DATABASE_URL")
    for path, reason in (("pipe", "names no regular file"), (tmp_path, "Is a directory")):
        monkeypatch.setenv("DATABASE_URL_FILE", str(path))
        assert reason in refusal("database_url")


def test_a_file_without_an_end_is_read_no_further_than_it_may_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("DATABASE_URL")
    monkeypatch.setenv("DATABASE_URL_FILE", "/dev/zero")

    assert "names no regular file" in refusal("database_url")


def test_an_admin_url_of_a_dotenv_gets_no_token_from_a_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    in_file(monkeypatch, TOKEN, "ory_pat_lovelace")
    Path(".env").write_text(f"{URL}=https://evil.example\n")

    assert "must both be in the environment, or both in .env" in refusal(URL)


def test_an_admin_url_and_a_token_may_both_be_in_files(monkeypatch: pytest.MonkeyPatch) -> None:
    in_file(monkeypatch, URL, GIVEN["kratos_admin_url"])
    in_file(monkeypatch, TOKEN, GIVEN["kratos_admin_token"])

    found = settings()
    assert shown(found.kratos_admin_url) == GIVEN["kratos_admin_url"]
    assert shown(found.kratos_admin_token) == GIVEN["kratos_admin_token"]


def test_a_dotenv_chooses_no_file_whose_content_is_sent_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = in_file(monkeypatch, TOKEN, "ory_pat_lovelace")
    monkeypatch.delenv(f"{TOKEN}_FILE")
    Path(".env").write_text(f"{URL}=https://evil.example\n{TOKEN.lower()}_file={file}\n")

    assert refusal(TOKEN).endswith(
        "KRATOS_ADMIN_TOKEN_FILE must be in the environment, not in .env"
    )


def test_a_command_that_is_given_a_wrong_file_ends_in_one_sentence() -> None:
    ran = kratos_sync("status", DATABASE_URL=None, DATABASE_URL_FILE="postgresql://ada:lovelace@db")

    assert ran.exit_code == 2
    assert "DATABASE_URL: Value error, the file that DATABASE_URL_FILE names" in ran.output
    assert "lovelace" not in ran.output
