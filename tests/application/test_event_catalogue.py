"""The catalogue says what the events are, and a published event is never changed incompatibly."""

import json
from collections.abc import Mapping
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import jsonschema
import pytest

from kratos_sync.application.event_catalogue import asyncapi, catalogue
from kratos_sync.domain.events import EVENTS

PUBLISHED: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "docs" / "reference" / "events.json").read_text()
)
every_event = pytest.mark.parametrize("name", EVENTS)
SCHEMAS = {name: each.schema for name, each in catalogue().items()}


def incompatibilities(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What a change of the schemas, by the events' names, has broken; additions are compatible."""
    found = []
    for name, old in before.items():
        if name not in after:
            found.append(f"{name} is gone")
            continue
        new = after[name]
        for field, schema in old["properties"].items():
            if field not in new["properties"]:
                found.append(f"{name}.{field} is gone")
            elif _type_of(schema) != _type_of(new["properties"][field]):
                found.append(f"{name}.{field} has another type")
        lost = set(old["required"]) - set(new["required"])
        found += [f"{name}.{field} is no longer required" for field in sorted(lost)]
    return found


def _type_of(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key != "description"}


def test_every_event_is_described() -> None:
    assert list(catalogue()) == list(EVENTS)
    assert all(each.meaning.endswith(".") for each in catalogue().values())


@every_event
def test_the_example_is_an_event_and_fits_the_schema(name: str) -> None:
    example = catalogue()[name].example
    jsonschema.validate(example, SCHEMAS[name])

    event = EVENTS[name].from_json(uuid4(), datetime.now(UTC), example)

    written = event.to_json()
    jsonschema.validate(json.loads(json.dumps(written)), SCHEMAS[name])
    assert written.keys() == example.keys() - {"heard_at"}


@every_event
def test_what_lacks_a_required_field_does_not_fit(name: str) -> None:
    for field in SCHEMAS[name]["required"]:
        example = {**catalogue()[name].example}
        del example[field]
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(example, SCHEMAS[name])


def test_what_was_published_is_still_so() -> None:
    """New events and fields are added to `docs/reference/events.json` by `kratos-sync events`."""
    assert incompatibilities(PUBLISHED, SCHEMAS) == []
    assert PUBLISHED == SCHEMAS


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        (lambda s: s.pop("identity.deleted"), "identity.deleted is gone"),
        (
            lambda s: s["identity.registered"]["properties"].pop("traits"),
            "identity.registered.traits is gone",
        ),
        (
            lambda s: s["identity.registered"]["properties"].update(version={"type": "string"}),
            "identity.registered.version has another type",
        ),
        (
            lambda s: s["identity.registered"]["required"].remove("version"),
            "identity.registered.version is no longer required",
        ),
    ],
)
def test_an_incompatible_change_is_found(change: Any, broken: str) -> None:
    changed = deepcopy(SCHEMAS)
    change(changed)

    assert incompatibilities(SCHEMAS, changed) == [broken]


def test_an_addition_is_compatible() -> None:
    changed: dict[str, Any] = deepcopy(SCHEMAS)
    changed["identity.merged"] = changed["identity.deleted"]
    changed["identity.deleted"]["properties"]["why"] = {"type": "string"}

    assert incompatibilities(SCHEMAS, changed) == []


def test_the_asyncapi_document_has_a_channel_and_a_message_for_every_event() -> None:
    document: Any = asyncapi("1.2.3")

    assert document["asyncapi"] == "3.0.0"
    assert {each["address"] for each in document["channels"].values()} == set(EVENTS)
    for operation in document["operations"].values():
        channel = _resolved(document, operation["channel"]["$ref"])
        (message,) = channel["messages"].values()
        payload = _resolved(document, message["$ref"])["payload"]
        assert payload == SCHEMAS[channel["address"]]


def _resolved(document: Any, reference: str) -> Any:
    for key in reference.removeprefix("#/").split("/"):
        document = document[key]
    return document
