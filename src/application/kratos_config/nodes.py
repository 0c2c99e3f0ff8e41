"""A configuration as it was read: texts, lists and maps, each with its line."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

Path: TypeAlias = tuple[str | int, ...]

_NULLS: Final = ("", "~", "null", "Null", "NULL")
_TRUE: Final = ("true", "True", "TRUE")
_FALSE: Final = ("false", "False", "FALSE")


@dataclass(frozen=True, slots=True, eq=False)
class Text:
    """A scalar. ``plain`` is one without quotes, which may be a number, a truth value or null."""

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
    """A map, what it merges in (``<<``) among its entries."""

    entries: Mapping[str, Entry]
    line: int


Node: TypeAlias = Text | Items | Map


@dataclass(frozen=True, slots=True)
class RepeatedKey:
    """A key that is in its map once already."""

    key: str
    line: int


@dataclass(frozen=True, slots=True, eq=False)
class ConfigFile:
    """What a file said: its first document, and what Kratos makes nothing of."""

    root: Map
    repeated: Sequence[RepeatedKey] = ()
    further_document: int | None = None
    """The line on which a second document begins."""


def at(node: "Node | None", *keys: str) -> Entry | None:
    """Give the entry that the keys lead to, or None where the way ends before."""
    found: Entry | None = None
    for key in keys:
        found = node.entries.get(key) if isinstance(node, Map) else None
        if found is None:
            return None
        node = found.value
    return found


def value_at(node: "Node | None", *keys: str) -> "Node | None":
    """Give the value that the keys lead to, or None; null is None too."""
    found = at(node, *keys)
    return None if found is None or is_null(found.value) else found.value


def text_at(node: "Node | None", *keys: str) -> str | None:
    """Give the text that the keys lead to, or None if there is none."""
    found = value_at(node, *keys)
    return found.value if isinstance(found, Text) else None


def truth_at(node: "Node | None", *keys: str, default: bool = False) -> bool:
    """Give the truth value that the keys lead to; whatever is none is the default."""
    found = value_at(node, *keys)
    if isinstance(found, Text) and found.plain and found.value in (*_TRUE, *_FALSE):
        return found.value in _TRUE
    return default


def is_null(node: "Node") -> bool:
    """Whether YAML takes it for nothing."""
    return isinstance(node, Text) and node.plain and node.value in _NULLS


def written(path: Path) -> str:
    """Give a path as people write it: ``selfservice.flows.login.after.hooks[0]``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


PLACES: Final = ((), ("kratos", "config"), ("services", "identity", "config"))
"""A file of its own, the values of Ory's Helm chart, and a project of the Ory Network."""


def kratos_part(file: ConfigFile) -> ConfigFile | None:
    """Give the part of a file that configures Kratos, or None if there is none."""
    for keys in PLACES:
        part = value_at(file.root, *keys) if keys else file.root
        if isinstance(part, Map) and isinstance(value_at(part, "selfservice"), Map):
            return replace(file, root=part)
    return None
