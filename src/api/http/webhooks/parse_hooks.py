"""The handler that answers Kratos' `parse` hooks: the one line that an application changes."""

from collections.abc import Callable
from typing import Final

from kratos_sync.api.http.webhooks.handler import KratosWebHookHandlerConfig
from kratos_sync.api.http.webhooks.parse_identity import KratosIdentityParseHandler

PARSE_HANDLER: Final[Callable[[KratosWebHookHandlerConfig], KratosIdentityParseHandler]] = (
    KratosIdentityParseHandler
)
"""A class, or `partial(Registrations, on_failure="let_in")`, or a function that builds one."""
