"""Settings that Kratos refuses, or does not see: of a wrong type, unknown, misplaced, missing."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from itertools import pairwise
from typing import Final

from kratos_sync.application.kratos_config.findings import Finding, Judgement, Severity
from kratos_sync.application.kratos_config.flows import HOOKS, IGNORED_HOOKS, KNOWN_HOOKS
from kratos_sync.application.kratos_config.hook import (
    ANY,
    API_KEY,
    AUTH_KEYS,
    BASIC_AUTH,
    HOOK_SHAPES,
    PLAIN_HOOK,
    REFUSED,
    Hook,
    Hooks,
    Kind,
    Spec,
)
from kratos_sync.application.kratos_config.known_settings import SETTINGS
from kratos_sync.application.kratos_config.nodes import Items, Map, Node, Path, at, is_null, text_at
from kratos_sync.application.kratos_config.scalars import (
    error,
    findings_of_scalar,
    value_of,
    wrong_type,
)

_LONGEST_NAME: Final = 40
_MOST_GUESSES: Final = 200
_BELONGS: Final[Mapping[str, str]] = {
    **dict.fromkeys(AUTH_KEYS, "config.auth.config"),
    **dict.fromkeys(("ignore", "parse"), "config.response"),
    **dict.fromkeys(
        (
            *("url", "method", "headers", "body", "auth", "response"),
            *("can_interrupt", "emit_analytics_event"),
        ),
        "config",
    ),
}
_TEMPLATE_NAMES: Final = ("data", "template", "payload", "jsonnet", "mapper")


def findings_of_settings(root: Map) -> Iterator[Finding]:
    """Say which settings Kratos refuses to start with, or does not see."""
    yield from _Settings().of(root, SETTINGS, ())


class _Settings:
    def __init__(self) -> None:
        self._guesses_left = _MOST_GUESSES

    def of(self, node: Node, spec: Spec, path: Path, line: int | None = None) -> Iterator[Finding]:
        """Compare a value with what may stand there; ``line`` is its key's."""
        line = node.line if line is None else line
        if spec is ANY:
            return
        if is_null(node):
            yield Finding(
                error("null", "Kratos refuses a key without a value here.", _FILL), line, path
            )
        elif isinstance(spec, Kind | tuple):
            yield from findings_of_scalar(node, spec, path, line)
        elif isinstance(spec, list | Hooks):
            if not isinstance(node, Items):
                yield Finding(wrong_type("a list"), line, path)
            elif isinstance(spec, Hooks):
                yield from self._hooks(node, spec, path)
            else:
                for index, item in enumerate(node.items):
                    yield from self.of(item, spec[0], (*path, index))
        elif isinstance(node, Map):
            yield from self._map(node, spec, path, line)
        else:
            yield Finding(wrong_type("a map"), line, path)

    def _map(self, node: Map, spec: Mapping[str, Spec], path: Path, line: int) -> Iterator[Finding]:
        if spec is API_KEY and text_at(node, "type") == "basic_auth":
            spec = BASIC_AUTH
        for name, entry in node.entries.items():
            known = spec.get(f"{name}!") if name else None
            known = known or (spec.get(name) if name != REFUSED else None) or spec.get("*")
            if known is not None:
                yield from self.of(entry.value, known, (*path, name), entry.line)
            else:
                yield Finding(self._unknown(name, node, spec, path), entry.line, (*path, name))
        for name in spec:
            if name.endswith("!") and name != REFUSED and name[:-1] not in node.entries:
                sentence = f"`{name[:-1]}` is missing here: Kratos refuses to start."
                yield Finding(error("required-key", sentence, "Add it."), line, path)

    def _unknown(self, name: str, node: Map, spec: Mapping[str, Spec], path: Path) -> Judgement:
        belongs = _BELONGS.get(name) if _is_in_hook(path) else None
        if belongs is not None:
            return error(
                "misplaced-key",
                f"`{name}` is in the wrong place: Kratos refuses to start, or does not see it.",
                f"It belongs into `{belongs}` of the hook.",
            )
        if name in _TEMPLATE_NAMES and path[-1:] == ("config",) and at(node, "body") is None:
            sentence = (
                f"Kratos does not read `{name}`: it finds no template, and never sends the hook."
            )
            return error("misplaced-key", sentence, "Name the template under `body`.")
        known = [key.rstrip("!") for key in spec if key not in ("*", REFUSED)]
        if meant := self._meant_by(name, known):
            sentence = "Kratos does not know this key: it refuses to start, or does not see it."
            return error("misspelt-key", sentence, f"Perhaps it should be `{meant}`.")
        if REFUSED in spec:
            sentence = "Kratos does not know this key, and refuses to start."
            return error("refused-key", sentence, f"Here stand only {', '.join(known)}.")
        return _UNKNOWN

    def _meant_by(self, name: str, known: list[str]) -> str | None:
        if self._guesses_left == 0 or len(name) > _LONGEST_NAME:
            return None
        self._guesses_left -= 1
        return next(iter(get_close_matches(name, known, 1, 0.75)), None)

    def _hooks(self, node: Items, spec: Hooks, path: Path) -> Iterator[Finding]:
        seen: set[object] = set()
        for index, item in enumerate(node.items):
            place = (*path, index)
            name = text_at(item, "hook")
            if not isinstance(item, Map) or name is None:
                yield Finding(_NO_HOOK, item.line, place)
                continue
            if name not in spec.allowed:
                yield Finding(_refused_hook(name, spec), item.line, place)
            written = value_of(item)
            if written in seen:
                yield Finding(_REPEATED, item.line, place)
            seen.add(written)
            if name in KNOWN_HOOKS:
                yield from self.of(item, HOOK_SHAPES.get(name, PLAIN_HOOK), place)
            if name == "web_hook":
                yield from _of_web_hook(Hook(name, item, place))


