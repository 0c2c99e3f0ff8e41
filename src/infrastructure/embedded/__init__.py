"""Real servers from wheels, for `kratos-sync dev` and the tests: no Docker, nothing to set up.

Knows nothing of the service: starts PostgreSQL and Valkey in a directory, says where they listen.
"""

from kratos_sync.infrastructure.embedded.postgres import EmbeddedPostgres
from kratos_sync.infrastructure.embedded.server import (
    DirectoryInUse,
    EmbeddedServerError,
    ServerFailed,
    ServerNotInstalled,
    owned,
)
from kratos_sync.infrastructure.embedded.valkey import EmbeddedValkey

__all__ = [
    "DirectoryInUse",
    "EmbeddedPostgres",
    "EmbeddedServerError",
    "EmbeddedValkey",
    "ServerFailed",
    "ServerNotInstalled",
    "owned",
]
