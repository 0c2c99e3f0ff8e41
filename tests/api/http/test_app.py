"""Routes, and what is answered where there is none."""

import pytest
from starlette.requests import Request
from starlette.responses import Response

from kratos_sync.api.http.webhooks.parse_identity import KratosIdentityParseHandler
from tests.api.http.client import PARSE, SYNC, Api, config, message


def test_an_unknown_path_is_404_in_kratos_form() -> None:
    answer = Api().request("GET", "/nowhere")
    assert answer.status_code == 404
    assert message(answer) == (None, 404, "not found")


@pytest.mark.parametrize("path", [SYNC, PARSE])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS"])
def test_a_webhook_is_only_posted(path: str, method: str) -> None:
    answer = Api().request(method, path)
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"
    assert message(answer) == (None, 405, "method not allowed")


def test_nothing_is_redirected_for_kratos_would_follow_without_the_body() -> None:
    assert Api().post(f"{SYNC}/", b"{}").status_code == 404


def test_an_error_outside_every_handler_is_500_in_kratos_form() -> None:
    class Broken(KratosIdentityParseHandler):
        async def handle(self, request: Request) -> Response:
            raise RuntimeError("ada@example.org")

    answer = Api(parse=Broken(config()), raises=False).post(PARSE, b"{}")
    assert message(answer) == (None, 500, "something went wrong")
