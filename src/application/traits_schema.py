"""The traits in an identity schema of Kratos, reduced to what their types can say."""

import re
from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias
from urllib.parse import unquote

from kratos_sync.domain.json_values import ABSENT, Absent, Json

Schema: TypeAlias = dict[str, Json]

TRAITS: Final = "#/properties/traits"
TYPES: Final = ("string", "number", "integer", "boolean", "object", "array", "null")
ANYTHING: Final[Schema] = {"type": [each for each in TYPES if each != "integer"]}


class UnusableSchema(Exception):
    """No types can be made of a schema; says why."""


def traits_schema(document: Json) -> Schema:
    """The schema of the traits alone, with what it refers to under `$defs`.

    It accepts whatever the identity schema accepts. What no type says is left out: patterns,
    lengths, formats, conditions, and what only Kratos or a form reads. Raises UnusableSchema.
    """
    properties = document.get("properties") if isinstance(document, dict) else None
    if not isinstance(document, dict) or not isinstance(properties, dict):
        raise UnusableSchema("it has no properties.traits")
    if not isinstance(traits := properties.get("traits"), dict):
        raise UnusableSchema("it has no properties.traits")
    reducer = _Reducer(document)
    try:
        root = reducer.merged(traits)
        if not root.get("properties"):
            raise UnusableSchema("its traits have no properties")
        return {**root, "type": "object", "$defs": reducer.definitions()}
    except RecursionError:
        raise UnusableSchema("it refers to itself without end") from None


class _Reducer:
    """Reduces the schemas of a document, and keeps the references between them."""

    def __init__(self, document: Schema) -> None:
        self._document = document
        self._names: dict[str, str] = {}
        """The name under `$defs` of what each JSON pointer leads to."""

    def definitions(self) -> Schema:
        """What is referred to, by its name."""
        found: Schema = {}
        while missing := {p: name for p, name in self._names.items() if name not in found}:
            for pointer, name in missing.items():
                found[name] = self.reduced(self._at(pointer))
        return found

    def reduced(self, schema: Json) -> Schema:
        """The schema in terms of types; a reference stays one."""
        if not isinstance(schema, dict):
            return {**ANYTHING}
        if not isinstance(ref := schema.get("$ref"), str):
            return self.merged(schema)
        pointer = self._pointer(ref)
        return {"$ref": "#" if pointer == TRAITS else f"#/$defs/{self._name(pointer)}"}

    def merged(self, schema: Schema) -> Schema:
        """The schema with what it refers to, and all of its `allOf`, as one."""
        properties: Schema = {}
        required: list[Json] = []
        says: Schema = {}
        for part in self._parts(schema):
            for name, each in _mapping(part, "properties").items():
                properties.setdefault(name, self.reduced(each))
            required += [name for name in _list(part, "required") if isinstance(name, str)]
            for keyword, value in self._types_of(part):
                says.setdefault(keyword, value)
        if properties:
            says = {"type": says.get("type", "object"), "properties": properties}
            return {**says, "required": list(dict.fromkeys(required))}
        if "enum" in says:
            says.pop("anyOf", None)
        return {"anyOf": says["anyOf"]} if "anyOf" in says else says or {**ANYTHING}

    def _parts(self, schema: Json) -> Iterator[Schema]:
        """The schemas that a value has to meet all of."""
        if not isinstance(schema, dict):
            return
        if isinstance(ref := schema.get("$ref"), str):
            yield from self._parts(self._at(self._pointer(ref)))
            return
        yield schema
        for each in _list(schema, "allOf"):
            yield from self._parts(each)

    def _types_of(self, schema: Schema) -> Iterator[tuple[str, Json]]:
        """The keywords that say of which type a value is."""
        if types := _types(schema):
            yield "type", types[0] if len(types) == 1 else [*types]
        if (values := _values(schema)) is not None:
            yield "enum", values
        if isinstance(items := schema.get("items"), dict):
            yield "items", self.reduced(items)
        if isinstance(others := schema.get("additionalProperties"), dict):
            yield "additionalProperties", self.reduced(others)
        yield from self._types_of_choice(_list(schema, "anyOf") or _list(schema, "oneOf"))

    def _types_of_choice(self, schemas: Sequence[Json]) -> Iterator[tuple[str, Json]]:
        """The same of several schemas of which a value has to meet one."""
        values = [_values(each) if isinstance(each, dict) else None for each in schemas]
        if schemas and all(each is not None for each in values):
            yield "enum", [value for each in values for value in each or []]
            return
        reduced: list[Json] = []
        for each in map(self.reduced, schemas):
            if each not in reduced:
                reduced.append(each)
        if reduced and ANYTHING not in reduced:
            yield "anyOf", reduced

    def _pointer(self, ref: str) -> str:
        """The JSON pointer of a reference; raises UnusableSchema if it leads elsewhere."""
        address, _, pointer = ref.partition("#")
        own = self._document.get("$id")
        if address and address != (own.rstrip("#") if isinstance(own, str) else None):
            raise UnusableSchema(f"it refers to another document, {address}")
        return f"#{pointer}"

    def _at(self, pointer: str) -> Json:
        """The schema there; raises UnusableSchema if there is none."""
        found: Json | Absent = self._document
        if pointer.startswith("#/") or pointer == "#":
            for step in pointer.split("/")[1:]:
                found = _within(found, unquote(step).replace("~1", "/").replace("~0", "~"))
            if found is not ABSENT:
                return found
        raise UnusableSchema(f"it refers to {pointer}, which it does not have")

    def _name(self, pointer: str) -> str:
        if pointer not in self._names:
            name = re.sub(r"\W", "_", pointer.rpartition("/")[2].strip("#")) or "schema"
            while name in self._names.values():
                name += "_"
            self._names[pointer] = name
        return self._names[pointer]


def _within(value: Json | Absent, step: str) -> Json | Absent:
    if isinstance(value, dict):
        return value.get(step, ABSENT)
    if isinstance(value, list) and step.isdecimal() and int(step) < len(value):
        return value[int(step)]
    return ABSENT


def _types(schema: Schema) -> list[str]:
    given = schema.get("type")
    types = given if isinstance(given, list) else [given]
    return [each for each in types if isinstance(each, str) and each in TYPES]


def _values(schema: Schema) -> list[Json] | None:
    """The only values, if there are such, and if a type can name them."""
    given = [schema["const"]] if "const" in schema else schema.get("enum")
    if isinstance(given, list) and all(isinstance(v, str | int | None) for v in given):
        return given
    return None


def _mapping(schema: Schema, keyword: str) -> Schema:
    found = schema.get(keyword)
    return found if isinstance(found, dict) else {}


def _list(schema: Schema, keyword: str) -> list[Json]:
    found = schema.get(keyword)
    return found if isinstance(found, list) else []
