"""The two settings that Kratos must know too, without the others that a service needs."""

import os

import click
from dotenv import dotenv_values

HEADER = "KRATOS_WEBHOOK_API_KEY_HEADER"
KEYS = "KRATOS_WEBHOOK_API_KEYS"


def key_header() -> str:
    """Give the header that we look for the key in."""
    return _setting(HEADER) or "X-Api-Key"


def first_key() -> str:
    """Give the key that Kratos shall send; click.UsageError if none is set."""
    for key in (_setting(KEYS) or "").split(","):
        if key.strip():
            return key.strip()
    raise click.UsageError(f"set {KEYS}: it is empty.")


def _setting(name: str) -> str | None:
    return os.environ.get(name) or dotenv_values(".env").get(name)
