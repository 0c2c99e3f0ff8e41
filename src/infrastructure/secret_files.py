"""Settings that stand in files, as Docker, Kubernetes and systemd mount secrets.

`DATABASE_URL_FILE` in the environment names the file with the value of `DATABASE_URL`.
"""

import os
import stat
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from pydantic_settings import DotEnvSettingsSource

FROM_FILES: Final = (
    "database_url",
    "database_direct_url",
    "broker_url",
    "kratos_webhook_api_keys",
    "kratos_admin_url",
    "kratos_public_url",
    "kratos_browser_url",
    "kratos_admin_token",
    "sentry_dsn",
    "console_oidc_issuer",
    "console_oidc_client_secret",
)
"""The settings that may be in files: all secrets, and all URLs."""
SENT_TO: Final[Mapping[str, str]] = {
    "kratos_admin_token": "kratos_admin_url",
    "console_oidc_client_secret": "console_oidc_issuer",
}
"""By secret the URL that it is sent to: `.env` has both of them, or neither."""
TOGETHER: Final[Mapping[str, str]] = {**SENT_TO, **{url: secret for secret, url in SENT_TO.items()}}
SUFFIX: Final = "_file"
MOST_BYTES: Final = 64 * 1024


class Refused(NamedTuple):
    """Stands in place of a setting's value, and says why it is not used."""

    reason: str


def from_files(
    environment: Mapping[str, str], names: Collection[str] = FROM_FILES
) -> dict[str, str | Refused]:
    """Read the settings whose files the environment names; line ends after the value are removed.

    Names in the environment may be in any case; an empty value is none. No reason quotes the path:
    it may be a secret that was given in the wrong variable.
    """
    given = {name.lower(): value for name, value in environment.items() if value}
    found: dict[str, str | Refused] = {}
    for name in names:
        if path := given.get(name + SUFFIX):
            variable = f"{name}{SUFFIX}".upper()
            if name in given:
                found[name] = Refused(f"{name.upper()} and {variable} are both set: remove one")
            else:
                found[name] = _read(path, variable)
    return found


def written_in_dotenv() -> dict[str, str | None]:
    """Read `.env` as it is written: no `${NAME}` is replaced.

    Who writes the file must not have the environment sent away.
    """
    from dotenv import dotenv_values

    return dotenv_values(".env", interpolate=False)


def read_literally(source: "DotEnvSettingsSource") -> None:
    """Let a source of `.env` have what `written_in_dotenv` reads."""
    written = written_in_dotenv()
    if not source.case_sensitive:
        written = {name.lower(): value for name, value in written.items()}
    source.env_vars = {
        name: None if value is None else written[name] for name, value in source.env_vars.items()
    }


def refused_in_dotenv(variables: Iterable[str]) -> dict[str, Refused]:
    """Refuse the files that a `.env` names: who writes it must not have other files sent away."""
    return {
        variable.lower().removesuffix(SUFFIX): Refused(
            f"{variable.upper()} must be in the environment, not in .env"
        )
        for variable in filter(names_a_file, variables)
    }


def from_two_sources(name: str) -> Refused:
    """Refuse a URL or a secret, of which the other is in the environment."""
    url, secret = sorted((name, TOGETHER[name]), key=SENT_TO.__contains__)
    return Refused(
        f"{url.upper()} and {secret.upper()} must both be in the environment, or both in .env: who"
        " writes one of them must not choose where the other's secret goes"
    )


def names_a_file(variable: str) -> bool:
    """Whether this variable is that of a file with a setting."""
    name = variable.lower()
    return name.endswith(SUFFIX) and name.removesuffix(SUFFIX) in FROM_FILES


def _read(path: str, variable: str) -> str | Refused:
    try:
        with open(path, "rb", opener=_without_waiting) as file:  # Path.open has none
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return Refused(f"{variable} names no regular file")
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else type(error).__name__
        return Refused(f"the file that {variable} names cannot be read: {why}")
    if len(content) > MOST_BYTES:
        return Refused(f"the file that {variable} names is larger than {MOST_BYTES // 1024} KiB")
    try:
        return content.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        return Refused(f"the file that {variable} names is no UTF-8 text")


def _without_waiting(path: str, flags: int) -> int:
    # A named pipe would be waited for until somebody writes to it.
    return os.open(path, flags | os.O_NONBLOCK)
