"""A configuration as it was read: texts, lists and maps, each with its line."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final, TypeAlias

Path: TypeAlias = tuple[str | int, ...]

_TRUE: Final = ("true", "True", "TRUE")
_FALSE: Final = ("false", "False", "FALSE")
_NULLS: Final = ("", "~", "null", "Null", "NULL")
_NUMBER: Final = re.compile(r"[-+]?(0[xX][0-9a-fA-F_]+|0[oO]?[0-7_]*|0[bB][01_]+|[1-9][0-9_]*)")
_FLOAT: Final = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)


@dataclass(frozen=True, slots=True, eq=False)
class Text:
    """A scalar. `plain` is one without quotes, which may be a number, a boolean or null."""

    value: str
    line: int
    plain: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A key's line and its value."""

    line: int
    value: "Node"


@dataclass(frozen=True, slots=True, eq=False)
class Items:
    """A list."""

    items: Sequence["Node"]
    line: int


@dataclass(frozen=True, slots=True, eq=False)
class Map:
    """A map; its entries include what it merges in (`<<`)."""

    entries: Mapping[str, Entry]
    line: int


Node: TypeAlias = Text | Items | Map


@dataclass(frozen=True, slots=True, eq=False)
class ConfigFile:
    """The first document of a file, and what Kratos does not read of it."""

    root: Map
    repeated: Sequence[tuple[str, int]] = ()
    """The keys that are in one map a second time, each with its line."""
    further_document: int | None = None
    """The line on which a second document begins."""


def at(node: "Node | None", *keys: str) -> Entry | None:
    """The entry under these keys; None if one of them is missing."""
    found: Entry | None = None
    for key in keys:
        found = node.entries.get(key) if isinstance(node, Map) else None
        if found is None:
            return None
        node = found.value
    return found


def line_at(node: "Node", *keys: str) -> int:
    """The line of the key at the end of these keys, or of the nearest thing around it."""
    around = (at(node, *keys[:depth]) for depth in range(len(keys), 0, -1))
    return next((entry.line for entry in around if entry is not None), node.line)


def value_at(node: "Node | None", *keys: str) -> "Node | None":
    """The value under these keys; None if it is missing or null."""
    found = at(node, *keys)
    return None if found is None or is_null(found.value) else found.value


def text_at(node: "Node | None", *keys: str) -> str | None:
    """The text under these keys; None if there is none."""
    found = value_at(node, *keys)
    return found.value if isinstance(found, Text) else None


def items_at(node: "Node | None", *keys: str) -> Sequence["Node"]:
    """The items of the list under these keys; none if there is no list."""
    found = value_at(node, *keys)
    return found.items if isinstance(found, Items) else ()


def truth_at(node: "Node | None", *keys: str, default: bool = False) -> bool:
    """The boolean under these keys; the default for anything else."""
    found = value_at(node, *keys)
    if isinstance(found, Text) and found.plain and found.value in (*_TRUE, *_FALSE):
        return found.value in _TRUE
    return default


def is_null(node: "Node") -> bool:
    """Whether YAML reads this as null."""
    return isinstance(node, Text) and node.plain and node.value in _NULLS


class Kind(Enum):
    """A scalar, or anything at all."""

    ANY = "anything"
    TEXT = "a text"
    TRUTH = "true or false"
    NUMBER = "a whole number"
    DURATION = "a duration such as 1h or 30s"


def kind_of(node: Text) -> Kind:
    """The type that Kratos reads: its YAML has no yes, no, on and off."""
    if not node.plain:
        return Kind.TEXT
    if node.value in (*_TRUE, *_FALSE):
        return Kind.TRUTH
    if _NUMBER.fullmatch(node.value):
        return Kind.NUMBER
    return Kind.ANY if _FLOAT.fullmatch(node.value) else Kind.TEXT


def value_of(node: Node) -> object:
    """A value that equals another's if and only if Kratos takes both for the same."""
    if isinstance(node, Text):
        return kind_of(node), node.value
    if isinstance(node, Items):
        return tuple(value_of(item) for item in node.items)
    return frozenset((name, value_of(entry.value)) for name, entry in node.entries.items())


def written(path: Path) -> str:
    """A path as people write it: `selfservice.flows.login.after.hooks[0]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


PLACES: Final = ((), ("kratos", "config"), ("services", "identity", "config"))
"""In a file of its own, in the values of Ory's Helm chart, in a project of the Ory Network."""


def kratos_part(file: ConfigFile) -> ConfigFile | None:
    """The part of a file that configures Kratos; None if there is none."""
    for keys in PLACES:
        part = value_at(file.root, *keys) if keys else file.root
        if isinstance(part, Map) and isinstance(value_at(part, "selfservice"), Map):
            return replace(file, root=part)
    return None
