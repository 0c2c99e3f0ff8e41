"""`GET /openapi.json`: the requests that are accepted, and every answer to them."""

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from kratos_sync.domain import fields
from kratos_sync.domain.identity import SCALARS
from kratos_sync.domain.json_values import Json

NO_UUID: Final = "00000000-0000-0000-0000-000000000000"
_HEX: Final = "[0-9a-fA-F]"
_NULL: Final[Json] = {"type": "null"}
_STRING: Final[Json] = {"type": "string"}
_UUID: Final[dict[str, Json]] = {
    "type": "string",
    "pattern": f"^{_HEX}{{8}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}$",
    "example": "e52e75c7-afbb-4316-a4ef-3977a428a2ca",
}
_TEXT: Final[Json] = {"type": ["string", "null"]}
_UUID_OR_NULL: Final[Json] = {"anyOf": [_UUID, _NULL]}
_DATE_TIME: Final[Json] = {
    "type": "string",
    "format": "date-time",
    "pattern": "^(000[2-9]|00[1-9]|0[1-9]|[1-8])",
}
_TIME: Final[Json] = {
    "description": "RFC 3339, of the years 1 to 9999 in UTC.",
    "anyOf": [_DATE_TIME, _NULL],
}


def _reference(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(required: list[Json], properties: dict[str, Json]) -> dict[str, Json]:
    return {"type": "object", "required": required, "properties": properties}


def _one_or_more(items: Json) -> Json:
    return {"type": "array", "minItems": 1, "items": items}


def _list_of(name: str) -> Json:
    return {"type": ["array", "null"], "items": _reference(name)}


_RECOVERY: Final[dict[str, Json]] = {
    "id": _UUID_OR_NULL,
    "value": _STRING,
    "via": {"type": "string", "example": "email"},
    "created_at": _TIME,
    "updated_at": _TIME,
}
_VERIFICATION: Final[dict[str, Json]] = {
    "verified": {"type": ["boolean", "null"]},
    "status": _TEXT,
    "verified_at": _TIME,
}
_SCALARS: Final[Mapping[object, Json]] = {
    fields.text: _TEXT,
    fields.time: _TIME,
    fields.uuid: _UUID_OR_NULL,
}
_IDENTITY: Final[dict[str, Json]] = {
    "id": {**_UUID, "not": {"const": NO_UUID}},
    "updated_at": _TIME,
    **{name: _SCALARS[read] for name, read in SCALARS.items()},
    "state": {"type": ["string", "null"], "example": "active"},
    "traits": {"description": "Any JSON; what the identity's schema says."},
    "metadata_public": {"description": "Any JSON."},
    "metadata_admin": {"description": "Any JSON. Webhooks of Kratos never carry it."},
    "verifiable_addresses": _list_of("VerifiableAddress"),
    "recovery_addresses": _list_of("RecoveryAddress"),
}
_PARSED: Final[dict[str, Json]] = {
    "id": {"anyOf": [_UUID, {"enum": ["", None]}]},
    "schema_id": _TEXT,
    "state": _TEXT,
    "external_id": _TEXT,
    "traits": {},
    "metadata_public": {},
}
_MESSAGE: Final[dict[str, Json]] = {
    "id": {"type": "integer", "description": "The status, or 1 to 3 of a 422."},
    "text": _STRING,
    "type": _STRING,
    "context": {"type": ["object", "null"]},
}
_ERROR: Final[dict[str, Json]] = {
    "instance_ptr": {"type": ["string", "null"], "example": "#/identity/updated_at"},
    "messages": _one_or_more(_object(list(_MESSAGE), _MESSAGE)),
}
_UNHEALTHY: Final[dict[str, Json]] = {
    "status": {"const": "unavailable"},
    "down": {"type": "array", "items": _STRING, "example": ["database"]},
    "reasons": {"type": "object", "additionalProperties": _STRING},
}

SCHEMAS: Final[dict[str, Json]] = {
    "IdentityBody": _object(["identity"], {"identity": _reference("Identity")}),
    "Identity": {
        "description": "`ctx.identity` of Kratos. Fields that are not listed are kept.",
        **_object(["id"], _IDENTITY),
    },
    "ParseBody": _object(["identity"], {"identity": _reference("Parsed")}),
    "Parsed": {
        "description": "`ctx.identity` of a hook that parses; at a registration it has no id.",
        **_object([], _PARSED),
    },
    "VerifiableAddress": _object(["value", "via"], {**_RECOVERY, **_VERIFICATION}),
    "RecoveryAddress": _object(["value", "via"], _RECOVERY),
    "Accepted": {"type": "object", "maxProperties": 0},
    "Changes": _object([], {"identity": {"type": "object"}}),
    "Healthy": {
        **_object(["status"], {"status": {"const": "ok"}}),
        "additionalProperties": False,
    },
    "Unhealthy": _object(["status", "down"], _UNHEALTHY),
    "Errors": {
        "description": "Kratos' own form.",
        **_object(["messages"], {"messages": _one_or_more(_object(list(_ERROR), _ERROR))}),
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
    503: "There is no room, PostgreSQL stayed away for 25 s, or another deployment holds the"
    " identity (`IDENTITY_IDS`). Send it again.",
}
_TO_ANY_REQUEST: Final = (400, 408, 431, 501, 503)
_HOOK_HEADERS: Final[Json] = [
    {"name": name, "in": "header", "description": description, "schema": _STRING}
    for name, description in (
        ("Ory-Webhook-Trigger-Id", "A call's id, by which its further attempts are known."),
        ("X-Kratos-Hook", "A name for the hook, for the log."),
        ("traceparent", "W3C Trace Context."),
    )
]


def document(key_header: str) -> dict[str, Json]:
    """The description, in OpenAPI 3.1, of a service whose key is in that header."""
    sync = "Say what an identity is now; 200 means that it is recorded."
    parse = "Ask before an identity is stored; nothing is recorded."
    live, ready = "May this process go on?", "May it be sent calls?"
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "kratos-identity-sync",
            "version": "1",
            "description": "Takes the webhooks of Ory Kratos.",
        },
        "paths": {
            "/kratos/sync-identity": _post(sync, "syncIdentity", "IdentityBody", "Accepted"),
            "/kratos/parse-identity": _post(parse, "parseIdentity", "ParseBody", "Changes"),
            "/health/live": _get(live, "live", "Healthy"),
            "/health/ready": _get(ready, "ready", "Healthy", {503: "Unhealthy"}),
            "/openapi.json": _get("This document.", "openapi", None),
        },
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {"key": {"type": "apiKey", "in": "header", "name": key_header}},
        },
    }


