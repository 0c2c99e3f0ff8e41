"""What is left of an identity schema when only types are asked for."""

from typing import Any

import pytest

from kratos_sync.application.traits_schema import ANYTHING, UnusableSchema, traits_schema
from kratos_sync.domain.json_values import Json

ID = "https://schemas.example.org/person.schema.json"


def reduced(trait: Json, **definitions: Json) -> Any:
    """What is left of the schema of one trait."""
    properties: Json = {"traits": {"type": "object", "properties": {"it": trait}}}
    document: Json = {"$id": ID, "properties": properties, "definitions": definitions}
    schema: Any = traits_schema(document)
    return schema["properties"]["it"]


def refusal(document: Json) -> str:
    with pytest.raises(UnusableSchema) as refused:
        traits_schema(document)
    return str(refused.value)


@pytest.mark.parametrize(
    ("trait", "left"),
    [
        ({"type": "string", "format": "email", "minLength": 3, "pattern": "^"}, {"type": "string"}),
        ({"type": "string", "ory.sh/kratos": {"recovery": {"via": "email"}}}, {"type": "string"}),
        ({"type": "integer", "minimum": 1, "default": 5, "title": "Seats"}, {"type": "integer"}),
        ({"type": ["string", "null"]}, {"type": ["string", "null"]}),
        ({"const": "pl"}, {"enum": ["pl"]}),
        ({"type": "number", "enum": [0.5, 1]}, {"type": "number", "enum": None}),
        ({"enum": [{"a": 1}]}, ANYTHING),
        ({"enum": ["a"], "anyOf": [{"type": "string"}, {"type": "null"}]}, {"enum": ["a"]}),
        ({}, ANYTHING),
        (True, ANYTHING),
        ({"title": "Notes"}, ANYTHING),
        ({"not": {"type": "null"}}, ANYTHING),
        (
            {"type": "array", "items": {"type": "null"}},
            {"type": "array", "items": {"type": "null"}},
        ),
        ({"type": "array", "items": [{"type": "null"}]}, {"type": "array"}),
        ({"type": "object", "additionalProperties": False}, {"type": "object"}),
        ({"type": "object", "patternProperties": {"^a": {"type": "null"}}}, {"type": "object"}),
    ],
)
def test_types_are_kept_and_checks_of_values_are_not(trait: Json, left: dict[str, Json]) -> None:
    expected = {keyword: value for keyword, value in left.items() if value is not None}
    assert reduced(trait) == expected


def test_an_object_has_its_properties_whatever_else_it_allows() -> None:
    trait: Json = {
        "type": "object",
        "properties": {"type": {"type": "string"}, "required": {"type": "boolean"}},
        "required": ["type"],
        "additionalProperties": {"type": "string"},
        "anyOf": [{"required": ["required"]}, {"maxProperties": 1}],
        "if": {"required": ["required"]},
    }

    assert reduced(trait) == {
        "type": "object",
        "properties": {"type": {"type": "string"}, "required": {"type": "boolean"}},
        "required": ["type"],
    }


def test_all_of_is_one_object() -> None:
    address = {"type": "object", "properties": {"street": {"type": "string"}}}
    trait: Json = {
        "allOf": [
            {"$ref": "#/definitions/address"},
            {"properties": {"country": {"type": "string"}}, "required": ["country", "street"]},
        ]
    }

    assert reduced(trait, address=address) == {
        "type": "object",
        "properties": {"street": {"type": "string"}, "country": {"type": "string"}},
        "required": ["country", "street"],
    }


@pytest.mark.parametrize("keyword", ["anyOf", "oneOf"])
def test_a_choice_is_one_of_types(keyword: str) -> None:
    text, number = {"type": "string"}, {"type": "integer"}
    assert reduced({keyword: [{**text, "title": "x"}, number]}) == {"anyOf": [text, number]}


@pytest.mark.parametrize("keyword", ["anyOf", "oneOf"])
def test_a_choice_of_titled_values_is_an_enumeration(keyword: str) -> None:
    trait: Json = {
        "type": "string",
        keyword: [{"const": "de", "title": "Deutsch"}, {"const": "pl", "title": "polski"}],
    }
    assert reduced(trait) == {"type": "string", "enum": ["de", "pl"]}


