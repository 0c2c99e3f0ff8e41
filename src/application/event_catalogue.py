"""The catalogue of events: what each means and has, as JSON Schema and as AsyncAPI 3.

Made from the events' classes, so that it cannot differ from them.
"""

import dataclasses
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from kratos_sync.domain.events import (
    EVENTS,
    DomainEvent,
    KratosIdentityHinted,
    KratosIdentityUpdated,
    TraitChange,
)
from kratos_sync.domain.json_values import Json

_ID: Final = "e52e75c7-afbb-4316-a4ef-3977a428a2ca"
_TIME: Final = "2026-11-23T03:25:11.678152Z"
_UUID: Final[dict[str, Json]] = {"type": "string", "format": "uuid"}
_DATE_TIME: Final[dict[str, Json]] = {"type": "string", "format": "date-time"}
_CHANGE: Final[dict[str, Json]] = {
    "type": "object",
    "required": ["trait"],
    "properties": {"trait": {"type": "string"}, "old": {}, "new": {}},
}
_OF_TYPES: Final[Mapping[object, tuple[dict[str, Json], Json]]] = {
    UUID: (_UUID, _ID),
    int: ({"type": "integer"}, 2),
    bool: ({"type": "boolean"}, False),
    str: ({"type": "string"}, "email"),
    str | None: ({"type": ["string", "null"]}, "active"),
    datetime | None: ({"anyOf": [_DATE_TIME, {"type": "null"}]}, _TIME),
    Mapping[str, Json]: ({"type": "object"}, {"email": "ada@example.org"}),
    tuple[TraitChange, ...]: (
        {"type": "array", "items": _CHANGE},
        [{"trait": "email", "old": "ada@example.org", "new": "countess@example.org"}],
    ),
}
"""The schema and an example of a payload's field, by its type."""
_MEANINGS: Final = {
    "identity_id": "The identity's id.",
    "version": "The version of our copy afterwards: 1, and one more with each change.",
    "traits": "All traits; empty if Kratos has not sent them yet.",
    "created_at": "When Kratos created the identity.",
    "changes": "Each top-level trait that differs; a missing `old` or `new` means there was none.",
    "via": "The kind of the address: `email` or `sms`.",
    "value": "The address.",
    "verified_at": "When it was verified.",
    "old": "Before.",
    "new": "Afterwards.",
    "state_changed_at": "When Kratos changed it.",
    "by": "Who requested it.",
    "erase": "Whether what is recorded of the person is erased in the end.",
    "hook": "The hook's label; empty or null if it has none.",
    "method": "The method that the hook's label names, such as `password`; null if it names none.",
    "identity": "The identity's document, as Kratos sent it.",
    "heard_at": "When the first hint came, if that was before the Admin API was asked.",
}
_IDENTITY: Final[dict[str, Json]] = {
    "type": "object",
    "required": ["id"],
    "properties": {"id": _UUID},
}


@dataclass(frozen=True, slots=True)
class EventField:
    """A field of an event's payload; the schema is JSON Schema (2020-12)."""

    name: str
    meaning: str
    schema: Mapping[str, Json]
    example: Json
    is_required: bool = True


@dataclass(frozen=True, slots=True)
class EventDescription:
    """An event: its wire name, its class, what it means, and its payload."""

    name: str
    kind: str
    meaning: str
    fields: tuple[EventField, ...]

    @property
    def schema(self) -> dict[str, Json]:
        """The JSON Schema of the payload. Later releases may add fields."""
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": self.kind,
            "description": self.meaning,
            "type": "object",
            "required": [each.name for each in self.fields if each.is_required],
            "properties": {
                each.name: {**each.schema, "description": each.meaning} for each in self.fields
            },
        }

    @property
    def example(self) -> dict[str, Json]:
        """A payload."""
        return {each.name: each.example for each in self.fields}


def catalogue() -> dict[str, EventDescription]:
    """Every event, by its wire name."""
    return {name: _described(name, kind) for name, kind in EVENTS.items()}


def asyncapi(version: str) -> dict[str, Json]:
    """The catalogue as an AsyncAPI 3 document: a channel for each event."""
    events = catalogue().values()
    channels: dict[str, Json] = {
        each.kind: {
            "address": each.name,
            "description": each.meaning,
            "messages": {each.kind: {"$ref": f"#/components/messages/{each.kind}"}},
        }
        for each in events
    }
    operations: dict[str, Json] = {
        f"consume{each.kind}": {
            "action": "receive",
            "channel": {"$ref": f"#/channels/{each.kind}"},
        }
        for each in events
    }
    messages: dict[str, Json] = {
        each.kind: {
            "name": each.name,
            "title": each.kind,
            "summary": each.meaning,
            "contentType": "application/json",
            "payload": each.schema,
            "examples": [{"payload": each.example}],
        }
        for each in events
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "kratos-identity-sync",
            "version": version,
            "description": "The events that consumers subscribe to. The address is the wire name.",
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages},
    }


def _described(name: str, kind: type[DomainEvent]) -> EventDescription:
    meaning = " ".join((inspect.getdoc(kind) or "").split("\n\n")[0].split())
    return EventDescription(name, kind.__name__, meaning, tuple(_fields(kind)))


def _fields(kind: type[DomainEvent]) -> list[EventField]:
    if kind is KratosIdentityUpdated:
        # Written by hand: it is the body of a webhook.
        document: Json = {"id": _ID, "traits": {"email": "ada@example.org"}, "state": "active"}
        return [
            EventField("identity", _MEANINGS["identity"], _IDENTITY, document),
            EventField("heard_at", _MEANINGS["heard_at"], _DATE_TIME, _TIME, is_required=False),
        ]
    found = []
    for each in dataclasses.fields(kind)[2:]:
        if kind is KratosIdentityHinted and each.name == "hook":
            continue  # beside the payload
        schema, example = _OF_TYPES[each.type]
        is_required = each.default is dataclasses.MISSING
        found.append(EventField(each.name, _MEANINGS[each.name], schema, example, is_required))
    return found