def endpoint(key_header: str) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint that answers with the document."""
    body = json.dumps(document(key_header), separators=(",", ":")).encode()

    async def answer(request: Request) -> Response:  # noqa: ARG001
        return Response(body, media_type="application/json")

    return answer


def _post(summary: str, operation: str, body: str, answer: str) -> Json:
    operation_object: Json = {
        "summary": summary,
        "operationId": operation,
        "security": [{"key": []}],
        "parameters": _HOOK_HEADERS,
        "requestBody": {"required": True, "content": _content(_reference(body))},
        "responses": {"200": _answer("Done.", answer), **_errors(ANSWERS)},
    }
    return {"post": operation_object}


def _get(
    summary: str, operation: str, answer: str | None, others: dict[int, str] | None = None
) -> Json:
    responses = {"200": _answer("The answer.", answer), **_errors(_TO_ANY_REQUEST)}
    for status, name in (others or {}).items():
        content = _content({"anyOf": [_reference(name), _reference("Errors")]})
        responses[str(status)] = {"description": "No, or there is no room.", "content": content}
    return {"get": {"summary": summary, "operationId": operation, "responses": responses}}


def _errors(statuses: Iterable[int]) -> dict[str, Json]:
    return {str(status): _answer(ANSWERS[status], "Errors") for status in statuses}


def _answer(description: str, name: str | None) -> Json:
    schema: Json = {"type": "object"} if name is None else _reference(name)
    return {"description": description, "content": _content(schema)}


def _content(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}
