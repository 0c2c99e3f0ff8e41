"""Who answers Kratos' `parse` hooks: the one line that an application changes."""

from collections.abc import Callable
from typing import Final

from api.webhooks.handler import KratosWebHookHandlerConfig
from api.webhooks.parse_identity import KratosIdentityParseHandler

PARSE_HANDLER: Final[Callable[[KratosWebHookHandlerConfig], KratosIdentityParseHandler]] = (
    KratosIdentityParseHandler
)
"""A class, or `partial(Registrations, on_failure="let_in")`, or a function that builds one."""
