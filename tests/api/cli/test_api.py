"""`kratos-sync api` with somebody's parse handler."""

from functools import partial

import pytest
from pydantic import SecretStr

from kratos_sync import Application
from kratos_sync.api.cli.api import _parse_handler
from kratos_sync.api.http.webhooks.handler import KratosWebHookHandlerConfig
from kratos_sync.api.http.webhooks.parse_identity import KratosIdentityParseHandler
from kratos_sync.application.application import InvalidApplication
from kratos_sync.infrastructure.container import Container

CONFIG = KratosWebHookHandlerConfig(("a key of no worth",))


class RefuseRobots(KratosIdentityParseHandler):
    """An application's own."""


def handler_of(application: Application | None) -> KratosIdentityParseHandler:
    container = Container()
    container.application.override(application)
    return _parse_handler(container, CONFIG)


@pytest.mark.parametrize(
    "application", [None, Application(subscriptions={})], ids=["no application", "none of its own"]
)
def test_without_one_of_its_own_an_application_has_the_services(
    application: Application | None,
) -> None:
    assert type(handler_of(application)) is KratosIdentityParseHandler


@pytest.mark.parametrize("given", [RefuseRobots, partial(RefuseRobots, on_failure="let_in")])
def test_an_application_may_have_its_own(given: type[KratosIdentityParseHandler]) -> None:
    assert type(handler_of(Application(subscriptions={}, parse_handler=given))) is RefuseRobots


def test_what_makes_no_parse_handler_is_refused() -> None:
    with pytest.raises(InvalidApplication, match="makes no KratosIdentityParseHandler"):
        handler_of(Application(subscriptions={}, parse_handler=SecretStr))