def test_a_choice_that_types_do_not_distinguish_is_none() -> None:
    formats: list[Json] = [{"format": "email"}, {"format": "tel"}]
    assert reduced({"type": "string", "oneOf": formats}) == {"type": "string"}
    typed: list[Json] = [{"type": "string", **each} for each in formats if isinstance(each, dict)]
    assert reduced({"oneOf": typed}) == {"anyOf": [{"type": "string"}]}


@pytest.mark.parametrize("address", ["", ID])
def test_references_lead_to_definitions(address: str) -> None:
    document: Json = {
        "$id": ID,
        "definitions": {"a/b c": {"type": "object", "properties": {"next": {"$ref": "#/x/0"}}}},
        "x": [{"type": "integer"}],
        "properties": {
            "traits": {
                "properties": {
                    "one": {"$ref": f"{address}#/definitions/a~1b%20c", "title": "ignored"},
                    "again": {"$ref": "#/definitions/a~1b%20c"},
                    "whole": {"$ref": "#/properties/traits"},
                }
            }
        },
    }

    schema: Any = traits_schema(document)

    assert schema["properties"]["one"] == schema["properties"]["again"]
    assert schema["properties"]["whole"] == {"$ref": "#"}
    name = schema["properties"]["one"]["$ref"].removeprefix("#/$defs/")
    assert schema["$defs"][name]["properties"] == {"next": {"$ref": "#/$defs/0"}}
    assert schema["$defs"]["0"] == {"type": "integer"}


def test_definitions_of_one_name_are_two() -> None:
    document: Json = {
        "a": {"name": {"type": "string"}},
        "b": {"name": {"type": "integer"}},
        "properties": {
            "traits": {"properties": {"x": {"$ref": "#/a/name"}, "y": {"$ref": "#/b/name"}}}
        },
    }

    schema: Any = traits_schema(document)

    assert len(schema["$defs"]) == 2
    assert schema["properties"]["x"] != schema["properties"]["y"]


def test_the_traits_themselves_may_be_a_reference() -> None:
    document: Json = {
        "properties": {"traits": {"$ref": "#/$defs/traits"}},
        "$defs": {"traits": {"properties": {"email": {"type": "string"}}}},
    }
    assert traits_schema(document)["properties"] == {"email": {"type": "string"}}


@pytest.mark.parametrize(
    "document", [None, [], {}, {"properties": []}, {"properties": {"traits": True}}]
)
def test_what_has_no_traits_is_refused(document: Json) -> None:
    assert refusal(document) == "it has no properties.traits"


@pytest.mark.parametrize("traits", [{}, {"type": "string"}, {"properties": {}}])
def test_traits_without_names_are_refused(traits: Json) -> None:
    assert refusal({"properties": {"traits": traits}}) == "its traits have no properties"


@pytest.mark.parametrize(
    ("ref", "sentence"),
    [
        ("other.json#/a", "it refers to another document, other.json"),
        ("https://example.org/a.json", "it refers to another document, https://example.org/a.json"),
        ("#/definitions/none", "it refers to #/definitions/none, which it does not have"),
        ("#/required/9", "it refers to #/required/9, which it does not have"),
        ("#anchor", "it refers to #anchor, which it does not have"),
    ],
)
def test_a_reference_to_elsewhere_is_refused(ref: str, sentence: str) -> None:
    document: Json = {
        "required": ["traits"],
        "properties": {"traits": {"properties": {"it": {"$ref": ref}}}},
    }
    assert refusal(document) == sentence


def test_a_schema_that_is_made_of_itself_is_refused() -> None:
    document: Json = {
        "properties": {"traits": {"allOf": [{"$ref": "#/definitions/a"}]}},
        "definitions": {"a": {"allOf": [{"$ref": "#/definitions/a"}]}},
    }
    assert refusal(document) == "it refers to itself without end"
