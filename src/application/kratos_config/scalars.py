"""What Kratos makes of a scalar, and whether it may stand where it does."""

import re
from collections.abc import Iterator
from typing import Final

from kratos_sync.application.kratos_config.findings import Finding, Judgement, Severity
from kratos_sync.application.kratos_config.hook import FILLED_IN, Kind
from kratos_sync.application.kratos_config.nodes import Items, Node, Path, Text

_TRUTHS: Final = ("true", "True", "TRUE", "false", "False", "FALSE")
_NUMBER: Final = re.compile(r"[-+]?(0[xX][0-9a-fA-F_]+|0[oO]?[0-7_]*|0[bB][01_]+|[1-9][0-9_]*)")
_FLOAT: Final = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)
_DURATION: Final = re.compile(r"([0-9]+(ns|us|ms|s|m|h))+")


def findings_of_scalar(
    node: Node, spec: Kind | tuple[str, ...], path: Path, line: int
) -> Iterator[Finding]:
    if not isinstance(node, Text):
        yield Finding(wrong_type(spec.value if isinstance(spec, Kind) else "a text"), line, path)
        return
    if node.value.lstrip().startswith(FILLED_IN):
        return
    found = kind_of(node)
    wanted = Kind.TEXT if spec is Kind.DURATION or isinstance(spec, tuple) else spec
    if found is not wanted:
        yield Finding(wrong_type(wanted.value, wanted), line, path)
    elif isinstance(spec, tuple) and node.value not in spec:
        sentence = f"Kratos takes only {', '.join(spec)} here, and refuses to start."
        yield Finding(error("wrong-value", sentence, "Write one of them."), line, path)
    elif spec is Kind.DURATION and not _DURATION.fullmatch(node.value):
        sentence = f"Kratos expects {spec.value} here, and refuses to start."
        yield Finding(error("wrong-value", sentence, "Write a number and its unit."), line, path)


def kind_of(node: Text) -> Kind:
    """What Kratos makes of a scalar: its YAML knows no yes, no, on and off."""
    if not node.plain:
        return Kind.TEXT
    if node.value in _TRUTHS:
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


def wrong_type(expected: str, kind: Kind | None = None) -> Judgement:
    """Say that Kratos expects something else."""
    remedy = {
        Kind.TEXT: "Put the value in quotes.",
        Kind.TRUTH: "Write true or false, without quotes; yes, no, on and off are texts.",
        Kind.NUMBER: "Write a whole number, without quotes.",
    }.get(kind or Kind.ANY, "See Kratos' reference of its configuration.")
    return error("wrong-type", f"Kratos expects {expected} here, and refuses to start.", remedy)


def error(rule: str, sentence: str, remedy: str) -> Judgement:
    """Give a judgement that makes the check fail."""
    return Judgement(rule, Severity.ERROR, sentence, remedy)
