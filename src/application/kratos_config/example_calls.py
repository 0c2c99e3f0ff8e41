"""Examples of what Kratos gives the template of a webhook."""

import json
from collections.abc import Mapping
from typing import Any, Final

ID: Final = "5f1bb7b2-3c1c-4d5e-8b0a-7a3c1f0e9d11"
CANARY: Final = "canary-of-a-cookie-or-token"
_TIME: Final = "2026-01-01T00:00:00Z"
_ADDRESS: Final[Mapping[str, Any]] = {
    "id": ID,
    "value": "ada@example.org",
    "verified": True,
    "via": "email",
    "status": "completed",
    "verified_at": _TIME,
    "created_at": _TIME,
    "updated_at": _TIME,
}
_SPARSE: Final[Mapping[str, Any]] = {
    "id": ID,
    "schema_id": "default",
    "schema_url": "https://kratos.example.org/schemas/ZGVmYXVsdA",
    "state": "active",
    "state_changed_at": _TIME,
    "traits": {"email": "ada@example.org"},
    "metadata_public": None,
    "created_at": _TIME,
    "updated_at": _TIME,
    "organization_id": None,
}
IDENTITY: Final[Mapping[str, Any]] = {
    **_SPARSE,
    "external_id": "ada",
    "traits": {
        "email": "ada@example.org",
        "username": "ada",
        "phone": "+442079460958",
        "name": {"first": "Ada", "last": "Lovelace"},
    },
    "metadata_public": {"role": "user"},
    "verifiable_addresses": [_ADDRESS],
    "recovery_addresses": [_ADDRESS],
}
_CALL: Final[Mapping[str, Any]] = {
    "flow": {
        "id": ID,
        "type": "browser",
        "expires_at": _TIME,
        "issued_at": _TIME,
        "created_at": _TIME,
        "updated_at": _TIME,
        "request_url": "https://kratos.example.org/self-service/login/browser",
        "return_to": "https://example.org/",
        "active": "password",
        "ui": {
            "action": "https://kratos.example.org/",
            "method": "POST",
            "nodes": [
                {"type": "input", "attributes": {"name": "csrf_token", "value": CANARY}},
            ],
            "messages": [],
        },
        "state": "success",
        "transient_payload": {},
        "organization_id": None,
        "identity": IDENTITY,
    },
    "request_headers": {
        name: ["value"]
        for name in (
            *("Accept", "Accept-Encoding", "Accept-Language", "Content-Length", "Content-Type"),
            *("Origin", "Referer", "User-Agent", "True-Client-Ip", "X-Forwarded-For", "Host"),
        )
    },
    "request_method": "POST",
    "request_url": "https://kratos.example.org/self-service/login?flow=1",
    "request_cookies": {"csrf_token": CANARY, "ory_kratos_session": CANARY},
    "identity": IDENTITY,
}
_SESSION: Final[Mapping[str, Any]] = {
    "id": ID,
    "active": True,
    "expires_at": _TIME,
    "authenticated_at": _TIME,
    "issued_at": _TIME,
    "authenticator_assurance_level": "aal1",
    "authentication_methods": [{"method": "password", "aal": "aal1", "completed_at": _TIME}],
    "identity": IDENTITY,
    "devices": [{"id": ID, "ip_address": "192.0.2.1", "user_agent": "agent", "location": ""}],
}
CONTEXTS: Final = tuple(
    json.dumps(context)
    for context in (
        {**_CALL, "session": _SESSION},
        _CALL,
        {**_CALL, "session": _SESSION, "request_headers": {}},
        {**_CALL, "session": _SESSION, "identity": _SPARSE},
    )
)
"""What Kratos gives a template: with and without a session, without headers, of a bare person."""
