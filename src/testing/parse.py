"""For tests of applications: what Kratos would do with an identity, given their `parse`."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from kratos_sync.api.http.webhooks.handler import KratosWebHookHandlerConfig
from kratos_sync.api.http.webhooks.parse_identity import KratosIdentityParseHandler
from kratos_sync.api.http.webhooks.parsed_identity import ParsedIdentity, RefuseIdentity
from kratos_sync.api.http.webhooks.rejections import DetailedMessage, ErrorMessage
from kratos_sync.domain.json_values import Json

CONFIG: Final = KratosWebHookHandlerConfig(("a key of no worth",))
"""Enough to build a handler that is not called over HTTP."""

_NO_ID: Final = "00000000-0000-0000-0000-000000000000"
_ID: Final = "479ec915-8030-4988-a623-3e10904c1cd0"
_NO_TIME: Final = "0001-01-01T00:00:00Z"
_TIME: Final = "2026-11-23T03:25:27.256708Z"


@dataclass(frozen=True, slots=True)
class Stored:
    """Kratos would store `document`, if it fits the schema; `parse` set the `changed` fields."""

    document: Mapping[str, Json]
    changed: frozenset[str]

    @property
    def traits(self) -> Json:
        """All traits, changed or not."""
        return self.document["traits"]

    @property
    def metadata_public(self) -> Json:
        """Metadata that the session shows."""
        return self.document["metadata_public"]

    @property
    def metadata_admin(self) -> Json:
        """Metadata that only the Admin API shows; a hook never gets it, so None unless changed."""
        return self.document.get("metadata_admin")

    @property
    def external_id(self) -> Json:
        """The application's own id, or None."""
        return self.document.get("external_id")


@dataclass(frozen=True, slots=True)
class Refused:
    """Kratos would store nothing, and show these messages."""

    messages: tuple[ErrorMessage, ...]

    def at(self, pointer: str | None) -> list[DetailedMessage]:
        """The messages at one place, as `field("email")`; None is above the form."""
        return [
            message
            for each in self.messages
            if each.instance_ptr == pointer
            for message in each.messages
        ]


def ask(
    handler: KratosIdentityParseHandler,
    traits: Mapping[str, Json],
    *,
    registration: bool = True,
    **fields: Json,
) -> Stored | Refused:
    """Call `parse` as Kratos does at a registration, or for a person's settings.

    Time limit, threads and checks are those of the service. A failure there raises ParseFailed
    here, with its cause. Tests that are coroutines use `asked`.
    """
    return asyncio.run(asked(handler, traits, registration=registration, **fields))


async def asked(
    handler: KratosIdentityParseHandler,
    traits: Mapping[str, Json],
    *,
    registration: bool = True,
    **fields: Json,
) -> Stored | Refused:
    """As `ask`, for coroutines."""
    time = _NO_TIME if registration else _TIME
    document: dict[str, Json] = {
        "id": _NO_ID if registration else _ID,
        "schema_id": "default",
        "schema_url": "",
        "state": "active",
        "state_changed_at": _TIME,
        "traits": dict(traits),
        "metadata_public": None,
        "organization_id": None,
        "created_at": time,
        "updated_at": time,
        **fields,
    }
    try:
        changes = await handler.decide(ParsedIdentity.from_kratos(document))
    except RefuseIdentity as refusal:
        return Refused(tuple(refusal.messages))
    return Stored({**document, **changes}, frozenset(changes))
