"""`GET /openapi.json`: what may be sent here, and every answer to it."""

import json
from collections.abc import Awaitable, Callable
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from kratos_sync.domain.json_values import Json

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


ANSWERS: Final[dict[int, str]] = {
    400: "The body is not JSON in UTF-8, or the request is not HTTP. Do not send it again.",
    403: "The key is missing or wrong.",
    408: "Headers or body came too slowly: each has 10 s.",
    413: "The body is larger than 1 MiB.",
    415: "The body is not application/json, or it is compressed.",
    422: "The body is JSON, and no identity: the message says what is wrong, and where.",
    431: "The headers are larger than 64 KiB, or have more than 100 lines.",
    500: "Something went wrong here. Nothing was recorded, as far as is known: send it again.",
    501: "The body has a transfer coding other than chunked.",
    503: "There is no room, or PostgreSQL stayed away for 25 s. Send it again.",
}
_OF_ANY_CALL: Final = (400, 408, 431, 501, 503)
_OF_A_WEBHOOK: Final = (400, 403, 408, 413, 415, 422, 431, 500, 501, 503)
_HOOK_HEADERS: Final[Json] = [
    {"name": name, "in": "header", "description": description, "schema": {"type": "string"}}
    for name, description in (
        ("Ory-Webhook-Trigger-Id", "A call's id, by which its further attempts are known."),
        ("X-Kratos-Hook", "A name for the hook, for the log."),
        ("traceparent", "W3C Trace Context."),
    )
]


def document(key_header: str) -> dict[str, Json]:
    """The description, in OpenAPI 3.1, of a service whose key is in that header."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "kratos-identity-sync",
            "version": "1",
            "description": "Takes the webhooks of Ory Kratos.",
        },
        "paths": {
            "/kratos/sync-identity": {
                "post": _webhook(
                    "Say what an identity is now; 200 means that it is recorded.",
                    "syncIdentity",
                    "IdentityBody",
                    "Accepted",
                )
            },
            "/kratos/parse-identity": {
                "post": _webhook(
                    "Ask before an identity is stored; nothing is recorded.",
                    "parseIdentity",
                    "ParseBody",
                    "Changes",
                )
            },
            "/health/live": {"get": _question("May this process go on?", "live", "Healthy")},
            "/health/ready": {
                "get": _question("May it be sent calls?", "ready", "Healthy", {503: "Unhealthy"})
            },
            "/openapi.json": {"get": _question("This document.", "openapi", None)},
        },
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {
                "key": {"type": "apiKey", "in": "header", "name": key_header},
            },
        },
    }


def endpoint(key_header: str) -> Callable[[Request], Awaitable[Response]]:
    """What answers with the document."""
    body = json.dumps(document(key_header), separators=(",", ":")).encode()

    async def answer(request: Request) -> Response:  # noqa: ARG001
        return Response(body, media_type="application/json")

    return answer


def _webhook(summary: str, operation: str, body: str, answer: str) -> Json:
    return {
        "summary": summary,
        "operationId": operation,
        "security": [{"key": []}],
        "parameters": _HOOK_HEADERS,
        "requestBody": {"required": True, "content": _json_of(body)},
        "responses": {"200": _answer("Done.", answer), **_errors(_OF_A_WEBHOOK)},
    }


def _question(
    summary: str, operation: str, answer: str | None, others: dict[int, str] | None = None
) -> Json:
    responses = {"200": _answer("The answer.", answer), **_errors(_OF_ANY_CALL)}
    for status, name in (others or {}).items():
        schemas: list[Json] = [_reference(name), _reference("Errors")]
        content: Json = {"application/json": {"schema": {"anyOf": schemas}}}
        responses[str(status)] = {"description": "No, or there is no room.", "content": content}
    return {"summary": summary, "operationId": operation, "responses": responses}


def _errors(statuses: tuple[int, ...]) -> dict[str, Json]:
    return {str(status): _answer(ANSWERS[status], "Errors") for status in statuses}


def _answer(description: str, name: str | None) -> Json:
    return {"description": description, "content": _json_of(name)}


def _json_of(name: str | None) -> Json:
    schema: Json = {"type": "object"} if name is None else _reference(name)
    return {"application/json": {"schema": schema}}


def _reference(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}
