"""Reads a Kratos configuration, with lines, from YAML or JSON of whatever origin."""

import re
from collections.abc import Iterator
from typing import Final

import yaml

from application.kratos_config.nodes import ConfigFile, Entry, Items, Map, Node, RepeatedKey, Text

MOST_BYTES: Final = 1_048_576
MOST_NODES: Final = 200_000
DEEPEST: Final = 100

_TOO_DEEP: Final = f"it is nested deeper than {DEEPEST} levels"
_MERGE: Final = "tag:yaml.org,2002:merge"
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
        text = text.replace("\t", " ")
    first, further = _documents(text)
    reader = _Reader()
    root = reader.read(first, 0)
    if not isinstance(root, Map):
        raise UnreadableConfig("it is not a map of settings")
    return ConfigFile(root, tuple(reader.repeated), further)


def _documents(text: str) -> tuple[yaml.Node, int | None]:
    try:
        loader = yaml.SafeLoader(text)
        if not loader.check_node():
            raise UnreadableConfig("it is empty")
        first = loader.get_node()
        if first is None:
            raise UnreadableConfig("it is empty")
        second = loader.get_node() if loader.check_node() else None
    except yaml.MarkedYAMLError as error:
        raise UnreadableConfig(_where(error)) from None
    except (yaml.YAMLError, ValueError):
        raise UnreadableConfig("it has characters that YAML does not allow") from None
    except RecursionError:
        raise UnreadableConfig(_TOO_DEEP) from None
    return first, None if second is None else _line(second)


def _where(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return f"{place}{_QUOTED.sub('…', error.problem or 'it is no YAML')}"


class _Reader:
    """Turns YAML's nodes into ours. What an alias stands for is read once."""

    def __init__(self) -> None:
        self.repeated: list[RepeatedKey] = []
        self._read: dict[int, Node] = {}
        self._reading: set[int] = set()
        self._count = 0

    def read(self, node: yaml.Node, depth: int) -> Node:
        if id(node) in self._read:
            return self._read[id(node)]
        if id(node) in self._reading:
            raise UnreadableConfig(f"line {_line(node)}: an alias stands for what it is part of")
        if depth > DEEPEST:
            raise UnreadableConfig(_TOO_DEEP)
        self._reading.add(id(node))
        self._read[id(node)] = read = self._of(node, depth)
        self._reading.discard(id(node))
        return read

    def _of(self, node: yaml.Node, depth: int) -> Node:
        self._take()
        if isinstance(node, yaml.MappingNode):
            return Map(dict(self._entries(node, depth)), _line(node))
        if isinstance(node, yaml.SequenceNode):
            return Items([self.read(item, depth + 1) for item in node.value], _line(node))
        plain = isinstance(node, yaml.ScalarNode) and node.style is None
        return Text(str(node.value), _line(node), plain)

    def _entries(self, node: yaml.MappingNode, depth: int) -> Iterator[tuple[str, Entry]]:
        """The entries of a map; those of its own come last, and so stand over merged ones."""
        own: dict[str, Entry] = {}
        for key, value in node.value:
            if key.tag == _MERGE:
                yield from self._merged(value, depth)
            elif isinstance(key, yaml.ScalarNode):
                if key.value in own:
                    self.repeated.append(RepeatedKey(key.value, _line(key)))
                own[key.value] = Entry(_line(key), self.read(value, depth + 1))
        yield from own.items()

    def _merged(self, value: yaml.Node, depth: int) -> Iterator[tuple[str, Entry]]:
        sources = value.value if isinstance(value, yaml.SequenceNode) else [value]
        for source in reversed(sources):
            read = self.read(source, depth + 1)
            if not isinstance(read, Map):
                raise UnreadableConfig(f"line {_line(value)}: only a map can be merged in")
            for name, entry in read.entries.items():
                self._take()
                yield name, entry

    def _take(self) -> None:
        self._count += 1
        if self._count > MOST_NODES:
            raise UnreadableConfig(f"it comes to more than {MOST_NODES:,} values")


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
