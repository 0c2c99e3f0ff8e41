"""What each role may do: every form of the console is sent as everybody."""

import re
from collections.abc import Sequence
from http import HTTPStatus

from sqlalchemy import Engine, text

from kratos_sync.api.http.console.access import NoRole, Operator, Role
from kratos_sync.api.http.console.app import ConsoleRoute, create_console
from kratos_sync.infrastructure.container import Container
from tests.api.http.console.visiting import (
    OPERATOR,
    PRIVACY,
    VIEWER,
    SignedIn,
    Visitor,
    open_routes,
)
from tests.infrastructure.ledger.rows import SOMEBODY

VISITORS: dict[str, Operator | Exception | None] = {
    "nobody": None,
    "no role": NoRole(),
    Role.VIEWER: VIEWER,
    Role.OPERATOR: OPERATOR,
    Role.PRIVACY: PRIVACY,
}
ALL = {Role.VIEWER, Role.OPERATOR, Role.PRIVACY}
MAY = {
    "/identity": ALL,
    "/identity/{id:uuid}/data": {Role.PRIVACY},
    "/identity/{id:uuid}/delete": {Role.PRIVACY},
    "/identity/{id:uuid}/erase": {Role.PRIVACY},
    "/identity/{id:uuid}/sync": {Role.OPERATOR},
    "/identity/{id:uuid}/replay": {Role.OPERATOR},
    "/events/{id:uuid}/data": {Role.PRIVACY},
    "/events/{id:uuid}/try": {Role.OPERATOR},
    "/events/replay": {Role.OPERATOR},
    "/failures/{key}/retry": {Role.OPERATOR},
    "/failures/{key}/discard": {Role.OPERATOR},
    "/failures/{key}/replay": {Role.OPERATOR},
    "/kratos/check": ALL,
    "/kratos/reconcile": {Role.OPERATOR},
    "/kratos/unlisted": {Role.PRIVACY},
    "/consumers/pause": {Role.OPERATOR},
    "/consumers/resume": {Role.OPERATOR},
    "/audit/{id:int}/stop": {Role.OPERATOR},
}
"""Who may send the form of each path: a form that stands here for nobody fails the test."""
CHECKS = len(MAY) * len(VISITORS)
VALUES = {"id:uuid": str(SOMEBODY), "id:int": "1", "key": "0" * 16}
REFUSED = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
UNDERSTOOD = {HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND}
"""The answers to an empty form of somebody who may send it."""


def address_of(path: str) -> str:
    return re.sub(r"{([^}]+)}", lambda found: VALUES[found[1]], path)


def visitors(routes: Sequence[ConsoleRoute]) -> dict[str, Visitor]:
    return {
        name: Visitor(create_console(SignedIn(operator), routes))
        for name, operator in VISITORS.items()
    }


def test_every_form_is_for_its_roles_alone(container: Container, engine: Engine) -> None:
    with open_routes(container) as routes:
        forms = [each.path for each in routes if each.method != "GET"]
        assert sorted(forms) == sorted(MAY)
        answered = {
            (path, name): visitor.post(address_of(path))
            for name, visitor in visitors(routes).items()
            for path in forms
        }
    assert len(answered) == CHECKS
    wrong = {
        key: answer.status_code
        for key, answer in answered.items()
        if answer.status_code not in (UNDERSTOOD if key[1] in MAY[key[0]] else REFUSED)
    }
    assert wrong == {}
    with engine.connect() as connection:
        operations = text("SELECT count(*) FROM kratos_sync.operations")
        assert connection.execute(operations).scalar_one() == 0


def test_every_page_is_for_whoever_has_a_role(container: Container) -> None:
    with open_routes(container) as routes:
        pages = [each.path for each in routes if each.method == "GET"]
        for name, visitor in visitors(routes).items():
            for path in pages:
                answer = visitor.get(address_of(path))
                if name == "nobody":
                    assert answer.headers["location"] == "https://sign-in.example/", path
                else:
                    assert (answer.status_code in REFUSED) is (name == "no role"), path
