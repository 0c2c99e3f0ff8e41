"""Reads a Kratos configuration, with lines, from YAML or JSON of whatever origin."""

import re
from collections.abc import Iterator
from typing import Any, Final

import yaml

from application.kratos_config.nodes import ConfigFile, Entry, Items, Map, Node, RepeatedKey, Text

MOST_BYTES: Final = 1_048_576
MOST_NODES: Final = 200_000
DEEPEST: Final = 100

_TOO_DEEP: Final = f"it is nested deeper than {DEEPEST} levels"
_TOO_MANY: Final = f"it comes to more than {MOST_NODES:,} values"
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TEXT_TAGS: Final = ("!", "tag:yaml.org,2002:str", "tag:yaml.org,2002:binary")
_MERGE: Final = "<<"
_PAIR: Final = re.compile(
    r"\\\\|\\u([Dd][89ABab][0-9A-Fa-f]{2})\\u([Dd][C-Fc-f][0-9A-Fa-f]{2})", re.ASCII
)
_QUOTED: Final = re.compile(r"'[^']*'|\"[^\"]*\"")


class UnreadableConfig(Exception):
    """The configuration cannot be read: it says why and where, and quotes nothing."""


def read_config(content: bytes) -> ConfigFile:
    """Read the first document of a configuration; UnreadableConfig says what is wrong with it.

    What it takes is bounded: bytes, nodes after aliases and merges are followed, and depth.
    """
    if len(content) > MOST_BYTES:
        raise UnreadableConfig(f"it is larger than {MOST_BYTES:,} bytes")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UnreadableConfig("it is no UTF-8 text") from None
    if text.lstrip().startswith("{"):
        # JSON may be indented by tabs, which YAML refuses; there are none in its strings.
        text = _PAIR.sub(_character, text.replace("\t", " "))
    reader = _Reader(yaml.parse(text, Loader=_LOADER))
    try:
        root = reader.document()
        repeated = tuple(reader.repeated)
        further = reader.document()
    except yaml.MarkedYAMLError as error:
        raise UnreadableConfig(_where(error)) from None
    except (yaml.YAMLError, ValueError):
        raise UnreadableConfig("it has characters that YAML does not allow") from None
    if root is None:
        raise UnreadableConfig("it is empty")
    if not isinstance(root, Map):
        raise UnreadableConfig("it is not a map of settings")
    return ConfigFile(root, repeated, None if further is None else further.line)


def _where(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    begun = error.context_mark or mark
    around = f", in what begins on line {begun.line + 1}" if begun and begun is not mark else ""
    return f"{place}{_QUOTED.sub('…', error.problem or 'it is no YAML')}{around}"


def _character(escaped: re.Match[str]) -> str:
    """Give what JSON writes as two halves, which YAML does not know; anything else as it is."""
    if escaped[1] is None:
        return escaped[0]
    return bytes.fromhex(f"{escaped[1]}{escaped[2]}").decode("utf-16-be")


class _Reader:
    """Builds nodes from YAML's events, so that no bound is checked after the work is done.

    An alias stands for the node itself, and counts as much as what it stands for.
    """

    def __init__(self, events: Iterator[Any]) -> None:
        self.repeated: list[RepeatedKey] = []
        self._events = events
        self._anchors: dict[str, tuple[Node, int] | None] = {}
        self._count = 0

    def document(self) -> Node | None:
        """Read the next document, or give None when there is no more."""
        self._anchors.clear()
        for event in self._events:
            if isinstance(event, yaml.NodeEvent):
                return self._node(event, 0)
        return None

    def _node(self, event: Any, depth: int) -> Node:
        if depth > DEEPEST:
            raise UnreadableConfig(_TOO_DEEP)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        before = self._count
        self._take()
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        node = self._of(event, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = (node, self._count - before)
        return node

    def _alias(self, event: Any) -> Node:
        if event.anchor not in self._anchors:
            column = event.start_mark.column + 1
            raise UnreadableConfig(f"line {_line(event)}, column {column}: an alias of nothing")
        found = self._anchors[event.anchor]
        if found is None:
            raise UnreadableConfig(f"line {_line(event)}: an alias stands for what it is part of")
        node, size = found
        self._take(size)
        return node

    def _of(self, event: Any, depth: int) -> Node:
        if isinstance(event, yaml.MappingStartEvent):
            return Map(self._entries(depth), _line(event))
        if isinstance(event, yaml.SequenceStartEvent):
            items = []
            while not isinstance(item := next(self._events), yaml.SequenceEndEvent):
                items.append(self._node(item, depth + 1))
            return Items(items, _line(event))
        plain = event.style in (None, "") and event.tag not in _TEXT_TAGS
        return Text(event.value, _line(event), plain)

    def _entries(self, depth: int) -> dict[str, Entry]:
        """The entries of a map; those of its own come last, and so stand over merged ones."""
        own: dict[str, Entry] = {}
        merged: dict[str, Entry] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._node(event, depth + 1)
            line = _line(event)
            value = self._node(next(self._events), depth + 1)
            if not isinstance(key, Text):
                raise UnreadableConfig(f"line {line}: a key is no text")
            if key.plain and key.value == _MERGE:
                merged = self._merged(value, line) | merged
                continue
            if key.value in own:
                self.repeated.append(RepeatedKey(key.value, line))
            own[key.value] = Entry(line, value)
        return merged | own

    def _merged(self, value: Node, line: int) -> dict[str, Entry]:
        entries: dict[str, Entry] = {}
        for source in reversed(value.items if isinstance(value, Items) else [value]):
            if not isinstance(source, Map):
                raise UnreadableConfig(f"line {line}: only a map can be merged in")
            self._take(len(source.entries))
            entries |= source.entries
        return entries

    def _take(self, number: int = 1) -> None:
        self._count += number
        if self._count > MOST_NODES:
            raise UnreadableConfig(_TOO_MANY)


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1
