"""The settings of a deployment, from the environment, files that it names, or a ``.env`` file."""

import os
import re
from collections.abc import Callable
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from kratos_sync.application.ports.purge import Retention
from kratos_sync.domain.id_range import ALL_IDS, IdRange
from kratos_sync.infrastructure.bus import urls
from kratos_sync.infrastructure.postgres.connections import (
    BadDatabaseUrl,
    parse_database_url,
)
from kratos_sync.infrastructure.secret_files import (
    FROM_FILES,
    TOGETHER,
    Refused,
    from_files,
    from_two_sources,
    read_literally,
    refused_in_dotenv,
)

SHORTEST_KEY: Final = 16
# HTTP's own headers, those that Kratos always sends, and those that proxies set or remove.
RESERVED_HEADERS: Final = re.compile(
    r"(accept|access-control|content|if|ory-webhook|proxy|sec|x-forwarded)(-.*)?|host|connection"
    r"|keep-alive|transfer-encoding|te|trailer|upgrade|expect|date|via|forwarded|x-real-ip|cookie"
    r"|set-cookie|user-agent|referer|origin|range|cache-control|pragma|max-forwards|from"
    r"|traceparent|tracestate|baggage|x-request-id|x-kratos-hook",
    re.IGNORECASE,
)


def _url(parse: Callable[[str], object], *schemes: str) -> AfterValidator:
    def check(url: SecretStr) -> SecretStr:
        if url.get_secret_value().partition("://")[0] not in schemes:
            raise ValueError(f"must be a URL that starts with {' or '.join(schemes)}")
        try:
            parse(url.get_secret_value())
        except (urls.BadBrokerUrl, BadDatabaseUrl) as error:
            raise ValueError(str(error)) from None
        except Exception:  # noqa: BLE001  # any error may quote a piece of the password
            raise ValueError("is no URL: in a password, is every @ : / escaped?") from None
        return url

    return AfterValidator(check)


def _parse_http_url(url: str) -> object:
    parts = urlsplit(url)
    if not re.fullmatch(r"[!-~]+", url) or not parts.hostname or parts.query or parts.fragment:
        raise ValueError
    return parts.port  # raises, where it is no number


def is_private(url: str) -> bool:
    """Whether nobody reads what is sent to this URL: by https, or on this machine."""
    parts = urlsplit(url)
    if parts.scheme == "https" or parts.hostname == "localhost":
        return True
    try:
        return ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False


def _private(url: SecretStr) -> SecretStr:
    if not is_private(url.get_secret_value()):
        raise ValueError("must be a URL that starts with https, or with http on this machine")
    return url


def _scopes(scopes: str) -> str:
    if "openid" not in scopes.split():
        raise ValueError("must have openid among them")
    return scopes


def _token(token: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[!-~]+", token.get_secret_value()):
        raise ValueError("must be printable ASCII without spaces")
    return token


def _api_key(key: SecretStr) -> SecretStr:
    if len(key.get_secret_value()) < SHORTEST_KEY:
        raise ValueError(f"a key has at least {SHORTEST_KEY} characters")
    return key


def _key_header(header: str) -> str:
    if RESERVED_HEADERS.fullmatch(header):
        raise ValueError("this header has a meaning of its own: choose another, such as X-Api-Key")
    return header


def _origin(text: str | None) -> str | None:
    if text is None:
        return None
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path.strip("/"):
        raise ValueError("must be a scheme and a host, such as https://console.example")
    return f"{parts.scheme}://{parts.netloc}"


def _split(keys: object) -> object:
    if not isinstance(keys, str):
        return keys
    return tuple(key.strip() for key in re.split("[,\n]", keys) if key.strip())


def _id_range(given: object) -> object:
    return (IdRange.parse(given) if given else ALL_IDS) if isinstance(given, str) else given


def _none_if(word: str) -> BeforeValidator:
    return BeforeValidator(lambda given: None if given == word else given)


DatabaseUrl = Annotated[SecretStr, _url(parse_database_url, "postgresql", "postgres")]
BrokerUrl = Annotated[SecretStr, _url(urls.check, *urls.SCHEMES)]
HttpUrl = Annotated[SecretStr, _url(_parse_http_url, "http", "https")]
Token = Annotated[SecretStr, AfterValidator(_token)]
ApiKey = Annotated[SecretStr, AfterValidator(_api_key)]
ApiKeys = Annotated[tuple[ApiKey, ...], NoDecode, BeforeValidator(_split)]
HEADER: Final = r"^[A-Za-z0-9-]+$"
Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
Networks = Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode, BeforeValidator(_split)]
IdentityIds = Annotated[
    IdRange, NoDecode, BeforeValidator(_id_range), WithJsonSchema({"type": "string"})
]
KeyHeader = Annotated[str, Field(pattern=HEADER), AfterValidator(_key_header)]
Days = Annotated[Annotated[int, Field(ge=1, le=36_500)] | None, _none_if("forever")]
Hours = Annotated[Annotated[int, Field(ge=1, le=720)] | None, _none_if("never")]


