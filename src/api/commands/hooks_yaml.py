"""Printing the hooks as YAML, with what all of them share written once."""

import re
from typing import Final

import yaml

from application.kratos_config.printed import Json

_ANCHOR: Final = "webhook"
_PER_HOOK: Final = "headers"
_WIDEST: Final = 1_000_000
_PLAIN: Final = re.compile(
    r"[A-Za-z][A-Za-z_.-]*|(file|base64|https?)://[\w./:=+-]*[\w/=]", re.ASCII
)


def to_yaml(configuration: Json, *, with_anchor: bool) -> str:
    """Write the configuration; without an anchor each hook can be pasted by itself."""
    node = _Nodes(with_anchor).of(configuration)
    return str(yaml.serialize(node, Dumper=_Dumper, width=_WIDEST, allow_unicode=True))


class _Dumper(yaml.SafeDumper):
    """Names the one anchor, and indents lists as people do."""

    def generate_anchor(self, node: yaml.Node) -> str:  # noqa: ARG002
        return _ANCHOR

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002
        super().increase_indent(flow, False)


class _Nodes:
    """Builds YAML's nodes: the first hook's settings are written out, and merged into others."""

    def __init__(self, with_anchor: bool) -> None:
        self._with_anchor = with_anchor
        self._shared: yaml.Node | None = None

    def of(self, value: Json) -> yaml.Node:
        if isinstance(value, dict):
            if self._with_anchor and _PER_HOOK in value:
                return self._settings(value)
            return self._map(value)
        if isinstance(value, list):
            return yaml.SequenceNode("tag:yaml.org,2002:seq", [self.of(item) for item in value])
        return _scalar(value)

    def _map(self, value: dict[str, Json]) -> yaml.MappingNode:
        parts = [(_scalar(name), self.of(part)) for name, part in value.items()]
        return yaml.MappingNode("tag:yaml.org,2002:map", parts)

    def _settings(self, value: dict[str, Json]) -> yaml.MappingNode:
        if self._shared is None:
            self._shared = written = self._map(value)
            return written
        merged = self._map({_PER_HOOK: value[_PER_HOOK]})
        merge = yaml.ScalarNode("tag:yaml.org,2002:merge", "<<")
        merged.value.insert(0, (merge, self._shared))
        return merged


def _scalar(value: str | bool) -> yaml.ScalarNode:
    if isinstance(value, bool):
        return yaml.ScalarNode("tag:yaml.org,2002:bool", str(value).lower())
    # Quoted, lest a key of digits become a number; serve.sh looks for its placeholder in quotes.
    style = None if _PLAIN.fullmatch(value) else '"'
    return yaml.ScalarNode("tag:yaml.org,2002:str", value, style=style)
