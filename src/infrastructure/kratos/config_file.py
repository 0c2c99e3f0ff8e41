"""Reads a Kratos configuration, with lines, and runs the templates that it names.

Both take files of any origin: what they cost is bounded. Templates run in a child process, which is
this file as a program.
"""

import binascii
import json
import re
import resource
import signal
import subprocess
import sys
from base64 import b64decode
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from time import monotonic
from typing import Any, Final, NoReturn

import yaml

from kratos_sync.application.kratos_config.nodes import ConfigFile, Entry, Items, Map, Node, Text
from kratos_sync.application.kratos_config.templates import Problem, Rendered

MOST_BYTES: Final = 1_048_576
MOST_NODES: Final = 200_000
DEEPEST: Final = 100

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TEXT_TAGS: Final = ("!", "tag:yaml.org,2002:str", "tag:yaml.org,2002:binary")
_PAIR: Final = re.compile(
    r"\\\\|\\u([Dd][89ABab][0-9A-Fa-f]{2})\\u([Dd][C-Fc-f][0-9A-Fa-f]{2})", re.ASCII
)
_QUOTED: Final = re.compile(r"'[^']*'|\"[^\"]*\"")


class UnreadableConfig(Exception):
    """The configuration cannot be read; the message says why and where, and quotes nothing."""