class Settings(BaseSettings):
    """Every setting, typed; secrets do not show when printed.

    Raises pydantic's ValidationError, naming each setting that is missing or wrong.
    """

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", hide_input_in_errors=True)

    database_url: DatabaseUrl
    database_direct_url: Annotated[DatabaseUrl | None, _none_if("")] = None
    """The same database past a pooler, where `DATABASE_URL` leads to one."""
    broker_url: BrokerUrl = SecretStr(urls.IN_MEMORY)
    """The broker that relays and workers share; ``memory://`` is that of `kratos-sync all`."""
    kratos_sync_app: Annotated[str | None, _none_if("")] = None
    """Your application, as ``module:attribute``; by default that of an installed package."""
    kratos_webhook_api_keys: ApiKeys = ()
    """Any of them is accepted, so that a key can be changed without a gap."""
    kratos_webhook_api_key_header: KeyHeader = "X-Api-Key"
    kratos_admin_url: Annotated[HttpUrl | None, _none_if("")] = None
    """Where Kratos' Admin API is, with the path before `/admin` if there is one."""
    kratos_public_url: Annotated[HttpUrl | None, _none_if("")] = None
    kratos_browser_url: Annotated[HttpUrl | None, _none_if("")] = None
    """Where browsers find Kratos' public API, if that is elsewhere than where services do."""
    kratos_admin_token: Annotated[Token | None, _none_if("")] = None
    """A bearer token for the Admin API, as Ory Network wants one."""
    identity_ids: IdentityIds = ALL_IDS
    """The first hex digits of the ids that this deployment holds, where several share a Kratos."""
    kratos_refetch: bool = False
    """Take a webhook as a hint only, and ask the Admin API what the identity is."""
    log_format: Literal["console", "json"] = "console"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    database_pool_size: int = Field(8, ge=2, le=200)
    worker_threads: int = Field(4, ge=1, le=64)
    lease_seconds: int = Field(30, ge=5, le=3600)
    """How long a dispatched delivery is leased before it is sent again."""
    events_retention_days: Days = 90
    """How long events are kept, or ``forever``.

    A purge never takes events with pending deliveries. A day is the least: Kratos repeats calls
    within minutes, and they must still be recognised.
    """
    attempts_retention_days: Days = 30
    """How long attempts are kept, or ``forever``."""
    operations_retention_days: Days = None
    """How long the record of operations is kept (`kratos-sync audit`), or ``forever``.

    The relay removes what is older. An operation that runs is kept.
    """
    purge_every_hours: Hours = 1
    """How often the relay purges; ``never`` leaves it to `kratos-sync purge`."""
    metrics_port: Annotated[Annotated[int, Field(ge=1, le=65535)] | None, _none_if("")] = None
    """Where `/metrics` and `/health/*` of a process are served; off by default.

    Each process on a machine needs a port of its own.
    """
    metrics_host: str = "127.0.0.1"
    """The address to listen on there; ``0.0.0.0`` in a container, for a network that you trust."""
    sentry_dsn: Annotated[HttpUrl | None, _none_if("")] = None
    """Where errors are reported to Sentry: their types and places, and nothing that they say."""
    sentry_environment: str = "production"
    """The environment that Sentry shows errors in."""
    console_sign_in: Annotated[Literal["kratos", "proxy", "oidc"] | None, _none_if("")] = None
    """How operators sign in to the console: by Kratos' session, a proxy in front, or OIDC.

    With ``kratos`` an operator's roles are the list ``kratos_sync_roles`` in ``metadata_public``.
    """
    console_origin: Annotated[str | None, _none_if(""), AfterValidator(_origin)] = None
    """The console's address in browsers, such as ``https://console.example``."""
    console_proxy_addresses: Networks = ()
    """The addresses of the proxy, such as ``10.0.0.7`` or ``10.0.0.0/24``, separated by commas."""
    console_user_header: str = Field("X-Forwarded-User", pattern=HEADER)
    """The proxy's header with the operator's name,"""
    console_roles_header: str = Field("X-Forwarded-Groups", pattern=HEADER)
    """the one with the roles, separated by commas: ``viewer``, ``operator``, ``privacy``,"""
    console_second_factor_header: str = Field("X-Forwarded-Second-Factor", pattern=HEADER)
    """and the one that is ``true`` after a second factor."""
    console_oidc_issuer: Annotated[
        Annotated[HttpUrl, AfterValidator(_private)] | None, _none_if("")
    ] = None
    """The provider of OpenID Connect, to the letter as its tokens name it in ``iss``."""
    console_oidc_client_id: Annotated[str | None, _none_if("")] = None
    console_oidc_client_secret: Annotated[Token | None, _none_if("")] = None
    """The console as the provider knows it."""
    console_oidc_scopes: Annotated[str, AfterValidator(_scopes)] = "openid"
    """What is asked for, separated by spaces."""
    console_oidc_name_claim: str = Field("sub", min_length=1)
    """The claim of the ID token with the name for the audit trail."""
    console_oidc_roles_claim: str = Field("kratos_sync_roles", min_length=1)
    """The one with the list of roles; ``realm_access.roles`` leads into a claim."""
    console_oidc_second_factor_acr: Words = ()
    """Values of ``acr`` that say that there was a second factor, separated by commas.

    The provider is asked for them. Without them ``amr`` says it.
    """
    console_kratos_config: Annotated[Path | None, _none_if("")] = None
    """Kratos' own configuration file: the console shows which of its flows call this service."""
    console_session_hours: int = Field(8, ge=1, le=24)
    """When a session ends that began by OIDC or a link.

    One that began by OIDC also ends when it was not used for half an hour.
    """
    console_kept_seconds: int = Field(15, ge=0, le=300)
    """How old the first page's report and the groups of dead letters may be.

    They are refreshed every few seconds while somebody looks; with 0 each page asks by itself.
    """
    traces_per_second: int = Field(10, ge=0, le=1_000)
    """The most traces a second of a process that callers, such as Kratos, may ask for.

    Without ``OTEL_TRACES_SAMPLER`` also the most that it begins. Beyond it a share is traced.
    """
    traces_statements: bool = False
    """Whether spans of statements to PostgreSQL and Redis are traced too."""

    @classmethod
    def settings_customise_sources(  # type: ignore[override]  # any callable is a source
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003  # pydantic's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[Callable[[], dict[str, Any]], ...]:
        """The environment, and the files that it names, come before `.env`.

        A secret, or the URL that it is sent to, is taken from `.env` only if the other is not in
        the environment.
        """
        first = {**env_settings(), **from_files(os.environ)}

        def environment() -> dict[str, Any]:
            return first

        def dotenv() -> dict[str, Any]:
            if not isinstance(dotenv_settings, DotEnvSettingsSource):
                found = dotenv_settings()
            else:
                read_literally(dotenv_settings)
                found = dotenv_settings() | refused_in_dotenv(dotenv_settings.env_vars)
            for name in TOGETHER.keys() & found.keys() - first.keys():
                other = TOGETHER[name]
                if found[name] and first.get(other) and first[other] != found.get(other):
                    found[name] = from_two_sources(name)
            return found

        return init_settings, environment, dotenv, file_secret_settings

    @field_validator(*FROM_FILES, mode="before")
    @classmethod
    def _is_not_refused(cls, given: object) -> object:
        if isinstance(given, Refused):
            raise ValueError(given.reason)  # noqa: TRY004  # pydantic's
        return given

    @field_validator("kratos_refetch")
    @classmethod
    def _needs_admin_url(cls, wanted: bool, others: ValidationInfo) -> bool:
        if wanted and others.data.get("kratos_admin_url", ...) is None:
            raise ValueError("needs KRATOS_ADMIN_URL, to ask there")
        return wanted

    @property
    def direct_url(self) -> SecretStr:
        """For what needs sessions of its own: LISTEN, locks of a session, migrations."""
        return self.database_direct_url or self.database_url

    @property
    def second_metrics_port(self) -> int | None:
        """The port of the second process of `kratos-sync all`."""
        return None if self.metrics_port is None else self.metrics_port + 1

    @property
    def retention(self) -> Retention:
        """What a purge keeps."""
        days = (self.events_retention_days, self.attempts_retention_days)
        return Retention(*(None if number is None else timedelta(days=number) for number in days))

    @property
    def operations_kept(self) -> timedelta | None:
        """How long operations are kept; None is for ever."""
        days = self.operations_retention_days
        return None if days is None else timedelta(days=days)

    @property
    def purge_every(self) -> timedelta | None:
        """The time from one purge to the next; None for never."""
        return None if self.purge_every_hours is None else timedelta(hours=self.purge_every_hours)

    @property
    def lease(self) -> timedelta:
        """The lease as a duration."""
        return timedelta(seconds=self.lease_seconds)

    @property
    def kratos_urls(self) -> list[str]:
        """Where Kratos' public API is, for us and for browsers."""
        urls = (self.kratos_public_url, self.kratos_browser_url)
        return [url.get_secret_value() for url in urls if url is not None]
