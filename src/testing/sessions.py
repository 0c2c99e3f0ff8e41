"""Sessions made for a test, of what an application says of them."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from kratos_sync.domain.json_values import Json
from kratos_sync.domain.session import KratosSession
from kratos_sync.testing.webhooks import webhook


def session(
    *,
    email: str | None = None,
    traits: Mapping[str, Json] | None = None,
    aal: str = "aal1",
    **fields: Json,
) -> KratosSession:
    """A session of a new identity that began now; other ``fields`` are those of the identity."""
    now = datetime.now(UTC)
    return KratosSession.from_kratos(
        {
            "id": str(uuid4()),
            "active": True,
            "authenticator_assurance_level": aal,
            "authenticated_at": now.isoformat(),
            "expires_at": (now + timedelta(days=1)).isoformat(),
            "authentication_methods": [{"method": "password", "aal": "aal1"}],
            "identity": {**webhook(email=email, traits=traits).identity, **fields},
        }
    )
