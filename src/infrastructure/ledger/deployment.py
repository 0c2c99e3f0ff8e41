"""What tells this deployment from others that use the same broker."""

from typing import Final

from sqlalchemy import Engine, text

from infrastructure.bus.pointer_broker import NAMESPACE
from infrastructure.database import errors_in_our_words

# With the database's name: a copy of it that has another one does not share its queues.
ID: Final = text("""
    SELECT left(encode(sha256(convert_to(
               coalesce((SELECT id::text FROM kratos_sync.deployment), '')
               || current_database(), 'UTF8')), 'hex'), 12)
""")


def namespace(engine: Engine) -> str:
    """Give what the names of our queues begin with at the broker. Raises LedgerUnavailable."""
    with errors_in_our_words(), engine.connect() as connection:
        return f"{NAMESPACE}.{connection.execute(ID).scalar_one()}"
