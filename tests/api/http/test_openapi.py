"""The description of what may be sent here."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.routing import Route

from kratos_sync.api.http.openapi import SCHEMAS, document
from tests.api.http.client import Api


def described() -> Any:
    answer = Api().request("GET", "/openapi.json")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    return answer.json()


def test_every_route_is_described_and_every_description_is_a_route() -> None:
    app = Api().app
    routes = {
        (route.path, method.lower())
        for route in app.routes
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
    }
    paths = described()["paths"]
    assert len(routes) == len(app.routes) == 5
    assert routes == {(path, method) for path, methods in paths.items() for method in methods}


@pytest.mark.parametrize("header", ["X-Api-Key", "X-Kratos-Secret"])
def test_the_key_is_in_the_header_that_the_settings_say(header: str) -> None:
    described: Any = document(header)
    (scheme,) = described["components"]["securitySchemes"].values()
    assert scheme == {"type": "apiKey", "in": "header", "name": header}


def test_only_the_webhooks_want_a_key() -> None:
    secured = {
        path
        for path, methods in described()["paths"].items()
        for operation in methods.values()
        if operation.get("security") == [{"key": []}]
    }
    assert secured == {"/kratos/sync-identity", "/kratos/parse-identity"}


def test_every_schema_is_used_and_is_there() -> None:
    assert set(references(described())) == SCHEMAS.keys()


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict) and isinstance(value.get("$ref"), str):
        yield value["$ref"].removeprefix("#/components/schemas/")
    for item in value.values() if isinstance(value, dict) else ():
        yield from references(item)
    for item in value if isinstance(value, list) else ():
        yield from references(item)


def test_no_answer_of_a_webhook_is_left_out() -> None:
    paths = described()["paths"]
    for path in ("/kratos/sync-identity", "/kratos/parse-identity"):
        statuses = paths[path]["post"]["responses"].keys()
        assert json.loads(f"[{','.join(sorted(statuses))}]") == [
            *(200, 400, 403, 408, 413, 415, 422, 431, 500, 501, 503)
        ]
