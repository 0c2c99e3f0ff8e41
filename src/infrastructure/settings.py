"""What a deployment may set, from the environment or a ``.env`` file."""

from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from redis.connection import parse_url
from sqlalchemy import make_url


def _url_of(parse: Callable[[str], object], *schemes: str) -> AfterValidator:
    def check(url: SecretStr) -> SecretStr:
        if url.get_secret_value().partition("://")[0] not in schemes:
            raise ValueError(f"must be a URL that starts with {' or '.join(schemes)}")
        try:
            parse(url.get_secret_value())
        except Exception:  # noqa: BLE001  # whatever it is, it may quote a piece of the password
            raise ValueError("is no URL: in a password, is every @ : / escaped?") from None
        return url

    return AfterValidator(check)


def _split(keys: object) -> object:
    return tuple(k.strip() for k in keys.split(",") if k.strip()) if isinstance(keys, str) else keys


DatabaseUrl = Annotated[SecretStr, _url_of(make_url, "postgresql", "postgres")]
BrokerUrl = Annotated[SecretStr, _url_of(parse_url, "redis", "rediss", "unix")]
ApiKeys = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_split)]


class Settings(BaseSettings):
    """Every setting, typed; what is secret does not show when printed.

    Raises pydantic's ValidationError, naming each setting that is missing or wrong.
    """

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", hide_input_in_errors=True)

    database_url: DatabaseUrl
    broker_url: BrokerUrl
    kratos_webhook_api_keys: ApiKeys = ()
    """Any of them opens, so that a key can be changed without a gap."""
    kratos_webhook_api_key_header: str = Field("X-Api-Key", pattern=r"^[A-Za-z0-9-]+$")
    log_format: Literal["console", "json"] = "console"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    database_pool_size: int = Field(8, ge=2, le=200)
    worker_threads: int = Field(4, ge=1, le=64)
    lease_seconds: int = Field(30, ge=5, le=3600)
    """How long a dispatched delivery is left alone before it is sent again."""

    @property
    def lease(self) -> timedelta:
        """The lease as a duration."""
        return timedelta(seconds=self.lease_seconds)