def read_config(content: bytes) -> ConfigFile:
    """Read the first document of a configuration; raises UnreadableConfig.

    Bytes, depth, and nodes (with aliases and merges followed) are bounded.
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
    """The character of a surrogate pair, which YAML does not know; anything else as it is."""
    if escaped[1] is None:
        return escaped[0]
    return bytes.fromhex(f"{escaped[1]}{escaped[2]}").decode("utf-16-be")


class _Reader:
    """Builds nodes from YAML's events, so that every bound is checked before the work is done.

    An alias becomes the node that it names, and counts as much as that.
    """

    def __init__(self, events: Iterator[Any]) -> None:
        self.repeated: list[tuple[str, int]] = []
        self._events = events
        self._anchors: dict[str, tuple[Node, int] | None] = {}
        self._count = 0

    def document(self) -> Node | None:
        """The next document; None at the end."""
        self._anchors.clear()
        for event in self._events:
            if isinstance(event, yaml.NodeEvent):
                return self._node(event, 0)
        return None

    def _node(self, event: Any, depth: int) -> Node:
        if depth > DEEPEST:
            raise UnreadableConfig(f"it is nested deeper than {DEEPEST} levels")
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
        """The entries of a map; its own override those that it merges in."""
        own: dict[str, Entry] = {}
        merged: dict[str, Entry] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._node(event, depth + 1)
            line = _line(event)
            value = self._node(next(self._events), depth + 1)
            if not isinstance(key, Text):
                raise UnreadableConfig(f"line {line}: a key is no text")
            if key.plain and key.value == "<<":
                merged = self._merged(value, line) | merged
                continue
            if key.value in own:
                self.repeated.append((key.value, line))
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
            raise UnreadableConfig(f"it comes to more than {MOST_NODES:,} values")


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


CHILD_SECONDS: Final = 3
"""Processor time of a template with all contexts: Kratos gives each context a second."""
CHILD_MEMORY: Final = 1 << 30
MOST_OUTPUT: Final = 262_144
_ALWAYS: Final = (
    "syntax error",
    "variable is not defined",
    "external variable is not defined",
    "import_callback error",
    "parameter ctx is not defined",
)
"""How the errors begin that do not depend on the context."""
MOST_TEMPLATE_BYTES: Final = 262_144
TIME_LIMIT: Final = 60.0
"""Seconds of the clock for all templates together."""

_NEVER_RUNS: Final = 3
_PROBLEMS: Final = {
    _NEVER_RUNS: Problem.NOT_JSONNET,
    -signal.SIGXCPU: Problem.TOO_SLOW,
    -signal.SIGKILL: Problem.TOO_SLOW,
}
"""By the exit code of the child process."""


class JsonnetTemplates:
    """The Templates port, for a configuration in this folder; None is standard input.

    Files are looked for where Kratos would, and by name beside the configuration, which is often
    mounted with them. Each template runs once, in a process of its own without imports.
    """

    def __init__(self, folder: Path | None, *, reads_files: bool = True) -> None:
        """With `reads_files` off no file is opened: for a configuration of somebody elsewhere."""
        self._folder = folder
        self._reads_files = reads_files
        self._left = TIME_LIMIT
        self._read = lru_cache(maxsize=None)(self._read_body)
        self._run = lru_cache(maxsize=None)(self._run_text)

    def render(self, body: str, contexts: Sequence[str]) -> Rendered:
        """Run the template that a ``body`` names with each context as ``ctx``."""
        text = self._read(body)
        return text if isinstance(text, Problem) else self._run(text, tuple(contexts))

    def _run_text(self, text: str, contexts: tuple[str, ...]) -> Rendered:
        began = monotonic()
        rendered = _run(text, contexts, self._left)
        self._left -= monotonic() - began
        return rendered

    def _read_body(self, body: str) -> str | Problem:
        scheme, separator, rest = body.partition("://")
        if separator and scheme in ("http", "https"):
            return Problem.NOT_LOOKED_AT
        if separator and scheme == "base64":
            return _decoded(rest)
        if not self._reads_files:
            return Problem.NOT_LOOKED_AT
        return self._read_file(Path(rest if separator and scheme == "file" else body))

    def _read_file(self, path: Path) -> str | Problem:
        candidates = [path]
        if self._folder is not None:
            candidates.append(self._folder / (path.name if path.is_absolute() else path))
        try:
            found = next((one for one in candidates if one.is_file()), None)
            if found is None:
                return self._absent(path)
            with found.open("rb") as file:
                content = file.read(MOST_TEMPLATE_BYTES + 1)
            return Problem.NOT_RUN if len(content) > MOST_TEMPLATE_BYTES else content.decode()
        except UnicodeDecodeError:
            return Problem.NOT_JSONNET
        except (OSError, ValueError):
            return Problem.NOT_RUN

    def _absent(self, path: Path) -> Problem:
        if self._folder is None:
            return Problem.NOT_LOOKED_AT
        is_here = not path.is_absolute() or path.parent.is_dir()
        return Problem.MISSING if is_here else Problem.FOLDER_ELSEWHERE


def _decoded(encoded: str) -> str | Problem:
    try:
        content = b64decode(encoded.replace("\r", "").replace("\n", ""), validate=True)
        return Problem.NOT_RUN if len(content) > MOST_TEMPLATE_BYTES else content.decode()
    except (binascii.Error, ValueError):
        return Problem.NOT_BASE64


def _run(template: str, contexts: Sequence[str], seconds: float) -> Rendered:
    if seconds <= 0:
        return Problem.NOT_RUN
    try:
        done = subprocess.run(  # noqa: S603 - our own program, and no shell
            [sys.executable, "-I", __file__],
            input=json.dumps({"template": template, "contexts": contexts}),
            encoding="utf-8",
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return Problem.NOT_RUN
    if done.returncode != 0:
        return _PROBLEMS.get(done.returncode, Problem.NOT_RUN)
    outputs: list[str | None] = json.loads(done.stdout)
    return outputs


def main() -> None:
    """Run the template on standard input with its contexts: the child process."""
    resource.setrlimit(resource.RLIMIT_CPU, (CHILD_SECONDS, CHILD_SECONDS + 1))
    resource.setrlimit(resource.RLIMIT_AS, (CHILD_MEMORY, CHILD_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    job = json.load(sys.stdin)
    json.dump([_evaluate(job["template"], context) for context in job["contexts"]], sys.stdout)


def _evaluate(template: str, context: str) -> str | None:
    """What the template renders; None if it fails. Exits if it fails whatever the context is."""
    import rjsonnet

    try:
        output = rjsonnet.evaluate_snippet(
            "body", template, tla_codes={"ctx": context}, import_callback=_refuse
        )
    except RuntimeError as error:
        if str(error).startswith(_ALWAYS):
            sys.exit(_NEVER_RUNS)
        return None
    return output if len(output) <= MOST_OUTPUT else None


def _refuse(*_: object) -> NoReturn:
    raise RuntimeError("imports are off")


if __name__ == "__main__":
    main()
