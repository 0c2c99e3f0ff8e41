"""Keys of a webhook that are not where Kratos looks for them."""

from collections.abc import Iterator, Mapping
from typing import Final

from application.kratos_config.findings import Finding, Judgement, Severity
from application.kratos_config.hook import Hook
from application.kratos_config.nodes import Map, at

_CONFIG: Final = (
    *("id", "url", "method", "headers", "body", "auth", "response"),
    *("can_interrupt", "emit_analytics_event"),
)
_RESPONSE: Final = ("ignore", "parse")
_KEY: Final = ("in", "name", "value", "user", "password")
_KNOWN: Final[Mapping[tuple[str, ...], tuple[str, ...]]] = {
    (): ("hook", "config"),
    ("config",): _CONFIG,
    ("config", "response"): _RESPONSE,
    ("config", "auth"): ("type", "config"),
    ("config", "auth", "config"): _KEY,
}
_BELONGS: Final[Mapping[str, str]] = {
    **dict.fromkeys(_KEY, "config.auth.config"),
    **dict.fromkeys(_RESPONSE, "config.response"),
    **dict.fromkeys(_CONFIG, "config"),
}
_UNKNOWN: Final = Judgement(
    "unknown-key",
    Severity.WARNING,
    "This key is not known here: unless your Kratos is newer than this check, it refuses to start.",
    "See that it is spelt right, or remove it.",
)
_NO_CONFIG: Final = Judgement(
    "no-config",
    Severity.ERROR,
    "The hook has no `config`: it calls nobody.",
    "`kratos-sync hooks` prints what belongs there.",
)
_DEPRECATED: Final = Judgement(
    "can-interrupt",
    Severity.WARNING,
    "`can_interrupt` is deprecated.",
    "Write `response: {parse: true}`, or remove it.",
)


def findings_of_shape(hook: Hook) -> Iterator[Finding]:
    """Say which keys of a webhook stand in the wrong place."""
    if not hook.is_web_hook:
        return
    if hook.config is None:
        yield Finding(_NO_CONFIG, hook.line, hook.path)
    for keys, known in _KNOWN.items():
        entry = at(hook.node, *keys)
        found = hook.node if not keys else None if entry is None else entry.value
        for name, stranger in (found.entries if isinstance(found, Map) else {}).items():
            if name not in known:
                yield Finding(_judge(name), stranger.line, (*hook.path, *keys, name))
    interrupts = at(hook.config, "can_interrupt")
    if interrupts is not None:
        yield Finding(_DEPRECATED, interrupts.line, (*hook.path, "config", "can_interrupt"))


def _judge(name: str) -> Judgement:
    belongs = _BELONGS.get(name)
    if belongs is None:
        return _UNKNOWN
    return Judgement(
        "misplaced-key",
        Severity.ERROR,
        f"`{name}` is in the wrong place: Kratos refuses to start, or does not see it.",
        f"It belongs into `{belongs}` of the hook.",
    )
