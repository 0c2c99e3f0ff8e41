"""Documents of made-up people, as an administrator would have made them."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

THEN = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)


def person(identity_id: UUID | None = None, **fields: Any) -> dict[str, Any]:
    """One whole document; a field of None is null, and `...` leaves it out."""
    identity_id = identity_id or uuid4()
    name = f"person-{identity_id.hex[:12]}"
    when = THEN.isoformat().replace("+00:00", "Z")
    times = {"created_at": when, "updated_at": when}
    address = {"value": f"{name}@example.org", "via": "email", **times}
    document = {
        "id": str(identity_id),
        "schema_id": "person",
        "schema_url": "http://127.0.0.1:4433/schemas/cGVyc29u",
        "state": "active",
        "state_changed_at": when,
        "traits": {"email": address["value"]},
        "verifiable_addresses": [
            {"id": str(uuid4()), "verified": False, "status": "pending", **address}
        ],
        "recovery_addresses": [{"id": str(uuid4()), **address}],
        "metadata_public": None,
        "metadata_admin": None,
        **times,
        "organization_id": None,
        **fields,
    }
    return {key: value for key, value in document.items() if value is not ...}


def many(number: int) -> list[dict[str, Any]]:
    """So many people, in the order of their ids."""
    return sorted((person() for _ in range(number)), key=lambda document: str(document["id"]))
