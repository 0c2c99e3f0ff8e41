"""`GET /openapi.json`: what may be sent here, and every answer to it."""

import json
from collections.abc import Awaitable, Callable
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from api.openapi_schemas import SCHEMAS
from domain.json_values import Json

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
