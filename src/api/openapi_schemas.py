"""The JSON Schemas of what is sent to us, and of what we answer."""

from typing import Final

from domain.json_values import Json

NO_UUID: Final = "00000000-0000-0000-0000-000000000000"
_HEX: Final = "[0-9a-fA-F]"
_UUID: Final[dict[str, Json]] = {
    "type": "string",
    "pattern": f"^{_HEX}{{8}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}$",
    "example": "e52e75c7-afbb-4316-a4ef-3977a428a2ca",
}
_TEXT: Final[Json] = {"type": ["string", "null"]}
_UUID_OR_NULL: Final[Json] = {"anyOf": [_UUID, {"type": "null"}]}
_TIME: Final[Json] = {
    "description": "RFC 3339, of the years 1 to 9999 in UTC.",
    "anyOf": [
        {"type": "string", "format": "date-time", "pattern": "^(000[2-9]|00[1-9]|0[1-9]|[1-8])"},
        {"type": "null"},
    ],
}


def _object(required: list[Json], properties: dict[str, Json]) -> dict[str, Json]:
    return {"type": "object", "required": required, "properties": properties}


def _list_of(name: str) -> Json:
    return {"type": ["array", "null"], "items": {"$ref": f"#/components/schemas/{name}"}}


_RECOVERY: Final[dict[str, Json]] = {
    "id": _UUID_OR_NULL,
    "value": {"type": "string"},
    "via": {"type": "string", "example": "email"},
    "created_at": _TIME,
    "updated_at": _TIME,
}
_VERIFICATION: Final[dict[str, Json]] = {
    "verified": {"type": ["boolean", "null"]},
    "status": _TEXT,
    "verified_at": _TIME,
}
_IDENTITY: Final[dict[str, Json]] = {
    "id": {**_UUID, "not": {"const": NO_UUID}},
    "external_id": _TEXT,
    "schema_id": _TEXT,
    "schema_url": _TEXT,
    "state": {"type": ["string", "null"], "example": "active"},
    "state_changed_at": _TIME,
    "traits": {"description": "Any JSON; what the identity's schema says."},
    "verifiable_addresses": _list_of("VerifiableAddress"),
    "recovery_addresses": _list_of("RecoveryAddress"),
    "metadata_public": {"description": "Any JSON."},
    "metadata_admin": {"description": "Any JSON. Webhooks of Kratos never carry it."},
    "created_at": _TIME,
    "updated_at": _TIME,
    "organization_id": _UUID_OR_NULL,
    "region": _TEXT,
}
_MESSAGE: Final[dict[str, Json]] = {
    "id": {"type": "integer", "description": "The status, or 1 to 3 of a 422."},
    "text": {"type": "string"},
    "type": {"type": "string"},
    "context": {"type": ["object", "null"]},
}

SCHEMAS: Final[dict[str, Json]] = {
    "IdentityBody": _object(["identity"], {"identity": {"$ref": "#/components/schemas/Identity"}}),
    "Identity": {
        "description": "`ctx.identity` of Kratos. Fields that are not listed are kept.",
        **_object(["id"], _IDENTITY),
    },
    "ParseBody": _object(["identity"], {"identity": {"$ref": "#/components/schemas/Parsed"}}),
    "Parsed": {
        "description": "`ctx.identity` of a hook that parses; at a registration it has no id.",
        **_object(
            [],
            {
                "id": {"anyOf": [_UUID, {"enum": ["", None]}]},
                "schema_id": _TEXT,
                "state": _TEXT,
                "external_id": _TEXT,
                "traits": {},
                "metadata_public": {},
            },
        ),
    },
    "VerifiableAddress": _object(["value", "via"], {**_RECOVERY, **_VERIFICATION}),
    "RecoveryAddress": _object(["value", "via"], _RECOVERY),
    "Accepted": {"type": "object", "maxProperties": 0},
    "Changes": _object([], {"identity": {"type": "object"}}),
    "Healthy": {
        **_object(["status"], {"status": {"const": "ok"}}),
        "additionalProperties": False,
    },
    "Unhealthy": _object(
        ["status", "down"],
        {
            "status": {"const": "unavailable"},
            "down": {"type": "array", "items": {"type": "string"}, "example": ["database"]},
            "reasons": {"type": "object", "additionalProperties": {"type": "string"}},
        },
    ),
    "Errors": {
        "description": "Kratos' own form.",
        **_object(
            ["messages"],
            {
                "messages": {
                    "type": "array",
                    "minItems": 1,
                    "items": _object(
                        ["instance_ptr", "messages"],
                        {
                            "instance_ptr": {
                                "type": ["string", "null"],
                                "example": "#/identity/updated_at",
                            },
                            "messages": {
                                "type": "array",
                                "minItems": 1,
                                "items": _object(list(_MESSAGE), _MESSAGE),
                            },
                        },
                    ),
                }
            },
        ),
    },
}
