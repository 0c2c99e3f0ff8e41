"""The two settings that Kratos must know too, without the others that a service needs."""

import os

import click
from dotenv import dotenv_values
from pydantic import TypeAdapter, ValidationError

from infrastructure.setting_types import KeyHeader

HEADER = "KRATOS_WEBHOOK_API_KEY_HEADER"
KEYS = "KRATOS_WEBHOOK_API_KEYS"


def key_header() -> str:
    """Give the header that we look for the key in; click.UsageError for one that is taken."""
    header = _setting(HEADER) or "X-Api-Key"
    try:
        return TypeAdapter[str](KeyHeader).validate_python(header)
    except ValidationError as error:
        raise click.UsageError(f"{HEADER}: {error.errors()[0]['msg']}") from None


def first_key() -> str:
    """Give the key that Kratos shall send; click.UsageError if none is set."""
    for key in (_setting(KEYS) or "").split(","):
        if key.strip():
            return key.strip()
    raise click.UsageError(f"set {KEYS}: it is empty.")


def _setting(name: str) -> str | None:
    return os.environ.get(name) or dotenv_values(".env").get(name)
