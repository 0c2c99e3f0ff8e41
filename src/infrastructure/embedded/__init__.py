"""Real servers from wheels, for `kratos-sync dev` and the tests: no Docker, nothing to set up.

Knows nothing of the service: starts PostgreSQL and Valkey in a directory, says where they listen.
"""

from infrastructure.embedded.postgres import EmbeddedPostgres
from infrastructure.embedded.server import (
    DirectoryInUse,
    EmbeddedServerError,
    ServerFailed,
    ServerNotInstalled,
    owned,
)
from infrastructure.embedded.valkey import EmbeddedValkey

__all__ = [
    "DirectoryInUse",
    "EmbeddedPostgres",
    "EmbeddedServerError",
    "EmbeddedValkey",
    "ServerFailed",
    "ServerNotInstalled",
    "owned",
]
