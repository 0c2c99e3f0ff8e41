"""What a deployment may set, from the environment or a ``.env`` file."""

from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from application.ports.purge import Retention
from infrastructure.setting_types import (
    Apart,
    ApiKeys,
    BrokerUrl,
    DatabaseUrl,
    Days,
    Hours,
    HttpUrl,
    KeyHeader,
    NotApart,
    Token,
    or_none,
)

ADMIN_URL_AND_TOKEN: Final = frozenset({"kratos_admin_url", "kratos_admin_token"})


class Settings(BaseSettings):
    """Every setting, typed; what is secret does not show when printed.

    Raises pydantic's ValidationError, naming each setting that is missing or wrong.
    """

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", hide_input_in_errors=True)

    database_url: DatabaseUrl
    broker_url: BrokerUrl
    kratos_webhook_api_keys: ApiKeys = ()
    """Any of them opens, so that a key can be changed without a gap."""
    kratos_webhook_api_key_header: KeyHeader = "X-Api-Key"
    kratos_admin_url: Annotated[HttpUrl | None, or_none(""), NotApart] = None
    """Where Kratos' Admin API is, with the path before `/admin` if there is one."""
    kratos_public_url: Annotated[HttpUrl | None, or_none("")] = None
    kratos_browser_url: Annotated[HttpUrl | None, or_none("")] = None
    """Where browsers find Kratos' public API, if that is elsewhere than where services do."""
    kratos_admin_token: Annotated[Token | None, or_none(""), NotApart] = None
    """A bearer token for the Admin API, as Ory Network wants one."""
    kratos_refetch: bool = False
    """Take a webhook as a hint only, and ask the Admin API what the identity is."""
    log_format: Literal["console", "json"] = "console"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    database_pool_size: int = Field(8, ge=2, le=200)
    worker_threads: int = Field(4, ge=1, le=64)
    lease_seconds: int = Field(30, ge=5, le=3600)
    """How long a dispatched delivery is left alone before it is sent again."""

    events_retention_days: Days = 90
    """How long events are kept; ``forever`` is a word for it.

    A purge never takes what is outstanding. Nor does it make us forget a call that Kratos repeats,
    which it does within minutes: a day is the least.
    """
    attempts_retention_days: Days = 30
    """How long attempts are kept, likewise."""
    purge_every_hours: Hours = 1
    """How often the relay purges; ``never`` leaves it to `kratos-sync purge`."""

    @classmethod
    def settings_customise_sources(  # type: ignore[override]  # any callable is a source
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003  # pydantic's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[Callable[[], dict[str, Any]], ...]:
        """Let neither an admin URL nor its token come from `.env` if the other is elsewhere."""

        def together() -> dict[str, Any]:
            found, first = dotenv_settings(), env_settings()
            for name in ADMIN_URL_AND_TOKEN & found.keys() - first.keys():
                (other,) = ADMIN_URL_AND_TOKEN - {name}
                if found[name] and first.get(other) and first[other] != found.get(other):
                    found[name] = Apart()
            return found

        return init_settings, env_settings, together, file_secret_settings

    @field_validator("kratos_refetch")
    @classmethod
    def _has_whom_to_ask(cls, wanted: bool, others: ValidationInfo) -> bool:
        if wanted and others.data.get("kratos_admin_url", ...) is None:
            raise ValueError("needs KRATOS_ADMIN_URL, to ask there")
        return wanted

    @property
    def retention(self) -> Retention:
        """What a purge leaves."""
        days = (self.events_retention_days, self.attempts_retention_days)
        return Retention(*(None if number is None else timedelta(days=number) for number in days))

    @property
    def purge_every(self) -> timedelta | None:
        """How long after a purge the relay makes the next; None for never."""
        return None if self.purge_every_hours is None else timedelta(hours=self.purge_every_hours)

    @property
    def lease(self) -> timedelta:
        """The lease as a duration."""
        return timedelta(seconds=self.lease_seconds)