def _of_web_hook(hook: Hook) -> Iterator[Finding]:
    if at(hook.node, "config") is None:
        yield Finding(_NO_CONFIG, hook.line, hook.path)
    interrupts = at(hook.config, "can_interrupt")
    if interrupts is not None:
        yield Finding(_DEPRECATED, interrupts.line, (*hook.path, "config", "can_interrupt"))


def _is_in_hook(path: Path) -> bool:
    return any(isinstance(part, int) and before == "hooks" for before, part in pairwise(path))


def _refused_hook(name: str, spec: Hooks) -> Judgement:
    if name not in KNOWN_HOOKS:
        return _UNKNOWN_HOOK
    allowed = ", ".join(known for known in spec.allowed if known not in IGNORED_HOOKS)
    places = [
        f"{flow}.after{'' if method is None else f'.{method}'}"
        for flow, methods in HOOKS.items()
        for method, names in methods.items()
        if name in names
    ]
    where = f" `{name}` belongs to {', '.join(places)}." if places else ""
    sentence = f"Kratos allows no `{name}` here, and refuses to start."
    return error("hook-not-allowed", sentence, f"Here stand only {allowed}.{where}")


_FILL: Final = "Give it a value, or remove it."
_UNKNOWN: Final = Judgement(
    "unknown-key",
    Severity.WARNING,
    "This key is not known here: unless your Kratos is newer than this check, it refuses to start.",
    "See that it is spelt right, or remove it.",
)
_UNKNOWN_HOOK: Final = error(
    "unknown-hook",
    "Kratos knows no hook of this name, and refuses to start or leaves it out.",
    "A webhook is called `web_hook`.",
)
_NO_HOOK: Final = error(
    "no-hook",
    "This is no hook, and Kratos refuses to start.",
    "Give it a key `hook`, or remove it.",
)
_REPEATED: Final = error(
    "repeated-hook",
    "The same hook stands in this list already: Kratos refuses to start.",
    "Remove one of them.",
)
_NO_CONFIG: Final = error(
    "no-config",
    "The hook has no `config`: it calls nobody.",
    "Take what `kratos-sync hooks` prints.",
)
_DEPRECATED: Final = Judgement(
    "can-interrupt",
    Severity.WARNING,
    "`can_interrupt` is deprecated.",
    "Write `response: {parse: true}`, or remove it.",
)
